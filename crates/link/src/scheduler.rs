//! Whose turn it is on the wire: one lane for each stream that we send, served in turn.
//!
//! Deficit round robin: at each visit a lane may send [`BULK_CHUNK`] bytes more; what it does not use for lack of a
//! complete message it keeps, so that a stream of large items gets no more than one of small ones.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use bytes::Bytes;
use datacentered_proto::frame::{Frame, HEADER_LEN, Kind};
use datacentered_proto::limits::BULK_CHUNK;
use tokio_tungstenite::tungstenite::Message;

/// What a lane may send more at each visit: one bulk message.
const QUANTUM: usize = BULK_CHUNK + HEADER_LEN;

/// One message in a stream's lane.
pub(crate) enum Queued {
    /// An item, a gap or an end.
    Text(String),
    /// Bytes; the header is put before them when they are written.
    Bytes { kind: Kind, offset: u64, payload: Bytes },
}

impl Queued {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes { payload, .. } => payload.len() + HEADER_LEN,
        }
    }

    fn into_message(self, stream: u32) -> Message {
        match self {
            Self::Text(text) => Message::text(text),
            Self::Bytes { kind, offset, payload } => {
                Message::Binary(Frame { kind, stream, offset, payload }.encode())
            }
        }
    }
}

/// A stream that we send.
#[derive(Default)]
pub(crate) struct Sending {
    lane: VecDeque<Queued>,
    lane_bytes: usize,
    deficit: usize,
    /// How far we may send.
    pub(crate) credit: u64,
    /// Bytes of items sent so far.
    pub(crate) items_sent: u64,
    /// The most that was ever free at once: the other side's whole window.
    pub(crate) window: u64,
    /// Nothing comes after what is in the lane.
    pub(crate) ended: bool,
    /// The other side wants no more.
    pub(crate) closed: bool,
    /// It stands in the round.
    in_turn: bool,
    waker: Option<Waker>,
}

impl Sending {
    /// Bytes in the lane.
    pub(crate) fn lane_bytes(&self) -> usize {
        self.lane_bytes
    }

    /// Who waits for credit, for room or for the end.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// Takes credit; absolute, never less than before.
    pub(crate) fn grant(&mut self, upto: u64) {
        self.credit = self.credit.max(upto);
        self.window = self.window.max(self.credit - self.items_sent.min(self.credit));
    }
}

/// The lanes of all streams that we send.
#[derive(Default)]
pub(crate) struct Scheduler {
    streams: HashMap<u32, Sending>,
    /// Streams with something in their lane, in the order of their turns.
    turns: VecDeque<u32>,
    ended: bool,
}

impl Scheduler {
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    pub(crate) fn get_mut(&mut self, stream: u32) -> Option<&mut Sending> {
        self.streams.get_mut(&stream)
    }

    pub(crate) fn open(&mut self, stream: u32, credit: u64) {
        if !self.ended {
            let mut sending = Sending::default();
            sending.grant(credit);
            self.streams.insert(stream, sending);
        }
    }

    /// Forgets a stream and what it has not sent.
    pub(crate) fn remove(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Puts a message behind the others of its stream; false where the stream has gone.
    pub(crate) fn push(&mut self, stream: u32, queued: Queued) -> bool {
        let Some(sending) = self.streams.get_mut(&stream) else { return false };
        if !sending.in_turn {
            sending.in_turn = true;
            sending.deficit = QUANTUM;
            self.turns.push_back(stream);
        }
        sending.lane_bytes += queued.len();
        sending.lane.push_back(queued);
        true
    }

    /// The receiver wants no more: what is queued is dropped and `end` takes its place. Returns who is to be woken.
    pub(crate) fn close(&mut self, stream: u32, end: String) -> Option<Waker> {
        let sending = self.streams.get_mut(&stream)?;
        if sending.closed {
            return None;
        }
        sending.closed = true;
        sending.ended = true;
        sending.lane.clear();
        sending.lane_bytes = 0;
        let waker = sending.waker.take();
        self.push(stream, Queued::Text(end));
        waker
    }

    /// The next message in turn. A writer that waits for room is woken when its lane holds at most `low` bytes.
    pub(crate) fn next(&mut self, low: usize) -> Option<Message> {
        loop {
            let stream = *self.turns.front()?;
            let Some(sending) = self.streams.get_mut(&stream) else {
                self.turns.pop_front();
                continue;
            };
            let Some(front) = sending.lane.front() else {
                sending.in_turn = false;
                self.turns.pop_front();
                continue;
            };
            let size = front.len();
            if sending.deficit < size {
                // The turn is over; it goes on with more to spend when the others had theirs.
                sending.deficit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            let queued = sending.lane.pop_front()?;
            sending.deficit -= size;
            sending.lane_bytes -= size;
            if sending.lane_bytes <= low
                && let Some(waker) = sending.waker.take()
            {
                // Waking only schedules; nothing of ours runs here.
                waker.wake();
            }
            if sending.lane.is_empty() {
                sending.in_turn = false;
                self.turns.pop_front();
                if sending.ended {
                    self.streams.remove(&stream);
                }
            }
            return Some(queued.into_message(stream));
        }
    }

    /// The link has ended: forgets everything and returns who is to be woken.
    pub(crate) fn end(&mut self) -> Vec<Waker> {
        self.ended = true;
        self.turns = VecDeque::new();
        std::mem::take(&mut self.streams).into_values().filter_map(|sending| sending.waker).collect()
    }
}

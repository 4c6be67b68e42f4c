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

use crate::state::give_back;

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
        give_back(&mut self.streams);
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
                    self.remove(stream);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Queued {
        Queued::Bytes { kind: Kind::Stdout, offset: 0, payload: vec![0; len].into() }
    }

    fn stream_of(message: &Message) -> u32 {
        match message {
            Message::Binary(bytes) => Frame::decode(bytes.clone()).expect("a frame").stream,
            Message::Text(text) => text.len() as u32,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lanes_take_turns_by_bytes_whatever_their_messages_are() {
        let mut scheduler = Scheduler::default();
        // One of large items, one of bulk chunks, one of tiny frames.
        for stream in [1, 3, 5] {
            scheduler.open(stream, 0);
        }
        for _ in 0..20 {
            assert!(scheduler.push(1, bytes(200 * 1024)));
        }
        for _ in 0..200 {
            scheduler.push(3, bytes(BULK_CHUNK));
        }
        for _ in 0..60_000 {
            scheduler.push(5, bytes(20));
        }
        let mut sent = HashMap::from([(1, 0), (3, 0), (5, 0)]);
        for _ in 0..40_000 {
            let message = scheduler.next(0).expect("a message");
            *sent.entry(stream_of(&message)).or_insert(0) += message.len();
        }
        let (least, most) = (sent.values().min().copied(), sent.values().max().copied());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least < 300 * 1024), "{sent:?}");
    }

    #[test]
    fn a_stream_that_begins_waits_for_one_step_of_each_other_at_most() {
        let mut scheduler = Scheduler::default();
        for stream in [1, 3] {
            scheduler.open(stream, 0);
            for _ in 0..10 {
                scheduler.push(stream, bytes(BULK_CHUNK));
            }
        }
        scheduler.next(0);
        scheduler.open(5, 0);
        scheduler.push(5, bytes(1));
        let before = (0..10).position(|_| scheduler.next(0).is_some_and(|message| stream_of(&message) == 5));
        assert!(before.is_some_and(|before| before <= 2), "{before:?}");
    }

    #[test]
    fn closing_drops_what_waits_and_sends_the_end_alone() {
        let mut scheduler = Scheduler::default();
        scheduler.open(1, 0);
        scheduler.push(1, bytes(10));
        scheduler.push(1, bytes(10));
        scheduler.close(1, "end".into());
        scheduler.close(1, "again".into());
        assert_eq!(scheduler.next(0), Some(Message::text("end")));
        assert_eq!(scheduler.next(0), None);
        assert!(scheduler.is_idle() && scheduler.len() == 0);
        assert!(!scheduler.push(1, bytes(1)), "it has gone");
    }
}

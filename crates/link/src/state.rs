//! What the handle, the streams and the driver of one link share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use datacentered_proto::Error;
use datacentered_proto::operations::notifications;
use datacentered_proto::ops::{StreamClose, StreamCredit};
use datacentered_proto::rpc;
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::close::CloseReason;
use crate::limits::Limits;
use crate::link::Side;
use crate::numbers::Numbers;
use crate::receive::Receiving;
use crate::scheduler::Scheduler;

/// How a link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Round trip of a `link.ping`, smoothed (seven eighths of the old value); none before the first.
    pub rtt: Option<Duration>,
    /// How long ago anything was heard.
    pub last_heard: Duration,
}

/// What went over a link so far. Bytes are payloads of WebSocket messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received.
    pub frames_in: u64,
    /// Messages sent.
    pub frames_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Calls of the other side, `link.ping` left out.
    pub calls_in: u64,
    /// Calls of this side, the link's own pings left out.
    pub calls_out: u64,
}

/// What waits in the control lane.
pub(crate) enum Control {
    /// A call of ours.
    Request { id: u64, text: String },
    /// An answer to the other side; writing it frees the call's slot.
    Response { text: String },
    /// Anything else that is text.
    Text(String),
    /// New credit for a stream that we receive; its value is taken when it is written.
    Credit(u32),
    /// We want no more of a stream.
    Close(u32),
}

/// A call of ours that waits for its answer.
pub(crate) struct Pending {
    pub(crate) answer: oneshot::Sender<Result<Box<RawValue>, Error>>,
    /// Whether any of it may have reached the other side.
    pub(crate) written: bool,
}

/// The mutable part; every use of it is short and never waits.
pub(crate) struct State {
    pub(crate) closed: Option<CloseReason>,
    /// Set by a close in good order: its reason.
    pub(crate) closing: Option<String>,
    control: VecDeque<Control>,
    control_bytes: usize,
    pub(crate) pending: HashMap<u64, Pending>,
    /// A `link.ping` of ours on its way: its id and when it left.
    pub(crate) ping: Option<(u64, Instant)>,
    /// Calls of the other side whose answer is not written yet.
    pub(crate) answering: usize,
    pub(crate) numbers: Numbers,
    pub(crate) receiving: HashMap<u32, Receiving>,
    pub(crate) sending: Scheduler,
    pub(crate) counters: Counters,
    pub(crate) last_heard: Instant,
    pub(crate) rtt: Option<Duration>,
    driver: Option<Waker>,
    wake: bool,
}

/// What the parts of one link share.
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) side: Side,
    pub(crate) limits: Limits,
    /// One permit for each call of ours that may be in flight.
    pub(crate) slots: Semaphore,
    /// Told when the control lane has room again.
    room: Notify,
    ended: Notify,
    next_call: AtomicU64,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(side: Side, limits: Limits) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            side,
            slots: Semaphore::new(limits.calls_in_flight),
            room: Notify::new(),
            ended: Notify::new(),
            next_call: AtomicU64::new(1),
            state: Mutex::new(State {
                closed: None,
                closing: None,
                control: VecDeque::new(),
                control_bytes: 0,
                pending: HashMap::new(),
                ping: None,
                answering: 0,
                numbers: Numbers::new(side == Side::Dialled),
                receiving: HashMap::new(),
                sending: Scheduler::default(),
                counters: Counters::default(),
                last_heard: Instant::now(),
                rtt: None,
                driver: None,
                wake: false,
            }),
            limits,
        }
    }

    /// Works on the state, then wakes the driver where there is something new to write.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        // A panic while the lock was held cannot leave it half done: the closures only move values.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        let driver = if std::mem::take(&mut state.wake) { state.driver.take() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// The id of the next call of ours.
    pub(crate) fn next_call_id(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until the control lane has room for more of our own; false when the link has ended or is closing.
    pub(crate) async fn room(&self) -> bool {
        loop {
            let told = self.room.notified();
            let full = self
                .with(|state| state.is_open().then_some(state.control_bytes >= self.limits.control_bytes));
            match full {
                None => return false,
                Some(false) => return true,
                Some(true) => told.await,
            }
        }
    }

    /// Wakes who waits for room, to look again.
    pub(crate) fn tell_room(&self) {
        self.room.notify_waiters();
    }

    /// Waits until the link has ended.
    pub(crate) async fn ended(&self) -> CloseReason {
        loop {
            let told = self.ended.notified();
            if let Some(reason) = self.with(|state| state.closed.clone()) {
                return reason;
            }
            told.await;
        }
    }

    /// Ends everything that hangs on the link. The first reason stays.
    pub(crate) fn end(&self, reason: &CloseReason) {
        let (pending, wakers) = self.with(|state| {
            if state.closed.is_some() {
                return (HashMap::new(), Vec::new());
            }
            state.closed = Some(reason.clone());
            state.control = VecDeque::new();
            state.control_bytes = 0;
            let mut wakers = state.sending.end();
            wakers.extend(state.receiving.values_mut().filter_map(Receiving::take_waker));
            (std::mem::take(&mut state.pending), wakers)
        });
        for call in pending.into_values() {
            let error = if call.written { reason.indeterminate() } else { reason.unavailable() };
            let _ = call.answer.send(Err(error));
        }
        wakers.into_iter().for_each(Waker::wake);
        self.slots.close();
        self.room.notify_waiters();
        self.ended.notify_waiters();
    }

    /// The next message for the wire: the control lane first, then the streams in turn.
    pub(crate) fn next_message(&self) -> Option<Message> {
        let (message, room) = self.with(|state| {
            let before = state.control_bytes;
            let message = state.next_control(&self.limits).or_else(|| {
                if state.closing.is_some() { None } else { state.sending.next(self.limits.stream_lane / 2) }
            });
            if let Some(message) = &message {
                state.counters.frames_out += 1;
                state.counters.bytes_out += message.len() as u64;
            }
            let limit = self.limits.control_bytes;
            (message, before >= limit && state.control_bytes < limit)
        });
        if room {
            self.room.notify_waiters();
        }
        message
    }
}

impl State {
    /// Whether calls and streams can still be begun.
    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none() && self.closing.is_none()
    }

    /// Why nothing can be begun any more.
    pub(crate) fn why_not_open(&self) -> CloseReason {
        match (&self.closed, &self.closing) {
            (Some(reason), _) => reason.clone(),
            (None, reason) => CloseReason::Closed { reason: reason.clone().unwrap_or_default() },
        }
    }

    /// Tells the driver that there is something to do.
    pub(crate) fn wake_driver(&mut self) {
        self.wake = true;
    }

    /// Lets the driver sleep unless there is something to do. `blocked`: it cannot write now.
    pub(crate) fn park(&mut self, waker: &Waker, blocked: bool) -> bool {
        let idle = self.control.is_empty() && (self.closing.is_some() || self.sending.is_idle());
        if blocked || idle {
            self.driver = Some(waker.clone());
            true
        } else {
            false
        }
    }

    /// Puts something into the control lane.
    pub(crate) fn push(&mut self, control: Control) {
        if self.closed.is_none() {
            self.control_bytes += control.len();
            self.control.push_back(control);
            self.wake = true;
        }
    }

    /// Whether nothing waits in the control lane.
    pub(crate) fn control_is_empty(&self) -> bool {
        self.control.is_empty()
    }

    /// Frames and bytes in the control lane.
    pub(crate) fn control_load(&self) -> (usize, usize) {
        (self.control.len(), self.control_bytes)
    }

    /// Open streams, both directions.
    pub(crate) fn streams(&self) -> usize {
        self.receiving.len() + self.sending.len()
    }

    fn next_control(&mut self, limits: &Limits) -> Option<Message> {
        while let Some(control) = self.control.pop_front() {
            self.control_bytes -= control.len();
            if self.control.is_empty() && self.control.capacity() > 64 {
                self.control = VecDeque::new();
            }
            match control {
                Control::Request { id, text } => {
                    // A call that its caller has dropped is not sent at all.
                    if let Some(call) = self.pending.get_mut(&id) {
                        call.written = true;
                        self.counters.calls_out += 1;
                        return Some(Message::text(text));
                    }
                }
                Control::Response { text } => {
                    self.answering = self.answering.saturating_sub(1);
                    return Some(Message::text(text));
                }
                Control::Text(text) => return Some(Message::text(text)),
                Control::Credit(stream) => {
                    if let Some(upto) = self.receiving.get_mut(&stream).and_then(|r| r.grant(limits)) {
                        let credit = StreamCredit { stream, upto };
                        return Some(Message::text(rpc::notification(notifications::CREDIT, &credit)));
                    }
                }
                Control::Close(stream) => {
                    let close = StreamClose { stream };
                    return Some(Message::text(rpc::notification(notifications::CLOSE, &close)));
                }
            }
        }
        None
    }
}

impl Control {
    fn len(&self) -> usize {
        match self {
            Self::Request { text, .. } | Self::Response { text } | Self::Text(text) => text.len(),
            Self::Credit(_) | Self::Close(_) => 0,
        }
    }
}

/// What a table may keep for later when it is empty, in entries: an idle link should cost little.
const KEPT: usize = 32;

/// Gives back the memory of a table that has become empty.
pub(crate) fn give_back<V>(table: &mut HashMap<impl Eq + std::hash::Hash, V>) {
    if table.is_empty() && table.capacity() > KEPT {
        table.shrink_to(KEPT / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Queued;

    #[tokio::test]
    async fn the_control_lane_goes_first_and_dropped_calls_do_not_go_at_all() {
        let shared = Shared::new(Side::Dialled, Limits::default());
        let (answer, _answered) = oneshot::channel();
        shared.with(|state| {
            state.sending.open(1, 0);
            state.sending.push(1, Queued::Text("item".into()));
            state.pending.insert(2, Pending { answer, written: false });
            state.push(Control::Request { id: 1, text: "dropped".into() });
            state.push(Control::Request { id: 2, text: "call".into() });
            state.push(Control::Close(7));
        });
        let sent: Vec<_> = std::iter::from_fn(|| shared.next_message()).collect();
        let close = r#"{"jsonrpc":"2.0","method":"stream.close","params":{"stream":7}}"#;
        assert_eq!(sent, [Message::text("call"), Message::text(close), Message::text("item")]);
        assert!(shared.with(|state| state.pending[&2].written));
        assert_eq!(shared.with(|state| state.control_load()), (0, 0));
    }

    #[test]
    fn an_idle_links_state_is_small() {
        assert!(size_of::<Shared>() < 1024, "{}", size_of::<Shared>());
    }
}

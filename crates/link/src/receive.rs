//! Receiving a stream: what has come and was not taken yet, and the credit that goes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use datacentered_proto::frame::{Frame, Kind};
use datacentered_proto::ops::{EndReason, StreamEnd, StreamGap};
use datacentered_proto::{Cursor, Effect, Error, operations};
use serde_json::value::RawValue;

use crate::limits::Limits;
use crate::state::{Control, Shared, give_back};

/// One thing on a stream.
#[derive(Debug)]
pub enum StreamEvent {
    /// An item.
    Item {
        /// The place behind it: hand it back to resume after it.
        cursor: Cursor,
        /// The item, unparsed.
        value: Box<RawValue>,
    },
    /// Bytes, at most one message of them; neighbours of one kind may have been joined.
    Bytes {
        /// What they are.
        kind: Kind,
        /// Where the first one stands in the record.
        offset: u64,
        /// The bytes.
        payload: Bytes,
    },
    /// A stretch is missing; the stream goes on behind it.
    Gap(StreamGap),
    /// The last thing. Where the link was lost: reason `failed`, error `unavailable`, and the offset up to which all has come.
    End(StreamEnd),
}

/// What credit counts on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Offsets of the record.
    Bytes,
    /// Bytes of item messages, from zero.
    Items,
}

impl Unit {
    /// What a stream that this operation opens carries.
    pub(crate) fn of(method: &str) -> Self {
        match operations::find(method).map(|spec| spec.effect) {
            Some(Effect::Items) => Self::Items,
            _ => Self::Bytes,
        }
    }
}

/// A stream that we receive.
pub(crate) struct Receiving {
    unit: Unit,
    /// Events and the window bytes that each holds.
    queue: VecDeque<(StreamEvent, u64)>,
    queued_bytes: u64,
    /// Bytes streams: the offset of the next byte. Items: bytes of messages so far.
    position: u64,
    /// How far the other side may send.
    granted: u64,
    credit_queued: bool,
    /// How much may wait for the reader, where that is not what the link's limits say.
    window: Option<u64>,
    /// The last event is in the queue; what still comes is ignored.
    ended: bool,
    waker: Option<Waker>,
}

impl Receiving {
    pub(crate) fn new(unit: Unit, from: u64, credit: u64) -> Self {
        Self {
            unit,
            queue: VecDeque::new(),
            queued_bytes: 0,
            position: if unit == Unit::Bytes { from } else { 0 },
            granted: credit,
            credit_queued: false,
            window: None,
            ended: false,
            waker: None,
        }
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// Whether more credit is due; counts as queued then.
    fn credit_due(&mut self, limits: &Limits) -> bool {
        let due = !self.ended
            && !self.credit_queued
            && self.upto(limits).saturating_sub(self.granted) >= self.window(limits) / 2;
        self.credit_queued |= due;
        due
    }

    fn window(&self, limits: &Limits) -> u64 {
        self.window.unwrap_or(limits.stream_window)
    }

    fn upto(&self, limits: &Limits) -> u64 {
        self.position.saturating_add(self.window(limits).saturating_sub(self.queued_bytes))
    }

    /// The credit to send now; none where there is nothing new to say.
    pub(crate) fn grant(&mut self, limits: &Limits) -> Option<u64> {
        self.credit_queued = false;
        let upto = self.upto(limits);
        if self.ended || upto <= self.granted {
            return None;
        }
        self.granted = upto;
        Some(upto)
    }

    /// The first offset is known now; nothing was granted before.
    fn begin_at(&mut self, offset: u64) {
        self.position = offset;
        self.granted = offset;
        self.credit_queued = true;
    }

    /// Takes bytes from the wire, or says how the other side broke the stream.
    pub(crate) fn bytes(&mut self, frame: Frame, limits: &Limits) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        if self.unit != Unit::Bytes {
            return Err(Error::invalid("bytes came on a stream of items"));
        }
        if frame.offset != self.position {
            return Err(Error::invalid(format!(
                "bytes came for offset {} where {} follows, without a gap between",
                frame.offset, self.position
            )));
        }
        let len = frame.payload.len() as u64;
        let Some(position) = frame.offset.checked_add(len).filter(|end| *end <= self.granted) else {
            return Err(Error::invalid(format!(
                "bytes came beyond the credit, which ends at offset {}",
                self.granted
            )));
        };
        if len == 0 {
            return Ok(());
        }
        self.position = position;
        if self.joined(&frame) {
            return Ok(());
        }
        let event = StreamEvent::Bytes { kind: frame.kind, offset: frame.offset, payload: frame.payload };
        self.push(event, len, limits)
    }

    /// Joins small neighbours, so that what waits costs what it holds.
    fn joined(&mut self, frame: &Frame) -> bool {
        use datacentered_proto::limits::BULK_CHUNK;
        let Some((StreamEvent::Bytes { kind, payload, .. }, held)) = self.queue.back_mut() else {
            return false;
        };
        if *kind != frame.kind || payload.len() + frame.payload.len() > BULK_CHUNK {
            return false;
        }
        let mut joined = match std::mem::take(payload).try_into_mut() {
            Ok(own) => own,
            Err(shared) => {
                let mut own = bytes::BytesMut::with_capacity((2 * shared.len()).min(BULK_CHUNK));
                own.extend_from_slice(&shared);
                own
            }
        };
        joined.extend_from_slice(&frame.payload);
        *held += frame.payload.len() as u64;
        self.queued_bytes += frame.payload.len() as u64;
        *payload = joined.freeze();
        true
    }

    /// Takes an item whose message had `len` bytes.
    pub(crate) fn item(
        &mut self,
        cursor: Cursor,
        value: Box<RawValue>,
        len: usize,
        limits: &Limits,
    ) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        if self.unit != Unit::Items {
            return Err(Error::invalid("an item came on a stream of bytes"));
        }
        let (len, free) = (len as u64, self.granted.saturating_sub(self.position));
        // One item may be larger than what is left when at least half the window is free: nothing else would come.
        if len > free && (free == 0 || free < limits.stream_window / 2) {
            return Err(Error::invalid(format!("an item of {len} bytes came where {free} were granted")));
        }
        self.position += len;
        self.push(StreamEvent::Item { cursor, value }, len, limits)
    }

    /// Takes a gap. True where the credit behind it has to be told.
    pub(crate) fn gap(&mut self, gap: StreamGap, limits: &Limits) -> Result<bool, Error> {
        if self.ended {
            return Ok(false);
        }
        if gap.to <= gap.from {
            return Err(Error::invalid(format!("a gap came that ends at {} before it begins", gap.to)));
        }
        if self.unit == Unit::Bytes {
            if gap.from != self.position {
                return Err(Error::invalid(format!(
                    "a gap came from offset {} where {} follows",
                    gap.from, self.position
                )));
            }
            self.position = gap.to;
        }
        self.push(StreamEvent::Gap(gap), 0, limits)?;
        Ok(self.credit_due(limits))
    }

    /// Takes the end.
    pub(crate) fn end(&mut self, end: StreamEnd) {
        if !self.ended {
            self.ended = true;
            self.queue.push_back((StreamEvent::End(end), 0));
        }
    }

    /// Ends it because the other side broke it or cannot go on.
    pub(crate) fn fail(&mut self, stream: u32, error: Error) {
        let offset = self.position;
        self.end(StreamEnd { stream, reason: EndReason::Failed, offset, error: Some(error) });
    }

    fn push(&mut self, event: StreamEvent, held: u64, limits: &Limits) -> Result<(), Error> {
        if self.queue.len() >= limits.stream_events {
            return Err(Error::limited(format!(
                "more than {} frames wait for this stream's reader; open it again from the last offset",
                limits.stream_events
            )));
        }
        self.queued_bytes += held;
        self.queue.push_back((event, held));
        Ok(())
    }

    fn pop(&mut self, limits: &Limits) -> Option<(StreamEvent, bool)> {
        let (event, held) = self.queue.pop_front()?;
        self.queued_bytes -= held;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        let due = self.credit_due(limits);
        Some((event, due))
    }
}

/// The receiving end of a stream. Credit goes back as events are taken; dropping it tells the other side to stop.
pub struct StreamReader {
    shared: Arc<Shared>,
    stream: u32,
    /// The end was taken.
    done: bool,
    /// The other side knows of the stream.
    pub(crate) opened: bool,
}

impl StreamReader {
    pub(crate) fn new(shared: Arc<Shared>, stream: u32) -> Self {
        Self { shared, stream, done: false, opened: true }
    }

    /// The stream's number on its link.
    pub fn id(&self) -> u32 {
        self.stream
    }

    /// Says where a bytes stream begins whose opener could not know it: the other side has waited for credit until now.
    pub fn begin_at(&mut self, offset: u64) {
        let stream = self.stream;
        self.shared.with(|state| {
            let Some(receiving) = state.receiving.get_mut(&stream) else { return };
            receiving.begin_at(offset);
            state.push(Control::Credit(stream));
        });
    }

    /// Lets the other side of a stream of bytes send up to `window` bytes ahead, where that is more than
    /// [`Limits::stream_window`]: for bulk data over long distances. It is what the stream may cost in memory.
    pub fn widen(&mut self, window: u64) {
        let stream = self.stream;
        let limits = &self.shared.limits;
        self.shared.with(|state| {
            let Some(receiving) = state.receiving.get_mut(&stream) else { return };
            receiving.window = Some(window.max(limits.stream_window));
            if receiving.credit_due(limits) {
                state.push(Control::Credit(stream));
            }
        });
    }

    /// The next event; none after [`StreamEvent::End`]. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The poll form of [`Self::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        if self.done {
            return Poll::Ready(None);
        }
        let stream = self.stream;
        let limits = &self.shared.limits;
        let event = self.shared.with(|state| {
            let closed = state.closed.clone();
            let receiving = state.receiving.get_mut(&stream)?;
            match (receiving.pop(limits), closed) {
                (Some((event, due)), _) => {
                    if due {
                        state.push(Control::Credit(stream));
                    }
                    Some(event)
                }
                (None, Some(reason)) => {
                    receiving.fail(stream, reason.unavailable());
                    receiving.pop(limits).map(|(event, _)| event)
                }
                (None, None) => {
                    receiving.waker = Some(cx.waker().clone());
                    None
                }
            }
        });
        match event {
            Some(event) => {
                if matches!(event, StreamEvent::End(_)) {
                    self.done = true;
                    self.shared.with(|state| {
                        state.receiving.remove(&stream);
                        give_back(&mut state.receiving);
                    });
                }
                Poll::Ready(Some(event))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (stream, opened) = (self.stream, self.opened);
        // The queue is dropped outside the lock.
        let _queue = self.shared.with(|state| {
            let receiving = state.receiving.remove(&stream);
            give_back(&mut state.receiving);
            if opened && receiving.as_ref().is_some_and(|receiving| !receiving.ended) {
                state.push(Control::Close(stream));
            }
            receiving
        });
    }
}

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader")
            .field("link", &self.shared.id)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

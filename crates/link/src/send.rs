//! Sending a stream: waits for credit, then for room in the stream's lane.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use datacentered_proto::frame::Kind;
use datacentered_proto::limits::BULK_CHUNK;
use datacentered_proto::operations::notifications;
use datacentered_proto::ops::{EndReason, GapReason, StreamEnd, StreamGap, StreamItem};
use datacentered_proto::{Cursor, Error, rpc};
use serde::Serialize;

use crate::scheduler::{Queued, Sending};
use crate::state::{Shared, State};

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The reader wants no more, or the link has ended; stop sending.
    #[error("the stream's reader has gone; stop sending")]
    Closed,
    /// The item does not fit a message; the stream goes on.
    #[error("the item's message has {size} bytes, more than the {limit} that are allowed; send less at once")]
    TooLarge {
        /// Bytes of its message.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes do not follow those before; declare a gap first. The stream goes on.
    #[error("offset {offset} was given where {expected} follows; declare what is missing as a gap first")]
    OutOfOrder {
        /// The offset that was given.
        offset: u64,
        /// The one that follows.
        expected: u64,
    },
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        let text = error.to_string();
        match error {
            SendError::Closed => Self::unavailable(text),
            SendError::TooLarge { .. } => Self::too_large(text),
            SendError::OutOfOrder { .. } => Self::internal(text),
        }
    }
}

/// The sending end of a stream. Dropped without [`Self::end`], it ends the stream as `failed`.
pub struct StreamWriter {
    shared: Arc<Shared>,
    stream: u32,
    /// The offset of the next byte, once there was one.
    next: Option<u64>,
    ended: bool,
    /// The other side knows of the stream.
    pub(crate) opened: bool,
}

impl StreamWriter {
    pub(crate) fn new(shared: Arc<Shared>, stream: u32) -> Self {
        Self { shared, stream, next: None, ended: false, opened: true }
    }

    /// The stream's number on its link.
    pub fn id(&self) -> u32 {
        self.stream
    }

    /// The offset of the next byte; none before the first byte or gap.
    pub fn offset(&self) -> Option<u64> {
        self.next
    }

    /// Sends bytes that stand at `offset` of the stream's record, in messages of at most [`BULK_CHUNK`].
    ///
    /// Waits for the reader's credit and for room in the stream's lane. Dropped while it waits, it has sent what
    /// [`Self::offset`] tells.
    pub async fn send_bytes(&mut self, kind: Kind, offset: u64, payload: Bytes) -> Result<(), SendError> {
        if let Some(expected) = self.next.filter(|expected| *expected != offset) {
            return Err(SendError::OutOfOrder { offset, expected });
        }
        let mut rest = payload;
        let mut at = offset;
        self.next = Some(at);
        while !rest.is_empty() {
            let sent = self
                .when(|sending| {
                    let free = usize::try_from(sending.credit.saturating_sub(at)).unwrap_or(usize::MAX);
                    let len = rest.len().min(BULK_CHUNK).min(free);
                    (len > 0).then(|| (Queued::Bytes { kind, offset: at, payload: rest.split_to(len) }, len))
                })
                .await?;
            at += sent as u64;
            self.next = Some(at);
        }
        Ok(())
    }

    /// Sends an item; `cursor` is the place behind it. A value that goes to many streams is best handed over as `RawValue`.
    ///
    /// Waits for the reader's credit and for room in the stream's lane. An item larger than what is granted goes when at
    /// least half of the reader's window is free.
    pub async fn send_item<T: Serialize + ?Sized>(
        &mut self,
        cursor: &Cursor,
        value: &T,
    ) -> Result<(), SendError> {
        let item = StreamItem { stream: self.stream, cursor: cursor.clone(), value };
        let text = rpc::notification(notifications::ITEM, &item);
        let (size, limit) = (text.len(), self.shared.limits.max_message);
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        let mut text = Some(text);
        self.when(|sending| {
            let len = size as u64;
            let free = sending.credit.saturating_sub(sending.items_sent);
            if len > free && (free == 0 || free < sending.window / 2) {
                return None;
            }
            let text = text.take()?;
            sending.items_sent += len;
            Some((Queued::Text(text), ()))
        })
        .await
    }

    /// Tells that the stretch from `from` up to `to` is missing; the next bytes stand at `to`.
    pub async fn gap(&mut self, from: u64, to: u64, reason: GapReason) -> Result<(), SendError> {
        if let Some(expected) = self.next.filter(|expected| *expected != from) {
            return Err(SendError::OutOfOrder { offset: from, expected });
        }
        let gap = StreamGap { stream: self.stream, from, to, reason };
        self.text(rpc::notification(notifications::GAP, &gap)).await?;
        self.next = Some(to);
        Ok(())
    }

    /// Ends the stream; `offset` is the final one. What was sent before still goes out, in its order.
    pub async fn end(
        mut self,
        reason: EndReason,
        offset: u64,
        error: Option<Error>,
    ) -> Result<(), SendError> {
        let end = StreamEnd { stream: self.stream, reason, offset, error };
        let text = rpc::notification(notifications::END, &end);
        let mut text = Some(text);
        self.when(|sending| {
            sending.ended = true;
            text.take().map(|text| (Queued::Text(text), ()))
        })
        .await?;
        self.ended = true;
        Ok(())
    }

    /// Waits until the reader wants no more or the link has ended.
    pub async fn closed(&self) {
        std::future::poll_fn(|cx| {
            self.shared.with(|state| match live(state, self.stream) {
                Some(sending) => {
                    sending.wait(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            })
        })
        .await;
    }

    /// Whether the reader wants no more or the link has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.with(|state| live(state, self.stream).is_none())
    }

    async fn text(&mut self, text: String) -> Result<(), SendError> {
        let mut text = Some(text);
        self.when(|_| text.take().map(|text| (Queued::Text(text), ()))).await
    }

    /// Puts into the lane what `make` gives, as soon as there is room and `make` gives something.
    async fn when<R>(
        &self,
        mut make: impl FnMut(&mut Sending) -> Option<(Queued, R)>,
    ) -> Result<R, SendError> {
        let stream = self.stream;
        let limit = self.shared.limits.stream_lane;
        std::future::poll_fn(|cx| {
            self.shared.with(|state| {
                let Some(sending) = live(state, stream) else { return Poll::Ready(Err(SendError::Closed)) };
                let made = if sending.lane_bytes() < limit { make(sending) } else { None };
                let Some((queued, result)) = made else {
                    sending.wait(cx.waker());
                    return Poll::Pending;
                };
                state.sending.push(stream, queued);
                state.wake_driver();
                Poll::Ready(Ok(result))
            })
        })
        .await
    }
}

/// The stream's state while anything can still be sent on it.
fn live(state: &mut State, stream: u32) -> Option<&mut Sending> {
    if state.closed.is_some() {
        return None;
    }
    state.sending.get_mut(stream).filter(|sending| !sending.closed)
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let stream = self.stream;
        let end = StreamEnd {
            stream,
            reason: EndReason::Failed,
            offset: self.next.unwrap_or(0),
            error: Some(Error::internal(
                "the sender stopped before the end; open the stream again from the last offset",
            )),
        };
        self.shared.with(|state| {
            if !self.opened {
                state.sending.remove(stream);
            } else if let Some(sending) = live(state, stream).filter(|sending| !sending.ended) {
                sending.ended = true;
                state.sending.push(stream, Queued::Text(rpc::notification(notifications::END, &end)));
                state.wake_driver();
            }
        });
    }
}

impl std::fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamWriter")
            .field("link", &self.shared.id)
            .field("stream", &self.stream)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

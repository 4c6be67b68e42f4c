//! The handle of a link: calls, streams, closing.

use std::sync::Arc;

use datacentered_proto::ops::{StreamOpen, StreamOpened};
use datacentered_proto::rpc::{self, Cause};
use datacentered_proto::{Error, Operation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;

use crate::close::CloseReason;
use crate::driver::Driver;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::receive::{Receiving, StreamReader, Unit};
use crate::send::StreamWriter;
use crate::state::{Control, Counters, Pending, Quality, Shared, give_back};

/// Which end of a link this is. Who dialled gives odd stream numbers, the other side even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This side connected.
    Dialled,
    /// This side was connected to.
    Accepted,
}

/// The handle of one connection. Clones share it; dropping them all does not end it, its [`Driver`] does.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

impl Link {
    /// Begins to speak over a WebSocket. Nothing moves until the driver is polled; it needs a tokio runtime.
    pub fn start<S>(
        ws: WebSocketStream<S>,
        side: Side,
        handler: Arc<dyn Handler>,
        limits: Limits,
    ) -> (Self, Driver)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = Self { shared: Arc::new(Shared::new(side, limits.workable())) };
        let driver = Driver::new(ws, link.clone(), handler);
        (link, driver)
    }

    /// Calls an operation of the other side.
    ///
    /// Waits for room when too many calls are in flight. Where the link ends, the error is `unavailable` if the call was
    /// never sent and `indeterminate` if it may have arrived. Dropping the future frees the call's slot; the other side may
    /// still carry it out.
    pub async fn call<O: Operation>(&self, params: &O::Params) -> Result<O::Reply, Error> {
        self.call_with_cause::<O>(params, Cause::default()).await
    }

    /// As [`Self::call`], on behalf of another call.
    pub async fn call_with_cause<O: Operation>(
        &self,
        params: &O::Params,
        cause: Cause,
    ) -> Result<O::Reply, Error> {
        let params = rpc::raw(params)?;
        let reply = self.call_raw(O::SPEC.name, &params, cause).await?;
        decode(O::SPEC.name, &reply)
    }

    /// As [`Self::call`], with everything unparsed.
    pub async fn call_raw(
        &self,
        method: &str,
        params: &RawValue,
        cause: Cause,
    ) -> Result<Box<RawValue>, Error> {
        let shared = &self.shared;
        let Ok(_slot) = shared.slots.acquire().await else { return Err(self.why_not_open().unavailable()) };
        let id = shared.next_call_id();
        let text = rpc::request(id, method, params, &cause);
        if text.len() > shared.limits.max_message {
            return Err(Error::too_large(format!(
                "the call has {} bytes, more than the {} that a message may have; send less at once",
                text.len(),
                shared.limits.max_message
            )));
        }
        if !shared.room().await {
            return Err(self.why_not_open().unavailable());
        }
        let (answer, answered) = oneshot::channel();
        let open = shared.with(|state| {
            let open = state.is_open();
            if open {
                state.pending.insert(id, Pending { answer, written: false });
                state.push(Control::Request { id, text });
            }
            open
        });
        if !open {
            return Err(self.why_not_open().unavailable());
        }
        let _forget = Forget { shared, id };
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(self.why_not_open().indeterminate()),
        }
    }

    /// Opens a stream from the other side; `make` puts the given [`StreamOpen`] into the parameters.
    ///
    /// `from` is the offset of the first byte that is wanted, 0 for streams of items. The other side must begin there or
    /// declare a gap.
    pub async fn open<O: Operation>(
        &self,
        from: u64,
        make: impl FnOnce(StreamOpen) -> O::Params,
    ) -> Result<(O::Reply, StreamReader), Error> {
        self.open_with_cause::<O>(from, Cause::default(), make).await
    }

    /// As [`Self::open`], on behalf of another call.
    pub async fn open_with_cause<O: Operation>(
        &self,
        from: u64,
        cause: Cause,
        make: impl FnOnce(StreamOpen) -> O::Params,
    ) -> Result<(O::Reply, StreamReader), Error> {
        let name = O::SPEC.name;
        let (stream, mut reader) = self.reader(name, from)?;
        let params = rpc::raw(&make(stream)).inspect_err(|_| reader.opened = false)?;
        let (reply, reader) = self.opened(name, &params, cause, reader).await?;
        Ok((decode(name, &reply)?, reader))
    }

    /// As [`Self::open`], with everything unparsed.
    pub async fn open_raw(
        &self,
        method: &str,
        from: u64,
        cause: Cause,
        make: impl FnOnce(StreamOpen) -> Box<RawValue>,
    ) -> Result<(Box<RawValue>, StreamReader), Error> {
        let (stream, reader) = self.reader(method, from)?;
        self.opened(method, &make(stream), cause, reader).await
    }

    /// Opens a stream to the other side; `make` puts the given [`StreamOpen`] into the parameters.
    pub async fn upload<O: Operation>(
        &self,
        make: impl FnOnce(StreamOpen) -> O::Params,
    ) -> Result<(O::Reply, StreamWriter), Error> {
        self.upload_with_cause::<O>(Cause::default(), make).await
    }

    /// As [`Self::upload`], on behalf of another call.
    pub async fn upload_with_cause<O: Operation>(
        &self,
        cause: Cause,
        make: impl FnOnce(StreamOpen) -> O::Params,
    ) -> Result<(O::Reply, StreamWriter), Error> {
        let name = O::SPEC.name;
        let raw = |stream| rpc::raw(&make(stream));
        let (reply, writer) = self.upload_with(name, cause, raw).await?;
        Ok((decode(name, &reply)?, writer))
    }

    /// As [`Self::upload`], with everything unparsed.
    pub async fn upload_raw(
        &self,
        method: &str,
        cause: Cause,
        make: impl FnOnce(StreamOpen) -> Box<RawValue>,
    ) -> Result<(Box<RawValue>, StreamWriter), Error> {
        self.upload_with(method, cause, |stream| Ok(make(stream))).await
    }

    /// Sends a notification; it changes nothing and nobody answers it. Dropped when the link has ended or is congested.
    pub fn notify<T: Serialize>(&self, method: &str, params: &T) {
        let text = rpc::notification(method, params);
        if text.len() > self.shared.limits.max_message {
            return;
        }
        self.shared.with(|state| {
            let (frames, bytes) = state.control_load();
            let limits = &self.shared.limits;
            if state.is_open() && frames < limits.control_queue && bytes < limits.control_bytes {
                state.push(Control::Text(text));
            }
        });
    }

    /// Waits until the link has ended and tells why.
    pub async fn closed(&self) -> CloseReason {
        self.shared.ended().await
    }

    /// Whether the link has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.with(|state| state.closed.is_some())
    }

    /// Ends the link in good order: what is queued in the control lane still goes out, then a WebSocket close frame with
    /// `reason`, all within [`Limits::close_timeout_ms`]. Nothing new can be begun from now on.
    pub fn close(&self, reason: &str) {
        self.shared.with(|state| {
            if state.is_open() {
                state.closing = Some(reason.to_owned());
                state.wake_driver();
            }
        });
        // Who waits for room learns that there will be none.
        self.shared.slots.close();
        self.shared.tell_room();
    }

    /// How the link is doing.
    pub fn quality(&self) -> Quality {
        self.shared.with(|state| Quality { rtt: state.rtt, last_heard: state.last_heard.elapsed() })
    }

    /// What went over it so far.
    pub fn counters(&self) -> Counters {
        self.shared.with(|state| state.counters)
    }

    /// Unique among the links of this process.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.shared.side
    }

    /// The limits that are in force.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The first credit of a stream that this side receives from `from` on (absolute).
    pub fn first_credit(&self, from: u64) -> u64 {
        from.saturating_add(self.shared.limits.stream_window)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn why_not_open(&self) -> CloseReason {
        self.shared.with(|state| state.why_not_open())
    }

    /// A fresh number for a stream of ours.
    fn number(&self) -> Result<u32, Error> {
        self.shared.with(|state| {
            if !state.is_open() {
                return Err(state.why_not_open().unavailable());
            }
            if state.streams() >= self.shared.limits.streams_per_link {
                return Err(too_many_streams(&self.shared.limits));
            }
            state
                .numbers
                .own()
                .ok_or_else(|| Error::limited("this link has used all its stream numbers; connect again"))
        })
    }

    fn reader(&self, method: &str, from: u64) -> Result<(StreamOpen, StreamReader), Error> {
        let id = self.number()?;
        let credit = self.first_credit(from);
        let receiving = Receiving::new(Unit::of(method), from, credit);
        self.shared.with(|state| state.receiving.insert(id, receiving));
        Ok((StreamOpen { id, credit }, StreamReader::new(self.shared.clone(), id)))
    }

    async fn opened(
        &self,
        method: &str,
        params: &RawValue,
        cause: Cause,
        mut reader: StreamReader,
    ) -> Result<(Box<RawValue>, StreamReader), Error> {
        // Should this future be dropped while it waits, the reader goes with it and closes the stream.
        match self.call_raw(method, params, cause).await {
            Ok(reply) => Ok((reply, reader)),
            Err(error) => {
                reader.opened = false;
                Err(error)
            }
        }
    }

    async fn upload_with(
        &self,
        method: &str,
        cause: Cause,
        make: impl FnOnce(StreamOpen) -> Result<Box<RawValue>, Error>,
    ) -> Result<(Box<RawValue>, StreamWriter), Error> {
        let id = self.number()?;
        self.shared.with(|state| state.sending.open(id, 0));
        let mut writer = StreamWriter::new(self.shared.clone(), id);
        let called = match make(StreamOpen { id, credit: 0 }) {
            Ok(params) => self.call_raw(method, &params, cause).await,
            Err(error) => Err(error),
        };
        match called {
            Ok(reply) => {
                let opened: StreamOpened = decode(method, &reply)?;
                self.shared.with(|state| {
                    if let Some(sending) = state.sending.get_mut(id) {
                        sending.grant(opened.credit.unwrap_or(0));
                    }
                });
                Ok((reply, writer))
            }
            Err(error) => {
                writer.opened = false;
                Err(error)
            }
        }
    }
}

pub(crate) fn too_many_streams(limits: &Limits) -> Error {
    Error::limited(format!(
        "{} streams are open on this link, the most there may be; close some first",
        limits.streams_per_link
    ))
}

fn decode<T: DeserializeOwned>(method: &str, reply: &RawValue) -> Result<T, Error> {
    serde_json::from_str(reply.get()).map_err(|error| {
        Error::internal(format!("the other side's reply to {method} is not understood: {error}"))
    })
}

/// Frees a call's slot however its future ends.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.with(|state| {
            state.pending.remove(&self.id);
            give_back(&mut state.pending);
        });
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("id", &self.shared.id).field("side", &self.shared.side).finish()
    }
}

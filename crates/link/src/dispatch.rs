//! What each message from the other side leads to.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use datacentered_proto::frame::Frame;
use datacentered_proto::operations::{LinkPing, notifications};
use datacentered_proto::ops::{
    Done, EndReason, StreamClose, StreamCredit, StreamEnd, StreamGap, StreamOpened,
};
use datacentered_proto::rpc::{self, Cause, Id, Incoming};
use datacentered_proto::{Cursor, Error, Operation};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::close::CloseReason;
use crate::handler::{Answer, Called, Handler, Request};
use crate::limits::REFUSE_FACTOR;
use crate::link::{Link, too_many_streams};
use crate::receive::{Receiving, StreamReader, Unit};
use crate::send::StreamWriter;
use crate::state::{Control, Shared, State};

/// When a caller that met a limit may try again, in milliseconds.
const RETRY_AFTER_MS: u64 = 100;

/// Sorts what comes in. It owns the tasks of handlers that answer later and of streams.
pub(crate) struct Dispatcher {
    pub(crate) link: Link,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) tasks: JoinSet<()>,
}

impl Dispatcher {
    /// Takes one message.
    pub(crate) fn message(&mut self, message: Message) -> Result<(), CloseReason> {
        let len = message.len();
        self.link.shared().with(|state| {
            state.counters.frames_in += 1;
            state.counters.bytes_in += len as u64;
        });
        match message {
            Message::Text(text) => self.text(text.as_str()),
            Message::Binary(bytes) => self.binary(bytes),
            Message::Close(frame) => Err(match frame {
                Some(frame) => CloseReason::ClosedByPeer {
                    code: frame.code.into(),
                    // It goes into logs.
                    reason: frame.reason.chars().filter(|c| !c.is_control()).collect(),
                },
                None => CloseReason::ClosedByPeer { code: 1005, reason: String::new() },
            }),
            // The WebSocket library answers pings by itself.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), CloseReason> {
        match Incoming::parse(text) {
            Ok(Incoming::Request { id, method, params, cause }) => {
                self.request(&id, method, params, cause);
                Ok(())
            }
            Ok(Incoming::Notification { method, params }) => self.notification(&method, params, text.len()),
            Ok(Incoming::Response { id, result }) => {
                self.response(id, result);
                Ok(())
            }
            Err(problem) => {
                self.link.shared().with(|state| state.push(Control::Text(rpc::malformed(&problem))));
                Ok(())
            }
        }
    }

    fn request(&mut self, id: &Id, method: Cow<'_, str>, params: Option<&RawValue>, cause: Cause) {
        let shared = self.link.shared().clone();
        if method == LinkPing::SPEC.name {
            let text = rpc::raw(&Done {})
                .map_or_else(|error| rpc::failure(Some(id), &error), |done| rpc::response(id, &done));
            shared.with(|state| state.push(Control::Text(text)));
            return;
        }
        let limits = &shared.limits;
        let tasks = self.tasks.len();
        let refused = shared.with(|state| {
            state.counters.calls_in += 1;
            let refused = if !state.is_open() {
                Some(Error::unavailable("this side is closing the link; call again over a new one"))
            } else if state.answering >= limits.calls_in_flight {
                Some(Error::limited(format!(
                    "{} calls wait for their answer on this link, the most there may be; read answers before calling again",
                    limits.calls_in_flight
                )))
            } else if state.control_load().1 >= limits.control_bytes.saturating_mul(REFUSE_FACTOR) {
                Some(Error::limited("answers wait to be read on this link; read them before calling again"))
            } else if tasks >= limits.calls_in_flight + limits.streams_per_link {
                Some(Error::limited("too much is under way for this link; close streams or call again later"))
            } else {
                state.answering += 1;
                None
            };
            refused.map(|error| error.with_retry_after_ms(RETRY_AFTER_MS))
        });
        if let Some(error) = refused {
            shared.with(|state| state.push(Control::Text(rpc::failure(Some(id), &error))));
            return;
        }
        let method = method.into_owned();
        let request = Request {
            method: method.clone(),
            params: params.map(ToOwned::to_owned),
            cause,
            link: self.link.clone(),
        };
        let called = catch_unwind(AssertUnwindSafe(|| self.handler.call(request)));
        match called {
            Ok(Called::Now(result)) => {
                if let Some(body) = answer(&shared, id, &method, result) {
                    self.tasks.spawn(body);
                }
            }
            Ok(Called::Later(future)) => {
                let id = id.clone();
                self.tasks.spawn(async move {
                    let result = AssertUnwindSafe(future).catch_unwind().await;
                    let result = result.unwrap_or_else(|_| Err(panicked(&method)));
                    // An answer may wait for room as a call does; when there will be none, nobody reads it either.
                    shared.room().await;
                    if let Some(body) = answer(&shared, &id, &method, result) {
                        body.await;
                    }
                });
            }
            Ok(Called::NoSuchMethod) => respond(&shared, rpc::no_such_method(id, &method)),
            Err(_) => respond(&shared, rpc::failure(Some(id), &panicked(&method))),
        }
    }

    fn response(&mut self, id: Option<Id>, result: Result<&RawValue, Error>) {
        let Some(Id::Number(id)) = id else {
            tracing::debug!(link = self.link.id(), "an answer without an id of ours was ignored");
            return;
        };
        let pending = self.link.shared().with(|state| {
            if let Some((_, sent)) = state.ping.take_if(|(ping, _)| *ping == id) {
                measured(state, sent);
                return None;
            }
            state.pending.remove(&id)
        });
        // Without an entry: the caller has dropped the call.
        if let Some(pending) = pending {
            let _ = pending.answer.send(result.map(ToOwned::to_owned));
        }
    }

    fn notification(
        &mut self,
        method: &str,
        params: Option<&RawValue>,
        len: usize,
    ) -> Result<(), CloseReason> {
        let shared = self.link.shared();
        match method {
            notifications::ITEM => {
                let item: Item<'_> = stream_params(method, params)?;
                let cursor: Cursor = item
                    .cursor
                    .parse()
                    .map_err(|error| CloseReason::Protocol { detail: format!("stream.item: {error}") })?;
                let value = item.value.to_owned();
                on_stream(shared, item.stream, |receiving| {
                    receiving.item(cursor, value, len, &shared.limits).map(|()| false)
                });
            }
            notifications::GAP => {
                let gap: StreamGap = stream_params(method, params)?;
                on_stream(shared, gap.stream, |receiving| receiving.gap(gap, &shared.limits));
            }
            notifications::END => {
                let end: StreamEnd = stream_params(method, params)?;
                let stream = end.stream;
                let known = on_stream(shared, stream, |receiving| {
                    receiving.end(end);
                    Ok(false)
                });
                if !known {
                    shared.with(|state| never_opened(state, stream));
                }
            }
            notifications::CREDIT => {
                let credit: StreamCredit = stream_params(method, params)?;
                let waker = shared.with(|state| {
                    let sending = state.sending.get_mut(credit.stream)?;
                    sending.grant(credit.upto);
                    sending.take_waker()
                });
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            notifications::CLOSE => {
                let StreamClose { stream } = stream_params(method, params)?;
                let end = StreamEnd { stream, reason: EndReason::Closed, offset: 0, error: None };
                let waker = shared.with(|state| {
                    if state.sending.get_mut(stream).is_none() {
                        never_opened(state, stream);
                        return None;
                    }
                    state.wake_driver();
                    state.sending.close(stream, rpc::notification(notifications::END, &end))
                });
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            _ => {
                let handler = &self.handler;
                if catch_unwind(AssertUnwindSafe(|| handler.notified(method, params))).is_err() {
                    tracing::error!(link = self.link.id(), "the handler of a notification panicked");
                }
            }
        }
        Ok(())
    }

    fn binary(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        let frame =
            Frame::decode(bytes).map_err(|error| CloseReason::Protocol { detail: error.to_string() })?;
        let shared = self.link.shared();
        on_stream(shared, frame.stream, |receiving| receiving.bytes(frame, &shared.limits).map(|()| false));
        Ok(())
    }
}

#[derive(Deserialize)]
struct Item<'a> {
    stream: u32,
    #[serde(borrow)]
    cursor: Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// A stream notification that cannot be read would leave a silent hole, so it ends the link.
fn stream_params<'a, T: Deserialize<'a>>(
    method: &str,
    params: Option<&'a RawValue>,
) -> Result<T, CloseReason> {
    rpc::params(params)
        .map_err(|error| CloseReason::Protocol { detail: format!("{method}: {}", error.message) })
}

/// Hands something to the reader of a stream; false where there is none (any more), which is no fault.
fn on_stream(shared: &Shared, stream: u32, take: impl FnOnce(&mut Receiving) -> Result<bool, Error>) -> bool {
    let (known, waker) = shared.with(|state| {
        let Some(receiving) = state.receiving.get_mut(&stream) else { return (false, None) };
        let taken = take(receiving);
        let broken = taken.is_err();
        let credit = match taken {
            Ok(credit) => credit,
            Err(error) => {
                receiving.fail(stream, error);
                false
            }
        };
        let waker = receiving.take_waker();
        if credit {
            state.push(Control::Credit(stream));
        }
        if broken {
            state.push(Control::Close(stream));
        }
        (true, waker)
    });
    if let Some(waker) = waker {
        waker.wake();
    }
    known
}

/// The other side gave up a stream before this side has opened it: a later opening finds the number used.
fn never_opened(state: &mut State, stream: u32) {
    let _ = state.numbers.take(stream);
}

fn measured(state: &mut State, sent: Instant) {
    let sample = sent.elapsed();
    state.rtt = Some(state.rtt.map_or(sample, |old| (old * 7 + sample) / 8));
}

fn panicked(method: &str) -> Error {
    tracing::error!(method, "a handler panicked");
    Error::internal(format!(
        "{method} failed by a fault of the program; it may have happened: look before you repeat it"
    ))
}

fn respond(shared: &Shared, text: String) {
    shared.with(|state| state.push(Control::Response { text }));
}

/// Queues an answer and, where it opens a stream, registers that behind it. Returns what then runs the stream.
fn answer(
    shared: &Arc<Shared>,
    id: &Id,
    method: &str,
    result: Result<Answer, Error>,
) -> Option<BoxFuture<'static, ()>> {
    match result {
        Err(error) => {
            respond(shared, rpc::failure(Some(id), &error));
            None
        }
        Ok(Answer::Reply(reply)) => {
            let text = reply_text(shared, id, &reply).unwrap_or_else(|error| rpc::failure(Some(id), &error));
            respond(shared, text);
            None
        }
        Ok(Answer::Send { reply, stream, body }) => {
            let opened =
                open(shared, id, &reply, stream.id, |state| state.sending.open(stream.id, stream.credit));
            opened.then(|| {
                let writer = StreamWriter::new(shared.clone(), stream.id);
                Box::pin(async move { body(writer).await }) as BoxFuture<'static, ()>
            })
        }
        Ok(Answer::Receive { reply, stream, from, body }) => {
            let credit =
                serde_json::from_str::<StreamOpened>(reply.get()).ok().and_then(|opened| opened.credit);
            let opened = open(shared, id, &reply, stream.id, |state| {
                let receiving = Receiving::new(Unit::of(method), from, credit.unwrap_or(from));
                state.receiving.insert(stream.id, receiving);
                if credit.is_none() {
                    state.push(Control::Credit(stream.id));
                }
            });
            opened.then(|| {
                let reader = StreamReader::new(shared.clone(), stream.id);
                Box::pin(async move { body(reader).await }) as BoxFuture<'static, ()>
            })
        }
    }
}

fn reply_text(shared: &Shared, id: &Id, reply: &RawValue) -> Result<String, Error> {
    let text = rpc::response(id, reply);
    let limit = shared.limits.max_message;
    if text.len() > limit {
        return Err(Error::too_large(format!(
            "the answer has {} bytes, more than the {limit} that a message may have; ask for a smaller page",
            text.len()
        )));
    }
    Ok(text)
}

/// Queues the reply to an opening and registers the stream behind it, or answers why it cannot be.
fn open(shared: &Shared, id: &Id, reply: &RawValue, stream: u32, register: impl FnOnce(&mut State)) -> bool {
    let text = reply_text(shared, id, reply);
    shared.with(|state| {
        let checked = text.and_then(|text| {
            if state.closed.is_some() {
                return Err(Error::unavailable("the link has ended; open the stream over a new one"));
            }
            if state.streams() >= shared.limits.streams_per_link {
                return Err(too_many_streams(&shared.limits).with_retry_after_ms(RETRY_AFTER_MS));
            }
            state.numbers.take(stream)?;
            Ok(text)
        });
        match checked {
            Ok(text) => {
                state.push(Control::Response { text });
                register(state);
                true
            }
            Err(error) => {
                state.push(Control::Response { text: rpc::failure(Some(id), &error) });
                false
            }
        }
    })
}

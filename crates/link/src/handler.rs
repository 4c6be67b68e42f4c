//! What a program gives a link so that it can answer the other side.

use datacentered_proto::ops::{StreamOpen, StreamOpened};
use datacentered_proto::rpc::{self, Cause};
use datacentered_proto::{Cursor, Error};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::link::Link;
use crate::receive::StreamReader;
use crate::send::StreamWriter;

/// Answers what the other side calls.
///
/// A panic becomes `internal` for that call only. When the connection ends, futures that still run have
/// [`crate::Limits::drain_timeout_ms`] to finish and are then dropped: what must complete belongs to a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call. Runs in the turn of the connection's reader, so it must not block or compute for long.
    fn call(&self, request: Request) -> Called;

    /// Takes a notification that does not belong to a stream. It must change nothing.
    fn notified(&self, method: &str, params: Option<&RawValue>) {
        let _ = (method, params);
    }
}

/// A call from the other side.
#[derive(Debug)]
pub struct Request {
    /// The operation's name, unchecked.
    pub method: String,
    /// Its parameters, unparsed.
    pub params: Option<Box<RawValue>>,
    /// Where it came from.
    pub cause: Cause,
    /// The link it came over; it can be called back.
    pub link: Link,
}

impl Request {
    /// The parameters as a type; absent ones count as `{}`. The error is `invalid` and names the member.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, Error> {
        rpc::params(self.params.as_deref())
    }
}

/// When a call is answered.
pub enum Called {
    /// At once.
    Now(Result<Answer, Error>),
    /// When the future is ready. It runs in a task that the link's driver owns.
    Later(BoxFuture<'static, Result<Answer, Error>>),
    /// There is no such operation.
    NoSuchMethod,
}

impl Called {
    /// Answers at once with a value.
    pub fn reply<T: Serialize>(value: &T) -> Self {
        Self::Now(Answer::of(value))
    }

    /// Answers later.
    pub fn later<F>(future: F) -> Self
    where
        F: Future<Output = Result<Answer, Error>> + Send + 'static,
    {
        Self::Later(Box::pin(future))
    }
}

impl From<Result<Answer, Error>> for Called {
    fn from(result: Result<Answer, Error>) -> Self {
        Self::Now(result)
    }
}

impl std::fmt::Debug for Called {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now(result) => f.debug_tuple("Now").field(result).finish(),
            Self::Later(_) => f.write_str("Later"),
            Self::NoSuchMethod => f.write_str("NoSuchMethod"),
        }
    }
}

/// Sends on a stream; started after the reply is queued.
pub type SendBody = Box<dyn FnOnce(StreamWriter) -> BoxFuture<'static, ()> + Send>;

/// Receives on a stream; started after the reply is queued.
pub type ReceiveBody = Box<dyn FnOnce(StreamReader) -> BoxFuture<'static, ()> + Send>;

/// The answer to a call.
pub enum Answer {
    /// Just a reply.
    Reply(Box<RawValue>),
    /// A reply, then a stream from this side to the caller.
    Send {
        /// The reply, usually a [`StreamOpened`].
        reply: Box<RawValue>,
        /// The caller's half, as it stands in the parameters.
        stream: StreamOpen,
        /// Sends what there is to send, and ends the stream.
        body: SendBody,
    },
    /// A reply, then a stream from the caller to this side.
    Receive {
        /// The reply, a [`StreamOpened`]. Where it gives no `credit`, the link grants `from` plus the window.
        reply: Box<RawValue>,
        /// The caller's half, as it stands in the parameters.
        stream: StreamOpen,
        /// The offset of the first byte that is wanted.
        from: u64,
        /// Takes what comes.
        body: ReceiveBody,
    },
}

impl Answer {
    /// A reply with a value.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, Error> {
        rpc::raw(value).map(Self::Reply)
    }

    /// A reply that begins at `cursor`, then a stream to the caller.
    pub fn send<F, B>(stream: StreamOpen, cursor: Option<Cursor>, body: B) -> Result<Self, Error>
    where
        B: FnOnce(StreamWriter) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let reply = rpc::raw(&StreamOpened { cursor, credit: None })?;
        Ok(Self::Send { reply, stream, body: Box::new(move |writer| Box::pin(body(writer))) })
    }

    /// A reply that grants the first credit from `from` on, then a stream from the caller.
    pub fn receive<F, B>(link: &Link, stream: StreamOpen, from: u64, body: B) -> Result<Self, Error>
    where
        B: FnOnce(StreamReader) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let reply = rpc::raw(&StreamOpened { cursor: None, credit: Some(link.first_credit(from)) })?;
        Ok(Self::Receive { reply, stream, from, body: Box::new(move |reader| Box::pin(body(reader))) })
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Send { stream, .. } => {
                f.debug_struct("Send").field("stream", stream).finish_non_exhaustive()
            }
            Self::Receive { stream, from, .. } => {
                f.debug_struct("Receive").field("stream", stream).field("from", from).finish_non_exhaustive()
            }
        }
    }
}

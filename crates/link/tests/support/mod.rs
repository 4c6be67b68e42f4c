//! What the tests of links share: handlers from closures, pairs of links, and a peer that speaks raw WebSocket.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::{
    Answer, Called, CloseReason, Handler, Limits, Link, Request, Side, StreamEvent, StreamReader,
    websocket_config,
};
use datacentered_proto::ops::{StreamEnd, StreamOpen};
use datacentered_proto::rpc::{self, Cause};
use datacentered_proto::{Error, frame};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A handler that is a closure.
pub(crate) struct On<F>(pub(crate) F);

impl<F: Fn(Request) -> Called + Send + Sync + 'static> Handler for On<F> {
    fn call(&self, request: Request) -> Called {
        (self.0)(request)
    }
}

/// A handler that answers nothing.
pub(crate) fn nothing() -> Arc<dyn Handler> {
    Arc::new(On(|_| Called::NoSuchMethod))
}

/// A handler that answers with the parameters.
pub(crate) fn echo() -> Arc<dyn Handler> {
    Arc::new(On(|request: Request| Called::Now(Ok(Answer::Reply(request.params.unwrap_or_else(empty))))))
}

/// `{}`.
pub(crate) fn empty() -> Box<RawValue> {
    raw(&json!({}))
}

pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    rpc::raw(value).expect("encodes")
}

/// Parameters that are nothing but a stream.
#[derive(Deserialize)]
pub(crate) struct Streaming {
    pub(crate) stream: StreamOpen,
}

pub(crate) fn streaming(stream: StreamOpen) -> Box<RawValue> {
    raw(&json!({ "stream": stream }))
}

/// Short limits for tests with a paused clock or a small window.
pub(crate) fn small() -> Limits {
    Limits { stream_window: 32 * 1024, stream_lane: 16 * 1024, ..Limits::default() }
}

pub(crate) async fn ws<S>(stream: S, role: Role) -> WebSocketStream<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    WebSocketStream::from_raw_socket(stream, role, Some(websocket_config(&Limits::default()))).await
}

/// Two links with each other; the set runs them.
pub(crate) async fn pair(
    limits: &Limits,
    dialled: Arc<dyn Handler>,
    accepted: Arc<dyn Handler>,
) -> (Link, Link, JoinSet<CloseReason>) {
    let (a, b) = tokio::io::duplex(16 * 1024);
    let (a, b) = (ws(a, Role::Client).await, ws(b, Role::Server).await);
    let (a, drive_a) = Link::start(a, Side::Dialled, dialled, limits.clone());
    let (b, drive_b) = Link::start(b, Side::Accepted, accepted, limits.clone());
    let mut drivers = JoinSet::new();
    drivers.spawn(drive_a);
    drivers.spawn(drive_b);
    (a, b, drivers)
}

/// The other side of a link, speaking raw WebSocket as the side that dialled.
pub(crate) struct Raw {
    pub(crate) ws: WebSocketStream<DuplexStream>,
}

/// A link that was dialled by a raw peer.
pub(crate) async fn raw_peer(
    limits: &Limits,
    handler: Arc<dyn Handler>,
) -> (Raw, Link, JoinSet<CloseReason>) {
    let (a, b) = tokio::io::duplex(16 * 1024);
    let (a, b) = (ws(a, Role::Client).await, ws(b, Role::Server).await);
    let (link, driver) = Link::start(b, Side::Accepted, handler, limits.clone());
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    (Raw { ws: a }, link, drivers)
}

impl Raw {
    pub(crate) async fn send(&mut self, value: &Value) {
        self.send_text(value.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        self.ws.send(Message::text(text.into())).await.expect("sends");
    }

    pub(crate) async fn send_bytes(&mut self, stream: u32, offset: u64, payload: Vec<u8>) {
        let frame = frame::Frame { kind: frame::Kind::File, stream, offset, payload: payload.into() };
        self.ws.send(Message::Binary(frame.encode())).await.expect("sends");
    }

    pub(crate) async fn request(&mut self, id: u64, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    }

    pub(crate) async fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Message {
        self.ws.next().await.expect("a message").expect("readable")
    }

    /// The next text message as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let message = self.message().await;
        serde_json::from_str(message.to_text().expect("text")).expect("json")
    }

    /// The close frame's code, skipping what comes before it.
    pub(crate) async fn closed_with(&mut self) -> u16 {
        loop {
            match self.ws.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    }
}

/// Everything up to and with the end; bytes joined.
pub(crate) async fn drain(mut reader: StreamReader) -> (Vec<u8>, StreamEnd) {
    let mut all = Vec::new();
    loop {
        match reader.next().await.expect("not over before the end") {
            StreamEvent::Bytes { payload, .. } => all.extend_from_slice(&payload),
            StreamEvent::End(end) => {
                assert!(reader.next().await.is_none(), "the end is the last");
                return (all, end);
            }
            StreamEvent::Item { .. } | StreamEvent::Gap(_) => {}
        }
    }
}

pub(crate) async fn call(link: &Link, method: &str, params: Value) -> Result<Value, Error> {
    let reply = link.call_raw(method, &raw(&params), Cause::default()).await?;
    Ok(serde_json::from_str(reply.get()).expect("json"))
}

pub(crate) async fn within<T>(seconds: u64, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), work).await.expect("in time")
}

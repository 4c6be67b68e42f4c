//! What comes over a connection before and while it is a link.

use std::sync::Arc;

use datacentered_link::tls::Fingerprint;
use datacentered_link::upgrade::{self, Origins};
use datacentered_link::url::HubUrl;
use datacentered_link::{
    Answer, Called, Handler, Limits, Link, Proxy, Request, Side, StreamEvent, websocket_config,
};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::StreamOpen;
use datacentered_proto::rpc::{self, Cause};
use futures_util::SinkExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::{block_on, fields, halves, spelled, text};

/// Addresses of hubs and proxies.
pub(crate) fn url(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    spelled::<HubUrl>(text);
    if let Ok(list) = HubUrl::parse_list(text) {
        assert!(!list.is_empty() && list.len() <= datacentered_link::url::MAX_HUBS);
    }
    if let Ok(proxy) = text.parse::<Proxy>() {
        let shown = proxy.to_string();
        assert!(!shown.contains('@'), "credentials are shown: {shown}");
        let again: Proxy = shown.parse().expect("what is shown parses");
        assert_eq!(again.to_string(), shown);
    }
}

/// Fingerprints as text, and certificates as a peer shows them.
pub(crate) fn fingerprint(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        spelled::<Fingerprint>(text);
    }
    let _ = Fingerprint::of_certificate(bytes);
}

/// A request's headers from the input: names and values, zero bytes between them.
pub(crate) fn headers(bytes: &[u8]) -> hyper::HeaderMap {
    let mut map = hyper::HeaderMap::new();
    let mut rest = bytes;
    while !rest.is_empty() && map.len() < 64 {
        let (name, behind) = halves(rest);
        let (value, behind) = halves(behind);
        rest = behind;
        if let (Ok(name), Ok(value)) =
            (hyper::header::HeaderName::from_bytes(name), hyper::header::HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// The request that opens a link.
pub(crate) fn upgrade(bytes: &[u8]) {
    let mut request = hyper::Request::new(());
    *request.headers_mut() = headers(bytes);
    let origins = Origins { allowed: vec!["https://dash.example.net".into()] };
    let allowed = origins.allow(request.headers());
    match upgrade::upgrade(&mut request, &origins, &Limits::default()) {
        Ok((response, _)) => {
            assert!(allowed, "a page from elsewhere was let in");
            assert!(response.headers().contains_key("sec-websocket-accept"));
        }
        Err(refused) => assert!(refused.response().status().is_client_error()),
    }
}

#[derive(Deserialize)]
struct Streaming {
    stream: StreamOpen,
}

/// Answers every call, opens every kind of stream.
struct Willing;

impl Handler for Willing {
    fn call(&self, request: Request) -> Called {
        let stream = request.params::<Streaming>().map(|params| params.stream);
        match (request.method.as_str(), stream) {
            ("test.send", Ok(stream)) => Answer::send(stream, None, |mut writer| async move {
                let _ = writer.send_bytes(Kind::Stdout, 0, vec![1; 100].into()).await;
            })
            .into(),
            ("test.receive", Ok(stream)) => {
                Answer::receive(&request.link, stream, 0, |mut reader| async move {
                    while reader.next().await.is_some() {}
                })
                .into()
            }
            ("test.later", _) => Called::later(async { Answer::of(&json!({})) }),
            (_, Err(error)) => Called::Now(Err(error)),
            _ => Called::NoSuchMethod,
        }
    }
}

/// The other side of a link. The first byte says how the rest is sent: as the bytes of the connection, or as messages
/// (fields: the first byte of each says whether it is text or binary). The link calls and reads a stream meanwhile.
pub(crate) fn websocket(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    block_on(true, async {
        let limits = Limits { stream_window: 32 * 1024, stream_lane: 16 * 1024, ..Limits::default() };
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let socket =
            WebSocketStream::from_raw_socket(near, Role::Server, Some(websocket_config(&limits))).await;
        let (link, driver) = Link::start(socket, Side::Accepted, Arc::new(Willing), limits.clone());
        let driving = tokio::spawn(driver);
        let reading = tokio::spawn(read(link.clone()));
        if mode % 2 == 0 {
            let _ = far.write_all(rest).await;
            drop(far);
        } else {
            let config = Some(websocket_config(&limits));
            let mut peer = WebSocketStream::from_raw_socket(far, Role::Client, config).await;
            for message in fields(rest) {
                let Some((kind, content)) = message.split_first() else { continue };
                let message = match (kind % 2, text(content)) {
                    (0, Some(text)) => Message::text(text),
                    _ => Message::binary(content.to_vec()),
                };
                if peer.send(message).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(peer);
        }
        // The clock is paused: what waits for a timeout gets it at once.
        let reason = driving.await.expect("the link's driver does not panic");
        assert!(link.is_closed(), "{reason}");
        reading.await.expect("the reader sees what it may see");
    });
}

/// Reads a stream of the other side's: nothing twice, nothing left out unsaid.
async fn read(link: Link) {
    let params = |stream| rpc::raw(&json!({ "stream": stream })).expect("encodes");
    let Ok((_, mut reader)) = link.open_raw("run.output", 0, Cause::default(), params).await else { return };
    let mut at = 0;
    while let Some(event) = reader.next().await {
        match event {
            StreamEvent::Bytes { offset, payload, .. } => {
                assert_eq!(offset, at);
                at += payload.len() as u64;
            }
            StreamEvent::Gap(gap) => {
                assert!(gap.from == at && gap.to > gap.from, "{gap:?} at {at}");
                at = gap.to;
            }
            StreamEvent::Item { .. } => panic!("an item on a stream of bytes"),
            StreamEvent::End(_) => return,
        }
    }
}

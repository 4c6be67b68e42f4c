//! Streams over HTTP: server-sent events, and downloads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{Effect, OperationSpec};
use datacentered_proto::ops::run::OutputItem;
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::{ByteString, Cursor, Error};
use futures_util::stream;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Face;
use crate::dispatch::StreamBody;
use crate::metrics::Counted;
use crate::outlet::{HttpItem, Outlet};
use crate::server::Connection;
use crate::sessions::Session;

/// How long a browser waits before it comes back, in milliseconds.
const RETRY_MS: u64 = 1000;

/// What a stream holds for as long as somebody reads it.
struct Reading {
    items: mpsc::Receiver<HttpItem>,
    session: Arc<Session>,
    face: Arc<Face>,
    keepalive: Duration,
    /// The epoch of the cursors of byte streams.
    epoch: String,
    opening: Option<String>,
    ended: bool,
    _connection: Connection,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

/// The response that carries a stream.
///
/// Errors: `limited` when there are too many.
pub(super) fn respond(
    face: &Arc<Face>,
    connection: &Connection,
    session: &Arc<Session>,
    spec: &'static OperationSpec,
    opened: &RawValue,
    effect: Effect,
    run: StreamBody,
) -> Result<Response, Error> {
    let limits = &face.hub.config.limits;
    let permit = face.streams.clone().try_acquire_owned().map_err(|_| {
        Error::limited(format!(
            "all {} streams over HTTP are taken (limits.http_streams)",
            limits.http_streams
        ))
        .with_retry_after_ms(5000)
    })?;
    let opening: StreamOpened = serde_json::from_str(opened.get())
        .map_err(|error| Error::internal(format!("the opening of the stream cannot be read: {error}")))?;
    let (sender, items) = mpsc::channel(limits.http_stream_items);
    face.hub.tasks.spawn("http-stream", run(Outlet::Http(sender)));
    let reading = Reading {
        items,
        session: session.clone(),
        face: face.clone(),
        keepalive: Duration::from_millis(limits.http_keepalive_ms),
        epoch: opening.cursor.as_ref().map(|cursor| cursor.epoch.clone()).unwrap_or_default(),
        opening: Some(opening_event(opening.cursor.as_ref(), opened)),
        ended: false,
        _connection: connection.clone(),
        _permit: permit,
        _counted: face.hub.metrics.http_stream(),
    };
    if effect == Effect::Bytes && spec.item.is_none() {
        return Ok(download(reading, spec));
    }
    let events = stream::unfold(reading, |mut reading| async move {
        let event = reading.next_event().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), reading))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Reverse proxies would keep events back otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The first event names the place where the stream begins: who loses the connection before the first item comes back to it.
fn opening_event(cursor: Option<&Cursor>, opened: &RawValue) -> String {
    let id = cursor.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    format!("retry: {RETRY_MS}\nevent: opened\n{id}data: {}\n\n", one_line(opened.get()))
}

/// JSON may hold line breaks between its members, never inside a text.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

impl Reading {
    /// The next piece of the response; none at its end.
    async fn next_event(&mut self) -> Option<String> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        if self.ended {
            return None;
        }
        match tokio::time::timeout(self.keepalive, self.items.recv()).await {
            Err(_quiet) => Some(": still here\n\n".into()),
            Ok(Some(item)) => {
                self.ended = matches!(item, HttpItem::End { .. });
                Some(event(&self.epoch, item))
            }
            Ok(None) => {
                self.ended = true;
                // A hub that goes down just closes: the reader comes back and goes on. Who may not read any more is told.
                let revoked = self.session.cancel.is_cancelled() && !self.face.hub.stop.is_cancelled();
                revoked.then(|| {
                    event(&self.epoch, HttpItem::End { reason: EndReason::Revoked, offset: 0, error: None })
                })
            }
        }
    }
}

/// One item as an event.
fn event(epoch: &str, item: HttpItem) -> String {
    match item {
        HttpItem::Item { cursor, json } => format!("id: {cursor}\ndata: {}\n\n", one_line(&json)),
        HttpItem::Bytes { kind, offset, bytes } => {
            let behind = Cursor::new(epoch, offset.saturating_add(bytes.len() as u64));
            let item = OutputItem {
                stream: stream_name(kind).into(),
                offset,
                data: ByteString::from(bytes.to_vec()),
            };
            let data = serde_json::to_string(&item).unwrap_or_else(|_| "{}".into());
            format!("id: {behind}\ndata: {data}\n\n")
        }
        HttpItem::Gap { from, to, reason } => {
            format!("event: gap\ndata: {}\n\n", json!({"from": from, "to": to, "reason": reason}))
        }
        HttpItem::End { reason, offset, error } => {
            let mut data = json!({"reason": reason, "offset": offset});
            if let Some(error) = error {
                data["error"] = json!(error);
            }
            format!("event: end\ndata: {data}\n\n")
        }
    }
}

fn stream_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Stdout => "stdout",
        Kind::Stderr => "stderr",
        Kind::Stdin => "stdin",
        Kind::Terminal => "terminal",
        Kind::File => "file",
        Kind::Mark => "mark",
    }
}

/// A stream of bytes that is one file. Where it does not come to its good end, the response breaks off, so that nobody
/// takes a part for the whole.
fn download(reading: Reading, spec: &OperationSpec) -> Response {
    let pieces = stream::try_unfold(reading, |mut reading| async move {
        loop {
            if reading.ended {
                return Ok(None);
            }
            match reading.items.recv().await {
                Some(HttpItem::Bytes { bytes, .. }) => return Ok(Some((bytes, reading))),
                Some(HttpItem::End { reason: EndReason::Done, .. }) => reading.ended = true,
                Some(HttpItem::Item { .. }) => {}
                Some(HttpItem::Gap { .. } | HttpItem::End { .. }) | None => {
                    return Err(std::io::Error::other("the stream did not come to its end"));
                }
            }
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let name = format!("attachment; filename=\"datacentered-{}\"", spec.name.replace('.', "-"));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ops::GapReason;

    #[test]
    fn events_have_the_form_of_the_standard() {
        let item = HttpItem::Item { cursor: Cursor::new("e", 7), json: "{\"a\":\n1}".into() };
        assert_eq!(event("x", item), "id: e-7\ndata: {\"a\": 1}\n\n");
        let bytes = HttpItem::Bytes { kind: Kind::Stderr, offset: 5, bytes: Bytes::from_static(b"a\nb") };
        let text = event("ep", bytes);
        assert!(text.starts_with("id: ep-8\ndata: {") && text.ends_with("}\n\n"), "{text}");
        let data: serde_json::Value = serde_json::from_str(
            text.lines().nth(1).and_then(|line| line.strip_prefix("data: ")).expect("data"),
        )
        .expect("JSON");
        assert_eq!((&data["stream"], &data["offset"]), (&json!("stderr"), &json!(5)));
        let gap = event("e", HttpItem::Gap { from: 1, to: 4, reason: GapReason::Lost });
        assert_eq!(gap, "event: gap\ndata: {\"from\":1,\"to\":4,\"reason\":\"lost\"}\n\n");
        let end = event("e", HttpItem::End { reason: EndReason::Done, offset: 9, error: None });
        assert_eq!(end, "event: end\ndata: {\"reason\":\"done\",\"offset\":9}\n\n");
    }

    #[test]
    fn the_opening_names_its_place() {
        let opened = serde_json::value::to_raw_value(&json!({"cursor": "e-3"})).expect("raw");
        let text = opening_event(Some(&Cursor::new("e", 3)), &opened);
        assert_eq!(text, "retry: 1000\nevent: opened\nid: e-3\ndata: {\"cursor\":\"e-3\"}\n\n");
    }
}

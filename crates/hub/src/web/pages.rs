//! The landing page: how to use a hub that has no web application, and for who is logged in how it is.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use datacentered_proto::Operation as _;
use datacentered_proto::operations::HubStatus;
use datacentered_proto::ops::session::Subject;
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, StatusCode};

use super::Face;
use super::credentials::identify;
use super::html::{escape, page};
use crate::access::{authorize, is_set_up};
use crate::server::Connection;
use crate::sessions::Who;

/// Longest host name shown.
const MAX_HOST: usize = 260;

/// `GET /`.
pub(super) async fn landing(
    State(face): State<Arc<Face>>,
    Extension(connection): Extension<Connection>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    // A cookie that has ended makes nobody of its owner, here: this is where logging in again is explained.
    let who = identify(&face, &connection, &method, &headers).await.unwrap_or_else(|_| Who::anonymous());
    let address = escape(&address(&headers));
    let mut content = String::new();
    if !face.hub.store.view(is_set_up) {
        content.push_str(
            "<p>This hub has no account yet. <a href=\"/setup\">Make the first one</a> with the secret that the hub \
             printed when it started.</p>\n",
        );
    }
    if authorize(&face.hub, &who, HubStatus::SPEC).is_ok() {
        content.push_str(&numbers(&face, &who));
    }
    // Writing to a String cannot fail.
    let _ = write!(
        content,
        "<p class=\"soft\">One hub, one agent per host, any client. This address carries the WebSocket, the HTTP API and \
         the agents' links.</p>\n\
         <h2>From the command line</h2>\n<pre>datacentered login {address}\ndatacentered host list\ndatacentered run --on all -- uptime</pre>\n\
         <h2>Add a host</h2>\n<pre># on a machine that is logged in\ndatacentered token create --join\n\n# on the host\n\
         datacentered agent join {address} --token @FILE</pre>\n\
         <h2>From a program</h2>\n<pre>curl -H \"Authorization: Bearer $TOKEN\" -H \"Content-Type: application/json\" \\\n  \
         -d '{{}}' {address}/api/v1/host.list</pre>\n\
         <p class=\"soft\">Every operation is described in <a href=\"/api/openapi.json\">/api/openapi.json</a>.</p>"
    );
    page(StatusCode::OK, "Hub", &content)
}

fn numbers(face: &Face, who: &Who) -> String {
    let (hosts, online, runs) = face.hub.store.view(|view| {
        let online = view.presence.values().filter(|presence| presence.online).count();
        (view.hosts.len(), online, view.active_runs.len())
    });
    let name = match &who.subject {
        Subject::User { name, role } => format!("{} ({role})", escape(name)),
        _ => "the hub's own user".to_owned(),
    };
    format!(
        "<p>Logged in as {name}.</p>\n<dl><div><dt>Hosts</dt><dd>{hosts}</dd></div><div><dt>Online</dt><dd>{online}</dd>\
         </div><div><dt>Active runs</dt><dd>{runs}</dd></div></dl>\n"
    )
}

/// The hub's address as the browser knows it.
pub(super) fn address(headers: &HeaderMap) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match host.filter(|host| !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(plain)) {
        Some(host) => format!("https://{host}"),
        None => "https://HUB:7272".into(),
    }
}

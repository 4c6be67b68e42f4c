//! Operations over HTTP.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use datacentered_proto::operations::{Effect, OperationSpec, find};
use datacentered_proto::ops::session::LoginReply;
use datacentered_proto::rpc::{Cause, unknown_operation};
use datacentered_proto::{Cursor, Error, LINK_PATH, Permission, Served as ServedBy};
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, SET_COOKIE};
use serde_json::Value;
use serde_json::value::RawValue;

use super::credentials::{identify, login_cookie, logout_cookie};
use super::problem::Problem;
use super::{Face, body, sse};
use crate::dispatch::{self, Served};
use crate::server::Connection;
use crate::sessions::Session;

/// `POST /api/v1/NOUN.VERB`.
pub(super) async fn post(
    State(face): State<Arc<Face>>,
    Extension(connection): Extension<Connection>,
    Extension(cause): Extension<Cause>,
    Path(operation): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let spec = over_http(&operation)?;
    let (parts, body) = request.into_parts();
    let session = open_session(&face, &connection, &parts.method, &parts.headers).await?;
    let body = body::read(body, &face.hub.config.limits).await?;
    let params = body::parameters(&parts.headers, &body)?;
    let params = resumed(params, &parts.headers)?;
    answer(&face, &connection, &session, spec, params, cause, &parts.headers).await
}

/// `GET /api/v1/NOUN.VERB?params=JSON`: streams as server-sent events, for `EventSource`.
pub(super) async fn get(
    State(face): State<Arc<Face>>,
    Extension(connection): Extension<Connection>,
    Extension(cause): Extension<Cause>,
    Path(operation): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let spec = over_http(&operation)?;
    if !(spec.effect.is_stream() && spec.item.is_some()) {
        return Err(Error::invalid(format!("'{operation}' is called with POST; GET is for streams")).into());
    }
    let (parts, _) = request.into_parts();
    let mut params = None;
    for (name, value) in body::pairs(parts.uri.query().unwrap_or_default().as_bytes())? {
        if name != "params" {
            return Err(Error::invalid(
                "the only member of the query is 'params', the parameters as JSON; tokens go into the header \
                 'Authorization: Bearer dc_...', never into an address",
            )
            .into());
        }
        params = Some(body::object(&value)?);
    }
    let session = open_session(&face, &connection, &parts.method, &parts.headers).await?;
    let params = resumed(params, &parts.headers)?;
    answer(&face, &connection, &session, spec, params, cause, &parts.headers).await
}

/// The operation, where HTTP can carry it.
fn over_http(operation: &str) -> Result<&'static OperationSpec, Error> {
    let spec = find(operation).filter(|spec| spec.served == ServedBy::Hub);
    let spec = spec.ok_or_else(|| unknown_operation(operation))?;
    let needs_link = spec.effect == Effect::Upload
        || spec.name == "session.hello"
        || matches!(spec.permission, Permission::Agent | Permission::Enrol | Permission::Hub);
    if needs_link {
        return Err(Error::invalid(format!("'{operation}' needs a link: open a WebSocket at {LINK_PATH}")));
    }
    Ok(spec)
}

pub(super) async fn open_session(
    face: &Arc<Face>,
    connection: &Connection,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Arc<Session>, Error> {
    let who = identify(face, connection, method, headers).await?;
    Session::open(&face.hub, connection.peer(), None, who)
}

/// A browser that comes back says where it was: its `Last-Event-ID` is the cursor.
pub(super) fn resumed(
    params: Option<Box<RawValue>>,
    headers: &HeaderMap,
) -> Result<Option<Box<RawValue>>, Error> {
    let Some(last) = headers.get("last-event-id") else { return Ok(params) };
    let cursor: Option<Cursor> = last.to_str().ok().and_then(|text| text.parse().ok());
    let cursor =
        cursor.ok_or_else(|| Error::invalid("the header Last-Event-ID is not a cursor of this stream"))?;
    let text = params.as_ref().map_or("{}", |params| params.get());
    let wrong =
        |error: serde_json::Error| Error::invalid(format!("the parameters are not a JSON object: {error}"));
    let mut members: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(wrong)?;
    members.insert("cursor".into(), Value::String(cursor.to_string()));
    serde_json::value::to_raw_value(&members).map(Some).map_err(wrong)
}

async fn answer(
    face: &Arc<Face>,
    connection: &Connection,
    session: &Arc<Session>,
    spec: &'static OperationSpec,
    params: Option<Box<RawValue>>,
    cause: Cause,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    match call(face, session, spec, params, cause).await? {
        Served::Reply(reply) => Ok(replied(face, spec, &reply, headers)),
        Served::Stream { opened, effect, run, .. } => {
            sse::respond(face, connection, session, spec, &opened, effect, run).map_err(Problem)
        }
        Served::Upload { .. } => {
            Err(Error::invalid(format!("'{}' needs a link: open a WebSocket at {LINK_PATH}", spec.name))
                .into())
        }
    }
}

/// Calls the operation. A change goes on to its end also where the caller does not wait for it any more.
pub(super) async fn call(
    face: &Arc<Face>,
    session: &Arc<Session>,
    spec: &'static OperationSpec,
    params: Option<Box<RawValue>>,
    cause: Cause,
) -> Result<Served, Error> {
    let hub = face.hub.clone();
    if spec.effect != Effect::Change {
        return dispatch::call(&hub, session, spec.name, params.as_deref(), cause, None).await;
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let session = session.clone();
    face.hub.tasks.spawn("http-change", async move {
        let result = dispatch::call(&hub, &session, spec.name, params.as_deref(), cause, None).await;
        // The caller may have gone; the change has happened all the same.
        let _ = sender.send(result);
    });
    receiver
        .await
        .unwrap_or_else(|_| Err(Error::indeterminate("the hub is going down; repeat with the same key")))
}

fn replied(face: &Face, spec: &OperationSpec, reply: &RawValue, headers: &HeaderMap) -> Response {
    let mut response = Body::from(reply.get().to_owned()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let cookie = match spec.name {
        "session.login" | "session.setup" => serde_json::from_str::<LoginReply>(reply.get())
            .ok()
            .and_then(|login| cookie_of(face, &login, headers)),
        "session.logout" => logout_cookie(headers),
        _ => None,
    };
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// The cookie of a login, for browsers.
pub(super) fn cookie_of(face: &Face, login: &LoginReply, headers: &HeaderMap) -> Option<HeaderValue> {
    let left = login.expires.as_millis().saturating_sub(face.hub.clock.wall().as_millis());
    login_cookie(headers, &login.token, left / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::Code;

    #[test]
    fn what_http_carries() {
        for name in ["host.list", "run.output", "hub.backup", "session.login", "operation.list"] {
            assert!(over_http(name).is_ok(), "{name}");
        }
        for name in ["session.hello", "host.enrol", "run.input", "job.report", "host.report"] {
            assert_eq!(over_http(name).expect_err(name).code, Code::Invalid);
        }
        for name in ["job.offer", "link.ping", "no.such", "../etc"] {
            assert_eq!(over_http(name).expect_err(name).code, Code::NotFound);
        }
    }

    #[test]
    fn the_last_event_is_the_cursor() {
        let mut headers = HeaderMap::new();
        assert!(resumed(None, &headers).expect("nothing").is_none());
        headers.insert("last-event-id", HeaderValue::from_static("abc-7"));
        let params = body::object(r#"{"kinds":["host."],"cursor":"abc-1"}"#).expect("object");
        let resumed_params = resumed(Some(params), &headers).expect("resumes").expect("some");
        let value: Value = serde_json::from_str(resumed_params.get()).expect("JSON");
        assert_eq!(value, serde_json::json!({"kinds": ["host."], "cursor": "abc-7"}));
        assert_eq!(resumed(None, &headers).expect("resumes").expect("some").get(), r#"{"cursor":"abc-7"}"#);
        headers.insert("last-event-id", HeaderValue::from_static("not a cursor"));
        assert!(resumed(None, &headers).is_err());
    }
}

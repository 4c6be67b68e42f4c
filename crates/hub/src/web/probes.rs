//! What machines ask for: health, readiness, metrics, the description of the API.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use datacentered_proto::operations::HubStatus;
use datacentered_proto::{Error, Operation as _, openapi::openapi_document};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use super::Face;
use super::credentials::identify;
use super::problem::Problem;
use crate::access::authorize;
use crate::server::Connection;

fn text(status: StatusCode, text: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// The process answers.
pub(super) async fn healthz() -> Response {
    text(StatusCode::OK, "ok\n")
}

/// The hub takes work.
pub(super) async fn readyz(State(face): State<Arc<Face>>) -> Response {
    if face.hub.stop.is_cancelled() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "going down\n");
    }
    if face.hub.engine.failed().is_cancelled() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the store has failed\n");
    }
    text(StatusCode::OK, "ready\n")
}

/// Prometheus' text format, for whoever may view: a token of role viewer or above (`authorization` in Prometheus' scrape
/// settings), or the local socket. Being on a loopback address proves nothing: a reverse proxy is there too.
pub(super) async fn metrics(
    State(face): State<Arc<Face>>,
    Extension(connection): Extension<Connection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let who = identify(&face, &connection, &method, &headers).await?;
    // The numbers are those of the status, and who may see the one may see the other.
    if authorize(&face.hub, &who, HubStatus::SPEC).is_err() {
        return Err(Error::unauthenticated(
            "metrics need a token of role viewer or above: 'datacentered token create --role viewer', sent as \
             'Authorization: Bearer dc_...'",
        )
        .into());
    }
    let rendered = face.hub.metrics.render(&face.hub);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], rendered).into_response())
}

/// The OpenAPI document. It is the same for everybody and holds nothing secret.
pub(super) async fn openapi(State(face): State<Arc<Face>>) -> Response {
    let document = face.openapi.get_or_init(|| Bytes::from(openapi_document().to_string())).clone();
    let mut response = Response::new(Body::from(document));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    response
}

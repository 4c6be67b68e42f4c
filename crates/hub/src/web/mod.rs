//! The HTTP face: every operation as `POST /api/v1/NOUN.VERB`, streams as server-sent events, the WebSocket, the pages of a
//! hub without its web application, and what machines ask for (`/metrics`, `/healthz`, `/readyz`, `/api/openapi.json`).
//!
//! Security invariants, each with a test: tokens are never in addresses; a cookie counts only with the page's own origin; no
//! page runs a script; nothing is cached by others.

mod body;
mod call;
mod credentials;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod headers;
mod html;
mod link;
mod pages;
mod probes;
mod problem;
mod setup;
mod sse;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use datacentered_link::upgrade::Origins;
use datacentered_proto::{Error, LINK_PATH};
use tokio::sync::Semaphore;

use crate::hub::Hub;
use problem::Problem;

/// What the handlers of the HTTP face share.
#[derive(Debug)]
pub(crate) struct Face {
    hub: Arc<Hub>,
    /// Web pages that may use cookies and open links, beside the hub's own.
    origins: Origins,
    /// Room for streams.
    streams: Arc<Semaphore>,
    openapi: OnceLock<Bytes>,
}

impl Face {
    /// The face of a hub.
    pub(crate) fn new(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            hub: hub.clone(),
            origins: Origins { allowed: hub.config.origins.clone() },
            streams: Arc::new(Semaphore::new(hub.config.limits.http_streams)),
            openapi: OnceLock::new(),
        })
    }
}

/// Everything, for people and programs.
pub(crate) fn router(face: &Arc<Face>) -> Router {
    Router::new()
        .route("/", get(pages::landing))
        .route("/setup", get(setup::form).post(setup::submit))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .route("/api/openapi.json", get(probes::openapi))
        .route(LINK_PATH, get(link::open))
        .route("/api/v1/{operation}", post(call::post).get(call::get))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(face.clone(), headers::around))
        .with_state(face.clone())
}

/// For agents there is the link, and nothing else.
pub(crate) fn agent_router(face: &Arc<Face>) -> Router {
    Router::new()
        .route(LINK_PATH, get(link::open))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(face.clone(), headers::around))
        .with_state(face.clone())
}

async fn not_found() -> Problem {
    Problem(Error::not_found(
        "there is nothing at this address; operations are at /api/v1/NOUN.VERB, see /api/openapi.json",
    ))
}

async fn wrong_method() -> Response {
    problem::wrong_method("this address takes another method; see /api/openapi.json", None)
}

#[cfg(test)]
mod tests;

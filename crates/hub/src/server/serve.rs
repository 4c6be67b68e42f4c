//! HTTP/1.1 on one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Connection;
use crate::hub::Hub;

/// Most header lines of a request.
const MAX_HEADERS: usize = 64;

/// How long a request under way may go on after the hub was told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Answers requests until the connection ends, becomes a link, or the hub stops.
pub(super) async fn serve<S>(hub: &Arc<Hub>, router: Router, connection: Connection, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &hub.config.limits;
    let peer = connection.peer();
    let asked = Arc::new(AtomicBool::new(false));
    let asking = asked.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        asking.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(connection.clone());
        TowerToHyperService::new(router.clone()).call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_buf_size(limits.max_header)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = hub.stop.cancelled() => {
            // The library would wait for the first request of a connection that has brought none yet.
            if !asked.load(Ordering::Relaxed) {
                return;
            }
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(STOP_PATIENCE, served).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

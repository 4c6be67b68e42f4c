//! A link's life on the hub: from the upgraded WebSocket to its last frame.

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::{CloseReason, Link, Side};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use super::Session;
use crate::dispatch::LinkHandler;
use crate::hosts;
use crate::hub::Hub;

/// How long a closing link may take to say so.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Runs a link until it ends, its session's credential ends, or the hub goes down.
pub async fn serve_link<S>(hub: Arc<Hub>, session: Arc<Session>, socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handler = Arc::new(LinkHandler::new(hub.clone(), session.clone()));
    let (link, driver) = Link::start(socket, Side::Accepted, handler.clone(), hub.config.limits.link.clone());
    let mut driver = std::pin::pin!(driver);
    hub.metrics.link_opened();
    let reason = tokio::select! {
        reason = &mut driver => reason,
        () = session.cancel.cancelled() => {
            if hub.stop.is_cancelled() {
                hosts::say_goodbye(&hub, &session, &link).await;
                link.close("the hub is going down");
            } else {
                link.close("the credential of this session has ended");
            }
            match tokio::time::timeout(CLOSE_PATIENCE, &mut driver).await {
                Ok(reason) => reason,
                Err(_) => CloseReason::Dropped,
            }
        }
    };
    hub.metrics.link_closed();
    tracing::debug!(session = %session.id, who = session.who().name(), %reason, "link ended");
    if let Some(host) = session.who().host() {
        hosts::detach(&hub, host, &link, &reason).await;
    }
}

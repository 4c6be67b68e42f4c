//! Keeps the one link: runs it, and makes it again when it is lost.

use std::time::Duration;

use datacentered_link::backoff::Backoff;
use datacentered_link::{Driver, Link};
use datacentered_proto::ops::session::HelloReply;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::config::ClientConfig;
use crate::connect;
use crate::error::Error;
use crate::retry::policy;

/// How the link stands.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// It is up.
    Up {
        /// The link.
        link: Link,
        /// What the hub said at hello.
        hello: HelloReply,
    },
    /// It was lost and is being made again.
    Down {
        /// Why it was lost, or why the latest attempt failed.
        reason: String,
    },
    /// It will not come back.
    Ended(Error),
}

/// A link that has been greeted.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) link: Link,
    pub(crate) driver: Driver,
    pub(crate) hello: HelloReply,
    /// Which of the configured hubs it is.
    pub(crate) index: usize,
}

/// Runs until the client is closed or the link is given up.
pub(crate) async fn run(
    config: ClientConfig,
    mut connected: Connected,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(policy());
    let ended = loop {
        let Connected { link, mut driver, hello, index } = connected;
        backoff.connected(config.clock.boot());
        backoff.set_slot(Duration::from_millis(hello.reconnect_slot_ms));
        state.send_replace(State::Up { link: link.clone(), hello });
        let reason = tokio::select! {
            reason = &mut driver => reason,
            () = stop.cancelled() => {
                link.close("done");
                driver.await;
                break Error::Closed;
            }
        };
        info!(%reason, "the link to the hub was lost");
        state.send_replace(State::Down { reason: reason.to_string() });
        tokio::select! {
            again = reconnect(&config, &mut backoff, index, &state) => match again {
                Ok(again) => connected = again,
                Err(error) => break error,
            },
            () = stop.cancelled() => break Error::Closed,
        }
    };
    debug!(reason = %ended, "the client has ended");
    state.send_replace(State::Ended(ended));
}

async fn reconnect(
    config: &ClientConfig,
    backoff: &mut Backoff,
    first: usize,
    state: &watch::Sender<State>,
) -> Result<Connected, Error> {
    let lost = config.clock.boot();
    let mut last = "not tried yet".to_owned();
    // Another hub of the list may be up while the last one is being restarted.
    let mut index = first;
    loop {
        let now = config.clock.boot();
        let tried = now.saturating_sub(lost);
        if tried >= config.reconnect_timeout {
            return Err(Error::GaveUp { after: config.reconnect_timeout, last });
        }
        let wait = backoff.next(now, config.clock.random());
        tokio::time::sleep(wait.min(config.reconnect_timeout.saturating_sub(tried))).await;
        match connect::connect_one(config, index).await {
            Ok(connected) => return Ok(connected),
            Err(connect::Failed::For(error)) => return Err(error),
            Err(connect::Failed::Now { reason, retry_after }) => {
                debug!(%reason, "the hub cannot be reached yet");
                if let Some(after) = retry_after {
                    backoff.set_retry_after(after);
                }
                state.send_replace(State::Down { reason: reason.clone() });
                last = reason;
                index = (index + 1) % config.urls.len().max(1);
            }
        }
    }
}

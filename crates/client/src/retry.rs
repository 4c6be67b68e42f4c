//! How often and for how long one thing is tried again.

use std::time::Duration;

use datacentered_link::backoff::{Backoff, Policy};
use datacentered_link::clock::Clock;
use datacentered_proto::{Code, Error};

/// Waits between attempts of a client: short, because a person waits and there are few clients.
pub(crate) fn policy() -> Policy {
    Policy { base_ms: 100, cap_ms: 3_000, stable_ms: 10_000 }
}

/// The attempts at one call or one stream.
#[derive(Debug)]
pub(crate) struct Retry {
    backoff: Backoff,
    clock: Clock,
    patience: Duration,
    /// Since when it has not worked.
    failing_since: Option<Duration>,
    /// Faults of the hub's that ended a stream, one behind the other.
    faults: u32,
}

/// Faults of the hub's in a row after which a stream is given up. One of them may just be a hub that goes down.
const MOST_FAULTS: u32 = 5;

impl Retry {
    pub(crate) fn new(clock: Clock, patience: Duration) -> Self {
        Self { backoff: Backoff::new(policy()), clock, patience, failing_since: None, faults: 0 }
    }

    /// It has worked: the next failure is a first one.
    pub(crate) fn worked(&mut self) {
        self.faults = 0;
        if self.failing_since.take().is_some() {
            self.backoff = Backoff::new(policy());
        }
    }

    /// Waits before the next attempt where `error` may pass, or hands the error back.
    pub(crate) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        if !may_pass(error.code) {
            return Err(error);
        }
        let now = self.clock.boot();
        let since = *self.failing_since.get_or_insert(now);
        if now.saturating_sub(since) > self.patience {
            return Err(error);
        }
        if let Some(ms) = error.retry_after_ms {
            self.backoff.set_retry_after(Duration::from_millis(ms));
        }
        tokio::time::sleep(self.backoff.next(now, self.clock.random())).await;
        Ok(())
    }
}

impl Retry {
    /// As [`Self::wait`], for the error that ended a stream: one that fell behind, or whose sender was stopped, goes on from
    /// where it stood.
    pub(crate) async fn wait_behind_end(&mut self, mut error: Error) -> Result<(), Error> {
        if error.code == Code::Internal {
            self.faults += 1;
        }
        if error.code == Code::Limited || (error.code == Code::Internal && self.faults <= MOST_FAULTS) {
            error.code = Code::Unavailable;
        }
        self.wait(error).await
    }
}

impl Retry {
    /// As [`Self::wait_behind_end`], for what a host is asked for: waits for one that has no room at the moment and, where
    /// something has begun, for one that is away.
    pub(crate) async fn wait_for_host(&mut self, error: Error, begun: bool) -> Result<(), Error> {
        let mut passing = error.clone();
        if error.code == Code::Internal {
            self.faults += 1;
        }
        let passes = match error.code {
            Code::Offline => begun,
            Code::Limited => error.retry_after_ms.is_some(),
            Code::Internal => begun && self.faults <= MOST_FAULTS,
            _ => false,
        };
        if passes {
            passing.code = Code::Unavailable;
        }
        self.wait(passing).await.map_err(|_| error)
    }
}

/// Whether the same call may do better later: it did not happen, or it may have and its key tells the hub so.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Indeterminate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn gives_up_when_patience_ends() {
        let clock = Clock::following_tokio(Timestamp::EPOCH, 1);
        let mut retry = Retry::new(clock.clone(), Duration::from_secs(20));
        let mut attempts = 0;
        while retry.wait(Error::unavailable("down")).await.is_ok() {
            attempts += 1;
        }
        assert!(attempts > 5, "{attempts}");
        assert!(clock.boot() >= Duration::from_secs(20) && clock.boot() < Duration::from_secs(25));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_is_not_tried_again() {
        let mut retry = Retry::new(Clock::following_tokio(Timestamp::EPOCH, 1), Duration::from_secs(20));
        for error in [Error::forbidden(""), Error::conflict(""), Error::limited(""), Error::internal("")] {
            assert_eq!(retry.wait(error.clone()).await, Err(error));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_fails_a_stream_again_and_again_is_believed() {
        let mut retry = Retry::new(Clock::following_tokio(Timestamp::EPOCH, 1), Duration::from_mins(10));
        let fault = Error::internal("the sender stopped");
        for _ in 0..MOST_FAULTS {
            retry.wait_behind_end(fault.clone()).await.expect("tried again");
        }
        assert_eq!(retry.wait_behind_end(fault.clone()).await, Err(fault.clone()));
        retry.worked();
        retry.wait_behind_end(fault).await.expect("tried again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_waited_for_once_something_has_begun() {
        let mut retry = Retry::new(Clock::following_tokio(Timestamp::EPOCH, 1), Duration::from_secs(20));
        let away = Error::offline("away");
        assert_eq!(retry.wait_for_host(away.clone(), false).await, Err(away.clone()));
        retry.wait_for_host(away, true).await.expect("waits");
        let full = Error::limited("the file system is full");
        assert_eq!(retry.wait_for_host(full.clone(), true).await, Err(full.clone()));
        retry.wait_for_host(full.with_retry_after_ms(10), true).await.expect("waits");
    }

    #[tokio::test(start_paused = true)]
    async fn success_renews_patience() {
        let clock = Clock::following_tokio(Timestamp::EPOCH, 1);
        let mut retry = Retry::new(clock.clone(), Duration::from_secs(20));
        for _ in 0..100 {
            retry.wait(Error::indeterminate("lost")).await.expect("patience");
            retry.worked();
            clock.advance(Duration::from_secs(15));
        }
    }
}

//! Background work with a name: tracked, its panics told, drained at shutdown.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns every task that the hub starts.
#[derive(Clone, Debug)]
pub struct Supervisor {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Supervisor {
    /// A supervisor whose tasks are told to stop by `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop }
    }

    /// Cancelled when the hub goes down.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task. A panic in it is logged and ends only that task.
    pub fn spawn<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task panicked; please report this");
            }
        });
    }

    /// Starts a task without which the hub cannot go on: when it ends before the hub stops, the hub stops.
    pub fn spawn_vital<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let panicked = AssertUnwindSafe(work).catch_unwind().await.is_err();
            if !stop.is_cancelled() {
                tracing::error!(task = name, panicked, "a task that the hub needs has ended; stopping");
                stop.cancel();
            }
        });
    }

    /// Waits until every task has ended, for at most `patience`. Says whether all did.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

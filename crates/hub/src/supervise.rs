//! Background work with a name: tracked, its panics told, drained at shutdown.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns every task that the hub starts.
#[derive(Clone, Debug)]
pub struct Supervisor {
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Running,
}

/// How many tasks run, by name.
#[derive(Clone, Debug, Default)]
struct Running(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Running {
    fn enter(&self, name: &'static str) -> Entered {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Entered(self.clone(), name)
    }
}

/// Counts a task for as long as it lives.
struct Entered(Running, &'static str);

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.1) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.1);
            }
        }
    }
}

impl Supervisor {
    /// A supervisor whose tasks are told to stop by `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop, running: Running::default() }
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
        let entered = self.running.enter(name);
        self.tracker.spawn(async move {
            let _entered = entered;
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
        let entered = self.running.enter(name);
        self.tracker.spawn(async move {
            let _entered = entered;
            let panicked = AssertUnwindSafe(work).catch_unwind().await.is_err();
            if !stop.is_cancelled() {
                tracing::error!(task = name, panicked, "a task that the hub needs has ended; stopping");
                stop.cancel();
            }
        });
    }

    /// Waits until every task has ended, for at most `patience`. Those that did not are named in the log.
    pub async fn drain(&self, patience: Duration) {
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_err() {
            let running = self.running.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            tracing::warn!(?running, "some work did not end in time");
        }
    }
}

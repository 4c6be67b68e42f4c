//! The hub's own state: typed records in the `control` bucket, a view of them in memory, and the one way to change them.
//!
//! A [`Change`] is a batch: the records, the events and audit entries that follow from it (as outbox keys), and the
//! first reply for repeats. It commits atomically; the call returns when this hub's view holds it.

mod change;
pub mod records;
mod view;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use datacentered_engine::kv::{Durability, WatchFrom};
use datacentered_engine::{Bucket, Engine, Prefix};
use datacentered_proto::Error;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use change::Change;
pub use view::{Changed, RunJobs, Versioned, View};

/// The bucket that holds runs, jobs, hosts, accounts and outboxes.
pub const CONTROL_BUCKET: &str = "control";

/// The log of events.
pub const EVENT_LOG: &str = "events";

/// The log of the audit.
pub const AUDIT_LOG: &str = "audit";

/// Changes that a watcher may fall behind before it looks at everything again.
const CHANGED_BACKLOG: usize = 4096;

/// How long a commit waits for the hub's own view.
const VIEW_DEADLINE: Duration = Duration::from_secs(10);

/// What changed, and the revision of the change. They come in the order of their revisions: whoever has handled one may
/// resume behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedAt {
    /// The revision.
    pub revision: u64,
    /// What it was about.
    pub what: Changed,
}

/// The state of the hub. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    engine: Engine,
    bucket: Bucket,
    epoch: String,
    view: RwLock<View>,
    applied: watch::Sender<u64>,
    changed: broadcast::Sender<ChangedAt>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the bucket and loads the view. The [`Follower`] must then run for as long as the store is used.
    pub async fn open(engine: Engine) -> Result<(Self, Follower), datacentered_engine::Error> {
        let bucket = Bucket::new(CONTROL_BUCKET)?;
        engine.kv().open_bucket(&bucket, Durability::Always).await?;
        let epoch = engine.kv().bucket_epoch(&bucket).await?;
        let mut watch = engine.kv().watch(&bucket, Prefix::all(), WatchFrom::Start).await?;
        let mut view = View::default();
        let mut ignored = Vec::new();
        loop {
            let batch = watch.next().await?;
            for change in &batch.changes {
                view.apply(change, &mut ignored)?;
            }
            ignored.clear();
            view.revision = batch.revision;
            if batch.caught_up {
                break;
            }
        }
        view.count_output();
        let (applied, _) = watch::channel(view.revision);
        let (changed, _) = broadcast::channel(CHANGED_BACKLOG);
        let store =
            Self(Arc::new(Inner { engine, bucket, epoch, view: RwLock::new(view), applied, changed }));
        let follower = Follower { store: store.clone(), watch };
        Ok((store, follower))
    }

    /// The epoch of every revision in the view.
    pub fn epoch(&self) -> &str {
        &self.0.epoch
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The `control` bucket.
    pub fn bucket(&self) -> &Bucket {
        &self.0.bucket
    }

    /// Looks at the view. Keep it short: nothing else is applied meanwhile.
    pub fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        // A panic while looking leaves the view whole: only `Follower` changes it.
        look(&self.0.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What changes from now on; a receiver that lags looks at everything again.
    pub fn changes(&self) -> broadcast::Receiver<ChangedAt> {
        self.0.changed.subscribe()
    }

    /// Commits a change and waits until this hub's view holds it.
    ///
    /// Errors: `conflict` when a check failed (details name the key), `indeterminate` when it may have happened.
    pub async fn commit(&self, change: Change) -> Result<u64, Error> {
        let batch = change.into_batch()?;
        let committed = match self.0.engine.kv().commit(&self.0.bucket, batch).await {
            Ok(committed) => committed,
            Err(error) => {
                // Whoever was first is in the view before the conflict is told, so that looking again finds it.
                if let datacentered_engine::Error::Conflict { current: Some(entry), .. } = &error {
                    self.wait_for(entry.revision).await?;
                }
                return Err(engine_error(error));
            }
        };
        let revision = committed.revisions.last().copied().unwrap_or(0);
        self.wait_for(revision).await?;
        Ok(revision)
    }

    async fn wait_for(&self, revision: u64) -> Result<(), Error> {
        let mut applied = self.0.applied.subscribe();
        match tokio::time::timeout(VIEW_DEADLINE, applied.wait_for(|applied| *applied >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::indeterminate(
                "the hub's view does not follow its store; repeat with the same key",
            )),
        }
    }
}

/// An engine's error as callers see it.
pub fn engine_error(error: datacentered_engine::Error) -> Error {
    use datacentered_engine::Error as E;
    let message = error.to_string();
    match error {
        E::Conflict { key, .. } => {
            Error::conflict(message).with_details(serde_json::json!({"key": key.as_str()}))
        }
        E::Indeterminate { .. } => Error::indeterminate(message),
        E::TooLarge { .. } => Error::too_large(message),
        E::Invalid { .. } => Error::invalid(message),
        E::Limited { .. } => Error::limited(message),
        _ => Error::unavailable(message),
    }
}

/// Keeps the view up to date.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    watch: datacentered_engine::Watch,
}

impl Follower {
    /// Applies changes until the token is cancelled. An error means that the hub cannot go on.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), datacentered_engine::Error> {
        let inner = &self.store.0;
        let mut told: Vec<ChangedAt> = Vec::new();
        let mut changed = Vec::new();
        loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                batch = self.watch.next() => match batch {
                    Err(datacentered_engine::Error::Closed) => return Ok(()),
                    batch => batch?,
                },
            };
            {
                let mut view = inner.view.write().unwrap_or_else(PoisonError::into_inner);
                for change in &batch.changes {
                    view.apply(change, &mut changed)?;
                    let revision = change.revision;
                    told.extend(changed.drain(..).map(|what| ChangedAt { revision, what }));
                }
                view.revision = batch.revision;
            }
            inner.applied.send_replace(batch.revision);
            for change in told.drain(..) {
                // No watcher is fine.
                let _ = inner.changed.send(change);
            }
        }
    }
}

//! The handle that the rest of the program holds.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::BoxFuture;
use crate::bus::Bus;
use crate::error::Result;
use crate::kv::Kv;
use crate::log::Log;
use crate::stats::Stats;

/// A backup as it is made: encoded pieces, in order. It ends after the last piece, or with an error.
pub type BackupStream = mpsc::Receiver<Result<Bytes>>;

/// What an engine has beside the primitives.
pub trait Backend: Send + Sync {
    /// See [`Engine::epoch`].
    fn epoch(&self) -> &str;
    /// See [`Engine::stats`].
    fn stats(&self) -> Stats;
    /// See [`Engine::failed`].
    fn failed(&self) -> CancellationToken;
    /// See [`Engine::shutdown`].
    fn shutdown(&self) -> BoxFuture<'_, ()>;
    /// One consistent snapshot of everything, with the caller's extra files. See [`crate::embedded::backup()`].
    fn backup(&self, extra: Vec<(String, Bytes)>) -> BoxFuture<'_, Result<BackupStream>>;
}

/// An open engine. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    kv: Arc<dyn Kv>,
    log: Arc<dyn Log>,
    bus: Arc<dyn Bus>,
    backend: Arc<dyn Backend>,
}

impl Engine {
    /// Puts an engine together.
    pub fn new(kv: Arc<dyn Kv>, log: Arc<dyn Log>, bus: Arc<dyn Bus>, backend: Arc<dyn Backend>) -> Self {
        Self { kv, log, bus, backend }
    }

    /// The buckets.
    pub fn kv(&self) -> &dyn Kv {
        &*self.kv
    }

    /// The logs.
    pub fn log(&self) -> &dyn Log {
        &*self.log
    }

    /// The bus.
    pub fn bus(&self) -> &dyn Bus {
        &*self.bus
    }

    /// Which history everything here belongs to: `[a-z0-9]{1,32}`. Changes on restore, re-creation and loss, never on
    /// a restart.
    pub fn epoch(&self) -> &str {
        self.backend.epoch()
    }

    /// Counters since it was opened.
    pub fn stats(&self) -> Stats {
        self.backend.stats()
    }

    /// Cancelled when a write to disk failed: what is on disk is no longer known, nothing is taken any more, and the
    /// program has to end and open the engine anew.
    pub fn failed(&self) -> CancellationToken {
        self.backend.failed()
    }

    /// Finishes what was accepted, syncs, and releases the data directory. Everything after is [`crate::Error::Closed`].
    /// Idempotent.
    pub async fn shutdown(&self) {
        self.backend.shutdown().await;
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

//! The embedded engine: everything on this machine's disk, in one directory, for one process.
//!
//! Two fjall databases, `kv` and `log`, each with its own journal, so that bulk output never stands before a commit. Each
//! has one writer thread: it drains a bounded queue, judges and writes what it found as one group, syncs at most once,
//! then makes the group visible and answers it. Reads go to the store directly.

mod background;
pub mod backup;
mod bus;
mod config;
mod counters;
mod dir;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod kv;
mod log;
mod ops;
mod queue;
mod restore;
mod snapshot;
mod store;
mod util;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub use self::backup::backup;
pub use self::config::EmbeddedConfig;
pub use self::restore::{RESTORE_JUMP, Restored, restore};

use self::background::{Janitor, spawn_syncer};
use self::bus::LocalBus;
use self::counters::Counters;
use self::dir::DataDir;
use self::kv::EmbeddedKv;
use self::kv::writer::{KvWriter, Request as KvRequest};
use self::log::EmbeddedLog;
use self::log::writer::{LogWriter, Request as LogRequest};
use self::queue::{Queue, QueueLimits, spawn_writer};
use self::store::{Failure, Store, StoreOptions};
use self::util::{Stop, lock};
use crate::BoxFuture;
use crate::engine::{Backend, BackupStream, Engine};
use crate::error::Result;
use crate::stats::Stats;

/// Values of logs from here on lie in files of their own that compactions do not rewrite.
const SEPARATE_FROM: u32 = 2048;

/// How much of such a file may be forgotten before the rest is moved.
const SEPARATE_STALE: f32 = 0.6;

/// How long threads are waited for at the end.
const LONGEST_STOP: Duration = Duration::from_secs(30);

/// The same after a failure: a store that failed may hold a thread for ever.
const LONGEST_FAILED_STOP: Duration = Duration::from_secs(2);

/// The embedded engine.
#[derive(Debug)]
pub struct Embedded;

impl Embedded {
    /// Opens the engine in `dir`, making it where needed. Blocks for as long as the journal takes to be read.
    ///
    /// Errors: [`crate::Error::Busy`] while another process has it, [`crate::Error::NewerVersion`],
    /// [`crate::Error::Damaged`], [`crate::Error::Io`], [`crate::Error::Invalid`] for settings that cannot work.
    pub fn open(dir: &Path, config: EmbeddedConfig) -> Result<Engine> {
        config.validate()?;
        let mut data_dir = DataDir::open(dir)?;
        let failure = Failure::default();
        let kv_store = Arc::new(open_kv(&data_dir, &config, &failure)?);
        let log_store = Arc::new(open_log(&data_dir, &config, &failure)?);
        data_dir.set_ready()?;
        let data_dir = Arc::new(data_dir);
        kv_store.hold(data_dir.clone());
        log_store.hold(data_dir.clone());

        let stats = Arc::new(Counters::default());
        let closed = CancellationToken::new();
        let kv_shared = Arc::new(kv::Shared::new(
            config.clone(),
            stats.clone(),
            kv_store.clone(),
            closed.clone(),
            data_dir.epoch(),
        ));
        let log_shared = Arc::new(log::Shared::new(stats.clone(), log_store.clone(), closed.clone()));
        let limits = QueueLimits {
            requests: config.queue_max,
            bytes: config.queue_bytes,
            wait: Duration::from_millis(config.queue_wait_ms),
            group: config.group_max,
            group_bytes: config.group_bytes,
        };
        let (kv_queue, kv_requests) = Queue::new(limits, failure.clone());
        let (log_queue, log_requests) = Queue::new(limits, failure.clone());
        let kv_writer = KvWriter::load(kv_shared.clone(), kv_store.clone())?;
        let log_writer = LogWriter::load(log_shared.clone(), log_store.clone())?;
        let stop = Arc::new(Stop::default());
        let interval = Duration::from_millis(config.sync_interval_ms);
        let janitor = Janitor {
            config: config.clone(),
            kv: kv_shared.clone(),
            kv_store: kv_store.clone(),
            kv_queue: kv_queue.downgrade(),
            log: log_shared.clone(),
            log_store: log_store.clone(),
            log_queue: log_queue.downgrade(),
            stop: stop.clone(),
        };
        let bus = LocalBus::new(&config, stats.clone(), closed.clone());
        let inner = Arc::new(Inner {
            epoch: data_dir.epoch().to_owned(),
            dir: Mutex::new(Some(data_dir)),
            kv: kv_shared.clone(),
            log: log_shared.clone(),
            kv_queue: kv_queue.clone(),
            log_queue: log_queue.clone(),
            stats,
            last_stores: Mutex::new([(0, 0, 0); 2]),
            failure: failure.clone(),
            closed,
            stop: stop.clone(),
            threads: Mutex::default(),
        });
        // From here on `inner` stops whatever was started.
        inner.own(spawn_writer("engine-kv", kv_requests, limits, failure.clone(), kv_writer)?);
        inner.own(spawn_writer("engine-log", log_requests, limits, failure, log_writer)?);
        inner.own(spawn_syncer("engine-kv-sync", kv_store, interval, stop.clone())?);
        inner.own(spawn_syncer("engine-log-sync", log_store, interval, stop)?);
        inner.own(janitor.spawn()?);
        Ok(Engine::new(
            Arc::new(EmbeddedKv::new(kv_shared, kv_queue)),
            Arc::new(EmbeddedLog::new(log_shared, log_queue)),
            Arc::new(bus),
            inner,
        ))
    }
}

fn open_kv(dir: &DataDir, config: &EmbeddedConfig, failure: &Failure) -> Result<Store> {
    let keyspace = fjall::KeyspaceCreateOptions::default().max_memtable_size(config.kv_memtable_bytes);
    let options = StoreOptions {
        cache_bytes: config.kv_cache_bytes,
        min_free: config.min_free_bytes,
        keyspaces: vec![("kv", keyspace)],
    };
    Store::open(&dir.path().join(dir::KV), options, failure.clone())
}

fn open_log(dir: &DataDir, config: &EmbeddedConfig, failure: &Failure) -> Result<Store> {
    let separated = fjall::KvSeparationOptions::default()
        .separation_threshold(SEPARATE_FROM)
        .file_target_size(config.log_memtable_bytes.max(1024 * 1024))
        .staleness_threshold(SEPARATE_STALE)
        .age_cutoff(1.0);
    let heads = fjall::KeyspaceCreateOptions::default().max_memtable_size(config.kv_memtable_bytes);
    let items = fjall::KeyspaceCreateOptions::default()
        .max_memtable_size(config.log_memtable_bytes)
        .with_kv_separation(Some(separated));
    let options = StoreOptions {
        cache_bytes: config.log_cache_bytes,
        min_free: config.min_free_bytes,
        keyspaces: vec![("heads", heads), ("items", items)],
    };
    Store::open(&dir.path().join(dir::LOG), options, failure.clone())
}

/// What holds the engine together.
struct Inner {
    epoch: String,
    /// Gone once the engine is closed.
    dir: Mutex<Option<Arc<DataDir>>>,
    kv: Arc<kv::Shared>,
    log: Arc<log::Shared>,
    kv_queue: Queue<KvRequest>,
    log_queue: Queue<LogRequest>,
    stats: Arc<Counters>,
    /// The stores' counters as they were last read, for when the stores are gone.
    last_stores: Mutex<[(u64, u64, u64); 2]>,
    failure: Failure,
    closed: CancellationToken,
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Inner {
    fn own(&self, thread: JoinHandle<()>) {
        lock(&self.threads).push(thread);
    }

    /// Waits for the threads, closes the stores and gives up the directory. Blocks.
    fn close(&self) {
        let longest = if self.failure.token().is_cancelled() { LONGEST_FAILED_STOP } else { LONGEST_STOP };
        let deadline = Instant::now() + longest;
        let threads = std::mem::take(&mut *lock(&self.threads));
        let mut stopped = true;
        for thread in threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            stopped &= thread.is_finished() && thread.join().is_ok();
        }
        self.store_counters();
        for store in [self.kv.store.swap(None), self.log.store.swap(None)].into_iter().flatten() {
            // Readers that are under way hold it for a moment longer.
            let mut store = Some(store);
            while let Some(held) = store.take() {
                match Arc::try_unwrap(held) {
                    Ok(last) => drop(last),
                    Err(held) if Instant::now() < deadline => {
                        store = Some(held);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(_) => stopped = false,
                }
            }
        }
        if let Some(dir) = lock(&self.dir).take()
            && stopped
            && !self.failure.token().is_cancelled()
            && let Err(error) = dir.note_clean_end()
        {
            tracing::warn!(%error, "the clean end could not be noted");
        }
    }

    fn store_counters(&self) -> [(u64, u64, u64); 2] {
        let mut last = lock(&self.last_stores);
        for (slot, store) in last.iter_mut().zip([&self.kv.store, &self.log.store]) {
            if let Some(store) = &*store.load() {
                *slot = store.counters();
            }
        }
        *last
    }

    fn stop_background(&self) {
        self.closed.cancel();
        self.stop.set();
        self.log.tails.clear();
        for store in [&self.kv.store, &self.log.store] {
            if let Some(store) = &*store.load() {
                store.wake();
            }
        }
    }
}

impl Backend for Inner {
    fn epoch(&self) -> &str {
        &self.epoch
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.stats.fill(&mut stats);
        let [kv, log] = self.store_counters();
        (stats.kv_syncs, stats.kv_bytes) = (kv.0, kv.2);
        (stats.log_syncs, stats.log_bytes) = (log.0, log.2);
        stats.sync_ns = kv.1 + log.1;
        stats
    }

    fn failed(&self) -> CancellationToken {
        self.failure.token().clone()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.stop_background();
            self.kv_queue.stop(KvRequest::Stop).await;
            self.log_queue.stop(LogRequest::Stop).await;
            // The threads end on their own; what remains is waiting for them, off this one.
            while !lock(&self.threads).iter().all(JoinHandle::is_finished) {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                    () = self.failure.token().cancelled() => break,
                }
            }
            self.close();
        })
    }

    fn backup(&self, extra: Vec<(String, Bytes)>) -> BoxFuture<'_, Result<BackupStream>> {
        Box::pin(backup::start(self, extra))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a shutdown: the writers end once the last queue is gone, which is below. They sync, and the last store
        // to go gives up the directory.
        self.stop_background();
        self.kv.store.store(None);
        self.log.store.store(None);
    }
}

//! The background threads: syncing what was written without a sync, and cleaning up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::config::EmbeddedConfig;
use super::kv::writer::Request as KvRequest;
use super::log::layout::{ITEMS, NO_ITEM};
use super::log::writer::Request as LogRequest;
use super::queue::WeakQueue;
use super::store::Store;
use super::util::{Stop, now_ms, read};
use super::{kv, log};
use crate::error::{Error, Result};

/// How long an idle syncer sleeps before it looks whether it has to stop.
const IDLE: Duration = Duration::from_millis(500);

/// Deletions are looked through every so many rounds of the janitor, unless there are too many.
const EXPIRE_ROUNDS: u64 = 10;

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|e| Error::io("starting a background thread", e))
}

/// Syncs a store within the interval after something was written without a sync.
pub(crate) fn spawn_syncer(
    name: &str,
    store: Arc<Store>,
    interval: Duration,
    stop: Arc<Stop>,
) -> Result<JoinHandle<()>> {
    spawn(name, move || {
        while !stop.is_set() {
            // The writer's end syncs what this one leaves.
            if store.wait_unsynced(IDLE) && !stop.sleep(interval) && store.sync().is_err() {
                return;
            }
        }
    })
}

/// Forgets old deletions, gives back the space of removed logs, and notices stores that failed in the background.
pub(crate) struct Janitor {
    pub(crate) config: EmbeddedConfig,
    pub(crate) kv: Arc<kv::Shared>,
    pub(crate) kv_store: Arc<Store>,
    pub(crate) kv_queue: WeakQueue<KvRequest>,
    pub(crate) log: Arc<log::Shared>,
    pub(crate) log_store: Arc<Store>,
    pub(crate) log_queue: WeakQueue<LogRequest>,
    pub(crate) stop: Arc<Stop>,
}

impl Janitor {
    pub(crate) fn spawn(self) -> Result<JoinHandle<()>> {
        spawn("engine-janitor", move || {
            let interval = Duration::from_millis(self.config.janitor_interval_ms);
            let mut round = 0;
            while !self.stop.sleep(interval) {
                round += 1;
                self.kv_store.check_health();
                self.log_store.check_health();
                self.log.tails.sweep();
                self.expire(round);
                self.reclaim();
            }
        })
    }

    fn expire(&self, round: u64) {
        let before_ms = now_ms().saturating_sub(self.config.tombstone_retention_ms);
        let keep = self.config.tombstone_max;
        let due = round.is_multiple_of(EXPIRE_ROUNDS);
        let buckets: Vec<_> = read(&self.kv.buckets).values().cloned().collect();
        for bucket in buckets {
            let expired = bucket.expire_memory(before_ms, keep) as u64;
            self.kv.stats.kv_tombstones_expired.fetch_add(expired, Ordering::Relaxed);
            let remembered = bucket.tombstones();
            if remembered > keep as u64 || (due && remembered > 0) {
                // A full queue has better things to do; there is a next round.
                self.kv_queue.try_send(KvRequest::Expire { bucket, before_ms, keep });
            }
        }
    }

    fn reclaim(&self) {
        while self.log.graves.swap(false, Ordering::AcqRel) && !self.stop.is_set() {
            let (reply, answer) = oneshot::channel();
            if !self.log_queue.try_send(LogRequest::Reclaim { reply }) {
                self.log.graves.store(true, Ordering::Release);
                return;
            }
            match answer.blocking_recv() {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => self.log.graves.store(true, Ordering::Release),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "removed logs could not be reclaimed");
                    self.log.graves.store(true, Ordering::Release);
                    return;
                }
                Err(_) => return,
            }
        }
        if self.log.forgotten.load(Ordering::Relaxed) >= self.config.reclaim_bytes {
            self.log.forgotten.store(0, Ordering::Relaxed);
            if let Err(error) = self.log_store.compact(ITEMS, &NO_ITEM) {
                tracing::warn!(%error, "the space of removed logs could not be given back yet");
            }
        }
    }
}

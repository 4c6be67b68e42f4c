//! Buckets of the embedded engine.

mod feed;
pub(crate) mod layout;
mod memory;
mod scan;
mod watch;
pub(crate) mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use self::feed::Feed;
use self::layout::BucketRecord;
use self::memory::MemoryBucket;
use self::watch::BucketWatch;
use self::writer::Request;
use super::config::EmbeddedConfig;
use super::counters::Counters;
use super::queue::Queue;
use super::store::Store;
use super::util::{lock, now_ms, random_name, read, write};
use crate::BoxFuture;
use crate::error::{Error, Result};
use crate::key::{Bucket, Key, Prefix};
use crate::kv::{Batch, Committed, Durability, Entry, Kv, Watch, WatchFrom};

/// Revisions of memory buckets start above the start time in seconds times this, so that they go on ascending over
/// restarts (up to a million writes a second) while the clock does.
const MEMORY_REVISIONS_PER_SECOND: u64 = 1_000_000;

/// Where a bucket is kept.
pub(crate) enum Kind {
    Disk { id: u32, always: AtomicBool, floor: AtomicU64, tombstones: AtomicU64 },
    Memory { content: Mutex<MemoryBucket>, epoch: String },
}

/// An open bucket.
pub(crate) struct BucketHandle {
    name: Bucket,
    pub(crate) kind: Kind,
    pub(crate) feed: Feed,
}

impl BucketHandle {
    pub(crate) fn name(&self) -> &Bucket {
        &self.name
    }

    /// Id and durability of a bucket on disk.
    pub(crate) fn disk(&self) -> Option<(u32, Durability)> {
        match &self.kind {
            Kind::Disk { id, always, .. } => {
                let always = always.load(Ordering::Acquire);
                Some((*id, if always { Durability::Always } else { Durability::Interval }))
            }
            Kind::Memory { .. } => None,
        }
    }

    fn set_durability(&self, durability: Durability) {
        if let Kind::Disk { always, .. } = &self.kind {
            always.store(durability == Durability::Always, Ordering::Release);
        }
    }

    fn set_floor(&self, to: u64) {
        if let Kind::Disk { floor, .. } = &self.kind {
            floor.fetch_max(to, Ordering::AcqRel);
        }
    }

    /// Counts the remembered deletions of a bucket on disk.
    fn add_tombstones(&self, more: u64, fewer: u64) {
        if let Kind::Disk { tombstones, .. } = &self.kind {
            // Only the writer changes it.
            let now = tombstones.load(Ordering::Relaxed);
            tombstones.store((now + more).saturating_sub(fewer), Ordering::Relaxed);
        }
    }

    /// How many deletions of a bucket on disk are remembered.
    pub(crate) fn tombstones(&self) -> u64 {
        match &self.kind {
            Kind::Disk { tombstones, .. } => tombstones.load(Ordering::Relaxed),
            Kind::Memory { .. } => 0,
        }
    }

    /// Forgets old deletions of a bucket in memory. Returns how many.
    pub(crate) fn expire_memory(&self, before_ms: u64, keep: usize) -> usize {
        match &self.kind {
            Kind::Memory { content, .. } => lock(content).expire(before_ms, keep),
            Kind::Disk { .. } => 0,
        }
    }

    /// Deletions up to this revision may be forgotten.
    fn floor(&self) -> u64 {
        match &self.kind {
            Kind::Disk { floor, .. } => floor.load(Ordering::Acquire),
            Kind::Memory { content, .. } => lock(content).floor(),
        }
    }
}

/// What the buckets' readers, watchers and writer share.
pub(crate) struct Shared {
    pub(crate) config: EmbeddedConfig,
    pub(crate) stats: Arc<Counters>,
    pub(crate) buckets: RwLock<HashMap<Bucket, Arc<BucketHandle>>>,
    /// Gone once the engine is closed.
    pub(crate) store: ArcSwapOption<Store>,
    pub(crate) closed: CancellationToken,
    epoch: String,
}

impl Shared {
    pub(crate) fn new(
        config: EmbeddedConfig,
        stats: Arc<Counters>,
        store: Arc<Store>,
        closed: CancellationToken,
        epoch: &str,
    ) -> Self {
        Self {
            config,
            stats,
            buckets: RwLock::default(),
            store: ArcSwapOption::from(Some(store)),
            closed,
            epoch: epoch.to_owned(),
        }
    }

    pub(crate) fn disk_handle(&self, name: &Bucket, record: &BucketRecord) -> BucketHandle {
        BucketHandle {
            name: name.clone(),
            kind: Kind::Disk {
                id: record.id,
                always: AtomicBool::new(record.durability == Durability::Always),
                floor: AtomicU64::new(record.floor),
                tombstones: AtomicU64::new(0),
            },
            feed: Feed::new(record.reserved, self.config.watch_buffer_bytes),
        }
    }

    pub(crate) fn find(&self, name: &Bucket) -> Option<Arc<BucketHandle>> {
        read(&self.buckets).get(name).cloned()
    }

    fn bucket(&self, name: &Bucket) -> Result<Arc<BucketHandle>> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        self.find(name).ok_or_else(|| Error::NotFound { what: format!("bucket `{name}`") })
    }

    fn store(&self) -> Result<Arc<Store>> {
        self.store.load_full().ok_or(Error::Closed)
    }

    fn open_memory(&self, name: &Bucket) -> Result<()> {
        let mut buckets = write(&self.buckets);
        if let Some(known) = buckets.get(name) {
            return match known.kind {
                Kind::Memory { .. } => Ok(()),
                Kind::Disk { .. } => {
                    Err(Error::invalid(format!("bucket `{name}` is kept on disk; that cannot be changed")))
                }
            };
        }
        if buckets.len() >= self.config.bucket_max {
            return Err(Error::Limited { what: "bucket_max" });
        }
        let start = now_ms() / 1000 * MEMORY_REVISIONS_PER_SECOND;
        let content = Mutex::new(MemoryBucket::new(start, self.config.memory_bucket_bytes));
        let handle = BucketHandle {
            name: name.clone(),
            kind: Kind::Memory { content, epoch: random_name(20)? },
            feed: Feed::new(start, self.config.watch_buffer_bytes),
        };
        buckets.insert(name.clone(), Arc::new(handle));
        Ok(())
    }
}

/// The buckets.
pub(crate) struct EmbeddedKv {
    shared: Arc<Shared>,
    queue: Queue<Request>,
}

impl EmbeddedKv {
    pub(crate) fn new(shared: Arc<Shared>, queue: Queue<Request>) -> Self {
        Self { shared, queue }
    }

    fn commit_memory(
        &self,
        bucket: &BucketHandle,
        content: &Mutex<MemoryBucket>,
        batch: Batch,
    ) -> Result<Committed> {
        let mut content = lock(content);
        let (committed, event) = content.commit(batch, now_ms()).inspect_err(|error| {
            if matches!(error, Error::Conflict { .. }) {
                self.shared.stats.kv_conflicts.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        if let Some(event) = event {
            self.shared.stats.kv_commits.fetch_add(1, Ordering::Relaxed);
            // Under the lock, so that commits are published in their order.
            bucket.feed.publish(vec![event]);
        }
        Ok(committed)
    }
}

impl Kv for EmbeddedKv {
    fn open_bucket<'a>(&'a self, bucket: &'a Bucket, durability: Durability) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.shared.closed.is_cancelled() {
                return Err(Error::Closed);
            }
            if durability == Durability::Memory {
                return self.shared.open_memory(bucket);
            }
            if self
                .shared
                .find(bucket)
                .and_then(|handle| handle.disk())
                .is_some_and(|(_, now)| now == durability)
            {
                return Ok(());
            }
            self.queue.ask(0, |reply| Request::Open { name: bucket.clone(), durability, reply }).await
        })
    }

    fn bucket_epoch<'a>(&'a self, bucket: &'a Bucket) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            Ok(match &self.shared.bucket(bucket)?.kind {
                Kind::Disk { .. } => self.shared.epoch.clone(),
                Kind::Memory { epoch, .. } => epoch.clone(),
            })
        })
    }

    fn get<'a>(&'a self, bucket: &'a Bucket, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        Box::pin(async move {
            let handle = self.shared.bucket(bucket)?;
            match &handle.kind {
                // Read in place: most are in memory, and a hop to another thread costs more than a disk read.
                Kind::Disk { id, .. } => writer::read_entry(&*self.shared.store()?, *id, key),
                Kind::Memory { content, .. } => Ok(lock(content).get(key)),
            }
        })
    }

    fn commit<'a>(&'a self, bucket: &'a Bucket, batch: Batch) -> BoxFuture<'a, Result<Committed>> {
        Box::pin(async move {
            batch.validate()?;
            let handle = self.shared.bucket(bucket)?;
            if let Kind::Memory { content, .. } = &handle.kind {
                return self.commit_memory(&handle, content, batch);
            }
            let bytes = batch.bytes();
            self.queue.ask(bytes, |reply| Request::Commit { bucket: handle, batch, reply }).await
        })
    }

    fn watch<'a>(
        &'a self,
        bucket: &'a Bucket,
        prefix: Prefix,
        from: WatchFrom,
    ) -> BoxFuture<'a, Result<Watch>> {
        Box::pin(async move {
            let handle = self.shared.bucket(bucket)?;
            Ok(Watch::new(BucketWatch::new(self.shared.clone(), handle, prefix, from)?))
        })
    }
}

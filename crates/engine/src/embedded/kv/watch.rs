//! One watcher: it reads its backlog from the store, then follows the feed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::super::util::lock;
use super::feed::Since;
use super::scan::{Chunk, Scan, scan};
use super::{BucketHandle, Kind, Shared};
use crate::BoxFuture;
use crate::error::{Error, Result};
use crate::key::Prefix;
use crate::kv::{WatchBatch, WatchFrom, WatchSource};

pub(crate) struct BucketWatch {
    shared: Arc<Shared>,
    bucket: Arc<BucketHandle>,
    scan: Scan,
    /// The revision last told to the watcher as wholly held.
    view: u64,
    /// Whether the backlog is read and the feed is followed.
    live: bool,
    /// Whether an answer is owed even if nothing changed.
    first: bool,
    woken: watch::Receiver<u64>,
}

impl BucketWatch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        bucket: Arc<BucketHandle>,
        prefix: Prefix,
        from: WatchFrom,
    ) -> Result<Self> {
        // First, so that recent changes are kept from here on.
        let woken = bucket.feed.subscribe();
        let last = bucket.feed.last();
        let (position, skip_deleted, list, live) = match from {
            WatchFrom::Start => (0, last, true, false),
            WatchFrom::After(revision) => (revision, 0, false, false),
            WatchFrom::Now => (last, 0, false, true),
        };
        if position > last {
            return Err(Error::Gap { oldest: bucket.floor() });
        }
        let scan = Scan { prefix, position, skip_deleted, list };
        let view = if from == WatchFrom::Start { 0 } else { position };
        let watch = Self { shared, bucket, scan, view, live, first: true, woken };
        watch.check_gap()?;
        Ok(watch)
    }

    /// Whether a deletion that this watcher needs may be forgotten.
    fn check_gap(&self) -> Result<()> {
        let floor = self.bucket.floor();
        if !self.live && floor > self.scan.position.max(self.scan.skip_deleted) {
            return Err(Error::Gap { oldest: floor });
        }
        Ok(())
    }

    /// Reads a piece of the backlog.
    async fn read(&self) -> Result<Chunk> {
        self.shared.stats.watch_catch_ups.fetch_add(1, Ordering::Relaxed);
        let chunk = match &self.bucket.kind {
            Kind::Memory { content, .. } => lock(content).scan(&self.scan),
            Kind::Disk { id, .. } => {
                let store = self.shared.store()?;
                let (id, last, needed) = (*id, self.bucket.feed.last(), self.scan.clone());
                tokio::task::spawn_blocking(move || scan(&store, id, last, &needed))
                    .await
                    .map_err(|_| Error::Closed)??
            }
        };
        // After the read: what was forgotten meanwhile may be missing from it.
        self.check_gap()?;
        Ok(chunk)
    }

    async fn advance(&mut self) -> Result<WatchBatch> {
        loop {
            if self.shared.closed.is_cancelled() {
                return Err(Error::Closed);
            }
            if !self.live {
                // Nothing is changed before the answer is there, so that a dropped call loses nothing.
                let chunk = self.read().await?;
                self.scan.position = chunk.position;
                if chunk.done {
                    self.live = true;
                    self.view = chunk.position;
                }
                if !chunk.changes.is_empty() || (chunk.done && self.first) {
                    // After a piece, the one that completes it is owed even when it is empty.
                    self.first = !chunk.done;
                    return Ok(WatchBatch {
                        changes: chunk.changes,
                        revision: self.view,
                        caught_up: chunk.done,
                    });
                }
                continue;
            }
            match self.bucket.feed.since(self.scan.position) {
                Since::Behind => self.live = false,
                Since::Events(events, upto) => {
                    self.scan.position = upto;
                    self.view = upto;
                    let changes: Vec<_> = events
                        .iter()
                        .flat_map(|event| &event.changes)
                        .filter(|change| self.scan.prefix.matches(&change.key))
                        .cloned()
                        .collect();
                    if !changes.is_empty() || self.first {
                        self.first = false;
                        return Ok(WatchBatch { changes, revision: upto, caught_up: true });
                    }
                }
                Since::Current if self.first => {
                    self.first = false;
                    return Ok(WatchBatch { changes: Vec::new(), revision: self.view, caught_up: true });
                }
                Since::Current => {
                    tokio::select! {
                        biased;
                        () = self.shared.closed.cancelled() => return Err(Error::Closed),
                        changed = self.woken.changed() => changed.map_err(|_| Error::Closed)?,
                    }
                }
            }
        }
    }
}

impl WatchSource for BucketWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchBatch>> {
        Box::pin(self.advance())
    }
}

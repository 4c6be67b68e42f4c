//! The writer of buckets: it alone changes them.
//!
//! A group's batches are judged one after the other against the store with the group's own earlier writes laid over it,
//! written as one atomic group with at most one sync, then made visible, then answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::queue::Writer;
use super::super::snapshot::Barrier;
use super::super::store::{Ops, Store, read_error};
use super::super::util::{now_ms, write};
use super::feed::Event;
use super::layout::{self, BucketRecord, State};
use super::{BucketHandle, Kind, Shared};
use crate::error::{Error, Result};
use crate::key::{Bucket, Key};
use crate::kv::{Batch, Change, Committed, Durability, Entry, MAX_REVISION};

/// Revisions reserved at once: after any restart a bucket goes on above what is reserved.
pub(crate) const REVISION_BLOCK: u64 = 1 << 20;

/// Most deletions forgotten in one request.
const EXPIRE_PIECE: usize = 2000;

/// What the writer is asked.
pub(crate) enum Request {
    Commit { bucket: Arc<BucketHandle>, batch: Batch, reply: oneshot::Sender<Result<Committed>> },
    Open { name: Bucket, durability: Durability, reply: oneshot::Sender<Result<()>> },
    Expire { bucket: Arc<BucketHandle>, before_ms: u64, keep: usize },
    Barrier(Barrier),
    Stop,
}

/// Revisions of one bucket.
struct Revisions {
    next: u64,
    record: BucketRecord,
}

pub(crate) struct KvWriter {
    shared: Arc<Shared>,
    store: Arc<Store>,
    revisions: HashMap<u32, Revisions>,
    next_id: u32,
}

/// A judged request, waiting for the group's write.
enum Pending {
    Commit { reply: oneshot::Sender<Result<Committed>>, result: Result<Committed> },
    Open { reply: oneshot::Sender<Result<()>>, handle: Option<Arc<BucketHandle>>, durability: Durability },
    Floor { bucket: Arc<BucketHandle>, floor: u64, expired: u64 },
}

/// A group as it grows.
#[derive(Default)]
struct Group {
    ops: Ops,
    sync: bool,
    overlay: HashMap<(u32, Key), State>,
    pending: Vec<Pending>,
    events: Vec<(Arc<BucketHandle>, Vec<Event>)>,
    new_buckets: HashMap<Bucket, Arc<BucketHandle>>,
}

impl KvWriter {
    /// Loads what is known about the buckets of the store.
    pub(crate) fn load(shared: Arc<Shared>, store: Arc<Store>) -> Result<Self> {
        let mut revisions = HashMap::new();
        let mut next_id = 1;
        for guard in store.keyspace(0).range(layout::bucket_keys()) {
            let (key, value) = guard.into_inner().map_err(read_error)?;
            let (name, record) = layout::decode_bucket(&key, &value)?;
            next_id = next_id.max(record.id + 1);
            let handle = Arc::new(shared.disk_handle(&name, &record));
            let tombstones = store.keyspace(0).range(layout::tombstone_keys(record.id, record.floor)).count();
            handle.add_tombstones(tombstones as u64, 0);
            write(&shared.buckets).insert(name, handle);
            revisions.insert(record.id, Revisions { next: record.reserved + 1, record });
        }
        Ok(Self { shared, store, revisions, next_id })
    }

    fn state(&self, group: &Group, bucket: u32, key: &Key) -> Result<Option<State>> {
        if let Some(state) = group.overlay.get(&(bucket, key.clone())) {
            return Ok(Some(state.clone()));
        }
        let stored = self.store.get(0, &layout::entry_key(bucket, key))?;
        stored.map(|stored| layout::decode_state(stored.into())).transpose()
    }

    /// Judges one batch and adds its writes to the group.
    fn commit(&mut self, group: &mut Group, bucket: &Arc<BucketHandle>, batch: Batch) -> Result<Committed> {
        let (id, durability) = bucket.disk().ok_or(Error::Closed)?;
        for (key, expect) in batch.checks() {
            let current = self.state(group, id, key)?;
            let entry = current.and_then(|state| {
                Some(Entry { key: key.clone(), revision: state.revision, value: state.value? })
            });
            if !expect.holds(entry.as_ref().map(|entry| entry.revision)) {
                self.shared.stats.kv_conflicts.fetch_add(1, Ordering::Relaxed);
                return Err(Error::Conflict { key: key.clone(), current: entry });
            }
        }
        let forgets = batch.writes().iter().all(|write| write.value.is_none());
        let size = batch.bytes() as u64;
        let sync = durability == Durability::Always && !batch.is_relaxed();
        let (_, writes) = batch.into_parts();
        if writes.is_empty() {
            return Ok(Committed { revisions: Vec::new() });
        }
        self.store.check_room(size, forgets)?;
        // Everything that can fail is done before the group is touched.
        let mut old = Vec::with_capacity(writes.len());
        for write in &writes {
            old.push(self.state(group, id, &write.key)?);
        }
        let first = self.allocate(group, id, bucket.name(), writes.len() as u64)?;
        let now = now_ms();
        let mut changes = Vec::with_capacity(writes.len());
        for ((write, old), revision) in writes.into_iter().zip(old).zip(first..) {
            let stored = layout::encode_state(revision, write.value.as_deref());
            let value = write.value.is_some().then(|| stored.slice(9..));
            if let Some(old) = old {
                group.ops.remove(0, layout::change_key(id, old.revision));
                if old.value.is_none() {
                    group.ops.remove(0, layout::tombstone_key(id, old.revision));
                    bucket.add_tombstones(0, 1);
                }
            }
            let counter = if value.is_some() {
                &self.shared.stats.kv_puts
            } else {
                let tombstone = layout::encode_tombstone(now, &write.key);
                group.ops.put(0, layout::tombstone_key(id, revision), tombstone);
                bucket.add_tombstones(1, 0);
                &self.shared.stats.kv_deletes
            };
            counter.fetch_add(1, Ordering::Relaxed);
            group.ops.put(0, layout::entry_key(id, &write.key), stored);
            let change = layout::encode_change(value.is_some(), &write.key);
            group.ops.put(0, layout::change_key(id, revision), change);
            group.overlay.insert((id, write.key.clone()), State { revision, value: value.clone() });
            changes.push(Change { key: write.key, revision, value });
        }
        group.sync |= sync;
        let revisions = changes.iter().map(|change| change.revision).collect();
        let event = Event::new(changes);
        match group.events.iter_mut().find(|(handle, _)| Arc::ptr_eq(handle, bucket)) {
            Some((_, events)) => events.push(event),
            None => group.events.push((bucket.clone(), vec![event])),
        }
        self.shared.stats.kv_commits.fetch_add(1, Ordering::Relaxed);
        Ok(Committed { revisions })
    }

    /// Takes `count` revisions; the first is returned. The mark that no restart goes below is moved, with a sync,
    /// before the last reserved one is used.
    fn allocate(&mut self, group: &mut Group, id: u32, name: &Bucket, count: u64) -> Result<u64> {
        let revisions = self.revisions.get_mut(&id).ok_or(Error::Closed)?;
        let first = revisions.next;
        let next = first + count;
        if next >= MAX_REVISION {
            return Err(Error::Limited { what: "revisions" });
        }
        if next > revisions.record.reserved {
            revisions.record.reserved = next + REVISION_BLOCK;
            let record = layout::encode_bucket(&revisions.record);
            group.ops.put(0, layout::bucket_key(name), record);
            group.sync = true;
        }
        revisions.next = next;
        Ok(first)
    }

    fn open(
        &mut self,
        group: &mut Group,
        name: &Bucket,
        durability: Durability,
    ) -> Result<Option<Arc<BucketHandle>>> {
        let known = group.new_buckets.get(name).cloned().or_else(|| self.shared.find(name));
        if let Some(handle) = known {
            let Kind::Disk { id, .. } = &handle.kind else {
                return Err(Error::invalid(format!(
                    "bucket `{name}` is kept in memory; that cannot be changed"
                )));
            };
            let revisions = self.revisions.get_mut(id).ok_or(Error::Closed)?;
            if revisions.record.durability != durability {
                revisions.record.durability = durability;
                group.ops.put(0, layout::bucket_key(name), layout::encode_bucket(&revisions.record));
            }
            // Also when nothing changes: whoever opens it may rely on it from then on.
            group.sync = true;
            return Ok(Some(handle));
        }
        if self.revisions.len() >= self.shared.config.bucket_max {
            return Err(Error::Limited { what: "bucket_max" });
        }
        let record = BucketRecord { id: self.next_id, durability, reserved: REVISION_BLOCK, floor: 0 };
        self.next_id += 1;
        group.ops.put(0, layout::bucket_key(name), layout::encode_bucket(&record));
        group.sync = true;
        let mut handle = self.shared.disk_handle(name, &record);
        handle.feed = super::feed::Feed::new(0, self.shared.config.watch_buffer_bytes);
        let handle = Arc::new(handle);
        self.revisions.insert(record.id, Revisions { next: 1, record });
        group.new_buckets.insert(name.clone(), handle.clone());
        Ok(Some(handle))
    }

    /// Forgets old deletions. Returns the new floor and how many went.
    fn expire(
        &mut self,
        group: &mut Group,
        bucket: &BucketHandle,
        before_ms: u64,
        keep: usize,
    ) -> Result<(u64, u64)> {
        let (id, _) = bucket.disk().ok_or(Error::Closed)?;
        let revisions = self.revisions.get_mut(&id).ok_or(Error::Closed)?;
        let over = bucket.tombstones().saturating_sub(keep as u64) as usize;
        // What is at or below the floor is gone already.
        let range = layout::tombstone_keys(id, revisions.record.floor);
        let mut expired = 0;
        for (index, guard) in self.store.keyspace(0).range(range).take(EXPIRE_PIECE).enumerate() {
            let (key, value) = guard.into_inner().map_err(read_error)?;
            let (revision, at, name) = layout::decode_tombstone(&key, &value)?;
            if at >= before_ms && index >= over {
                break;
            }
            if group.overlay.contains_key(&(id, name.clone())) {
                // Written again in this very group: it is forgotten already.
                continue;
            }
            group.ops.remove(0, layout::entry_key(id, &name));
            group.ops.remove(0, layout::change_key(id, revision));
            group.ops.remove(0, key.to_vec());
            revisions.record.floor = revisions.record.floor.max(revision);
            expired += 1;
        }
        if expired > 0 {
            bucket.add_tombstones(0, expired);
            let record = layout::encode_bucket(&revisions.record);
            group.ops.put(0, layout::bucket_key(bucket.name()), record);
        }
        Ok((revisions.record.floor, expired))
    }

    fn judge(&mut self, group: &mut Group, request: Request, barriers: &mut Vec<Barrier>) -> bool {
        match request {
            Request::Commit { bucket, batch, reply } => {
                let result = self.commit(group, &bucket, batch);
                group.pending.push(Pending::Commit { reply, result });
            }
            Request::Open { name, durability, reply } => match self.open(group, &name, durability) {
                Ok(handle) => group.pending.push(Pending::Open { reply, handle, durability }),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Expire { bucket, before_ms, keep } => match self.expire(group, &bucket, before_ms, keep)
            {
                Ok((floor, expired)) => group.pending.push(Pending::Floor { bucket, floor, expired }),
                Err(error) => tracing::warn!(%error, "deletions could not be forgotten"),
            },
            Request::Barrier(barrier) => barriers.push(barrier),
            Request::Stop => return false,
        }
        true
    }

    /// Makes a written group visible and answers it.
    fn publish(&self, group: Group) {
        for (bucket, events) in group.events {
            bucket.feed.publish(events);
        }
        write(&self.shared.buckets).extend(group.new_buckets);
        for pending in group.pending {
            match pending {
                Pending::Commit { reply, result } => drop(reply.send(result)),
                Pending::Open { reply, handle, durability } => {
                    if let Some(handle) = handle {
                        handle.set_durability(durability);
                    }
                    drop(reply.send(Ok(())));
                }
                Pending::Floor { bucket, floor, expired } => {
                    bucket.set_floor(floor);
                    self.shared.stats.kv_tombstones_expired.fetch_add(expired, Ordering::Relaxed);
                }
            }
        }
    }

    /// Answers a group whose write failed. Nothing becomes visible.
    fn refuse(group: Group, fault: &super::super::store::Fault) {
        for pending in group.pending {
            match pending {
                // What a check saw may be a write of this very group, so no conflict can be told either; but it is
                // certain that nothing of it happened.
                Pending::Commit { reply, result: Err(_) } => {
                    drop(
                        reply.send(Err(Error::Unavailable {
                            why: "the group it was judged in failed".into(),
                        })),
                    );
                }
                Pending::Commit { reply, .. } => drop(reply.send(Err(fault.error()))),
                Pending::Open { reply, .. } => drop(reply.send(Err(fault.error()))),
                Pending::Floor { .. } => {}
            }
        }
    }
}

impl Writer for KvWriter {
    type Request = Request;

    fn run(&mut self, requests: Vec<Request>) -> bool {
        let mut group = Group::default();
        let mut barriers = Vec::new();
        let mut go_on = true;
        self.shared.stats.kv_groups.fetch_add(1, Ordering::Relaxed);
        self.shared.stats.kv_grouped.fetch_add(requests.len() as u64, Ordering::Relaxed);
        for request in requests {
            go_on &= self.judge(&mut group, request, &mut barriers);
        }
        let (ops, sync) = (std::mem::take(&mut group.ops), group.sync);
        match self.store.commit(ops, sync) {
            Ok(()) => self.publish(group),
            Err(fault) => Self::refuse(group, &fault),
        }
        for barrier in barriers {
            barrier.wait(self.store.snapshot());
        }
        go_on
    }

    fn finish(&mut self) {
        if let Err(fault) = self.store.sync() {
            tracing::error!(error = %fault.error(), "the last sync failed");
        }
    }
}

/// The value of a stored entry, for reads.
pub(crate) fn read_entry(store: &Store, bucket: u32, key: &Key) -> Result<Option<Entry>> {
    let Some(stored) = store.get_visible(0, &layout::entry_key(bucket, key))? else { return Ok(None) };
    let state = layout::decode_state(Bytes::from(stored))?;
    Ok(state.value.map(|value| Entry { key: key.clone(), revision: state.revision, value }))
}

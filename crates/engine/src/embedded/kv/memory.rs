//! A bucket in memory: outside the journal, so that it never waits for a sync.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;

use super::feed::Event;
use super::scan::{Chunk, Scan};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::kv::{Batch, Change, Committed, Entry};

/// Bytes that a key costs beside its name and value.
const KEY_OVERHEAD: usize = 160;

struct State {
    revision: u64,
    /// `None`: deleted, and remembered.
    value: Option<Bytes>,
    deleted_at: u64,
}

/// The contents of a bucket in memory.
pub(crate) struct MemoryBucket {
    keys: HashMap<Key, State>,
    /// One per key, in revision order.
    changes: BTreeMap<u64, Key>,
    /// The remembered deletions.
    tombstones: BTreeMap<u64, Key>,
    last: u64,
    floor: u64,
    bytes: usize,
    max_bytes: usize,
}

impl MemoryBucket {
    /// An empty bucket whose revisions start above `last`.
    pub(crate) fn new(last: u64, max_bytes: usize) -> Self {
        Self {
            keys: HashMap::new(),
            changes: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            last,
            floor: last,
            bytes: 0,
            max_bytes,
        }
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        let state = self.keys.get(key)?;
        let value = state.value.clone()?;
        Some(Entry { key: key.clone(), revision: state.revision, value })
    }

    /// Commits a validated batch; `None` when it wrote nothing.
    pub(crate) fn commit(&mut self, batch: Batch, now_ms: u64) -> Result<(Committed, Option<Event>)> {
        for (key, expect) in batch.checks() {
            let current = self.get(key);
            if !expect.holds(current.as_ref().map(|entry| entry.revision)) {
                return Err(Error::Conflict { key: key.clone(), current });
            }
        }
        let (_, writes) = batch.into_parts();
        let puts = writes.iter().any(|write| write.value.is_some());
        let adds: usize = writes.iter().map(|write| cost(&write.key, write.value.as_ref())).sum();
        let frees: usize = writes
            .iter()
            .filter_map(|write| self.keys.get(&write.key).map(|state| cost(&write.key, state.value.as_ref())))
            .sum();
        // Deletions always pass: they are what helps.
        if puts && (self.bytes + adds).saturating_sub(frees) > self.max_bytes {
            return Err(Error::Limited { what: "memory_bucket_bytes" });
        }
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            self.last += 1;
            let revision = self.last;
            // Values are copied, so that a small one does not keep a large buffer alive.
            let value = write.value.map(|value| Bytes::copy_from_slice(&value));
            self.forget(&write.key);
            if value.is_none() {
                self.tombstones.insert(revision, write.key.clone());
            }
            self.changes.insert(revision, write.key.clone());
            self.bytes += cost(&write.key, value.as_ref());
            self.keys.insert(write.key.clone(), State { revision, value: value.clone(), deleted_at: now_ms });
            changes.push(Change { key: write.key, revision, value });
        }
        let revisions = changes.iter().map(|change| change.revision).collect();
        let event = (!changes.is_empty()).then(|| Event::new(changes));
        Ok((Committed { revisions }, event))
    }

    fn forget(&mut self, key: &Key) {
        if let Some(old) = self.keys.remove(key) {
            self.changes.remove(&old.revision);
            self.tombstones.remove(&old.revision);
            self.bytes = self.bytes.saturating_sub(cost(key, old.value.as_ref()));
        }
    }

    /// Forgets the deletions older than `before_ms` or over `keep`. Returns how many.
    pub(crate) fn expire(&mut self, before_ms: u64, keep: usize) -> usize {
        let mut expired = 0;
        while let Some((&revision, key)) = self.tombstones.first_key_value() {
            let old = self.keys.get(key).is_none_or(|state| state.deleted_at < before_ms);
            if !old && self.tombstones.len() <= keep {
                break;
            }
            let key = key.clone();
            self.forget(&key);
            self.tombstones.remove(&revision);
            self.floor = self.floor.max(revision);
            expired += 1;
        }
        expired
    }

    /// See [`Scan`].
    pub(crate) fn scan(&self, scan: &Scan) -> Chunk {
        let mut chunk = Chunk::new(self.last);
        for (&revision, key) in self.changes.range((Bound::Excluded(scan.position), Bound::Unbounded)) {
            if chunk.is_full() {
                return chunk.partial();
            }
            chunk.seen(revision);
            let Some(state) = self.keys.get(key).filter(|_| scan.prefix.matches(key)) else { continue };
            if state.value.is_some() || revision > scan.skip_deleted {
                chunk.push(Change { key: key.clone(), revision, value: state.value.clone() });
            }
        }
        chunk.whole()
    }
}

fn cost(key: &Key, value: Option<&Bytes>) -> usize {
    KEY_OVERHEAD + key.as_str().len() + value.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Expect;

    fn key(name: &str) -> Key {
        Key::parse(name).expect("key")
    }

    #[test]
    fn is_bounded_and_deletions_pass() {
        let mut bucket = MemoryBucket::new(0, 10_000);
        let big = Batch::new().put(key("a"), vec![0; 9000]);
        bucket.commit(big.clone(), 0).expect("fits");
        bucket.commit(big, 0).expect("replaces itself");
        let more = Batch::new().put(key("b"), vec![0; 9000]);
        assert!(matches!(
            bucket.commit(more.clone(), 0),
            Err(Error::Limited { what: "memory_bucket_bytes" })
        ));
        bucket.commit(Batch::new().delete(key("a")), 0).expect("deletes");
        bucket.commit(more, 0).expect("fits now");
    }

    #[test]
    fn remembers_deletions_for_a_while() {
        let mut bucket = MemoryBucket::new(5, 10_000);
        bucket.commit(Batch::new().put(key("a"), "1").put(key("b"), "1"), 0).expect("put");
        bucket.commit(Batch::new().check(key("a"), Expect::Exists).delete(key("a")), 10).expect("delete");
        assert_eq!(bucket.expire(10, 10), 0);
        assert_eq!(bucket.floor(), 5);
        assert_eq!(bucket.expire(11, 10), 1);
        assert_eq!(bucket.floor(), 8);
        assert!(bucket.keys.len() == 1 && bucket.changes.len() == 1 && bucket.tombstones.is_empty());
        bucket.commit(Batch::new().delete(key("b")), 10).expect("delete");
        assert_eq!(bucket.expire(0, 0), 1);
        assert_eq!(bucket.bytes, 0);
    }
}

//! Buckets of revisioned keys: atomic batches of checks and writes, and watches.

use std::collections::HashSet;

use bytes::Bytes;

use crate::BoxFuture;
use crate::error::{Error, Result};
use crate::key::{Bucket, Key, Prefix};

/// Most checks and writes in one batch, together.
pub const MAX_BATCH: usize = 500;

/// Largest stored value, in bytes.
pub const MAX_VALUE: usize = 128 * 1024;

/// Largest sum of the values of one batch, in bytes.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Revisions stay below this.
pub const MAX_REVISION: u64 = 1 << 53;

/// A key as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The revision of its last write.
    pub revision: u64,
    /// Its value.
    pub value: Bytes,
}

/// What a check expects of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key is not there (never written, or deleted).
    Absent,
    /// The key is there and its last write had this revision.
    Revision(u64),
    /// The key is there, at any revision.
    Exists,
}

impl Expect {
    /// Whether a key whose entry has `revision` (none: it is not there) is as expected.
    pub fn holds(self, revision: Option<u64>) -> bool {
        match self {
            Self::Absent => revision.is_none(),
            Self::Revision(expected) => revision == Some(expected),
            Self::Exists => revision.is_some(),
        }
    }
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key written.
    pub key: Key,
    /// Its new value; `None` deletes it.
    pub value: Option<Bytes>,
}

/// Checks and writes inside one bucket that happen together or not at all.
///
/// A key may be checked once and written once. Deleting a key that is not there is a write like any other.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    checks: Vec<(Key, Expect)>,
    writes: Vec<Write>,
    relaxed: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check.
    #[must_use]
    pub fn check(mut self, key: Key, expect: Expect) -> Self {
        self.checks.push((key, expect));
        self
    }

    /// Adds a write of a value.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write { key, value: Some(value.into()) });
        self
    }

    /// Adds a deletion.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push(Write { key, value: None });
        self
    }

    /// Does without a sync of its own, also in a bucket of [`Durability::Always`]: for what is done again without harm
    /// when a machine loses it. Whatever is committed durably after it makes it durable too.
    #[must_use]
    pub fn relaxed(mut self) -> Self {
        self.relaxed = true;
        self
    }

    /// Whether it does without a sync of its own.
    pub fn is_relaxed(&self) -> bool {
        self.relaxed
    }

    /// The checks, in the order they were added.
    pub fn checks(&self) -> &[(Key, Expect)] {
        &self.checks
    }

    /// The writes, in the order they were added.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Takes the batch apart, for engines.
    pub fn into_parts(self) -> (Vec<(Key, Expect)>, Vec<Write>) {
        (self.checks, self.writes)
    }

    /// Checks and writes together.
    pub fn len(&self) -> usize {
        self.checks.len() + self.writes.len()
    }

    /// Whether it has neither checks nor writes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all its keys and values.
    pub fn bytes(&self) -> usize {
        let checks: usize = self.checks.iter().map(|(key, _)| key.as_str().len()).sum();
        let writes: usize = self
            .writes
            .iter()
            .map(|write| write.key.as_str().len() + write.value.as_ref().map_or(0, Bytes::len))
            .sum();
        checks + writes
    }

    /// Refuses a batch over the limits ([`Error::TooLarge`]) or with a key used twice ([`Error::Invalid`]).
    pub fn validate(&self) -> Result<()> {
        if self.len() > MAX_BATCH {
            return Err(Error::TooLarge { what: "a batch", size: self.len() as u64, max: MAX_BATCH as u64 });
        }
        let mut total = 0;
        let mut seen = HashSet::with_capacity(self.writes.len());
        for write in &self.writes {
            let size = write.value.as_ref().map_or(0, Bytes::len);
            if size > MAX_VALUE {
                return Err(Error::TooLarge { what: "a value", size: size as u64, max: MAX_VALUE as u64 });
            }
            total += size;
            if !seen.insert(&write.key) {
                return Err(Error::invalid(format!("`{}` is written twice in one batch", write.key)));
            }
        }
        if total > MAX_BATCH_BYTES {
            return Err(Error::TooLarge { what: "a batch", size: total as u64, max: MAX_BATCH_BYTES as u64 });
        }
        seen.clear();
        for (key, _) in &self.checks {
            if !seen.insert(key) {
                return Err(Error::invalid(format!("`{key}` is checked twice in one batch")));
            }
        }
        Ok(())
    }
}

/// When a write counts as committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Kept in memory only; a restart empties it and changes the bucket's epoch.
    Memory,
    /// Survives the process; survives the machine once the sync interval has passed.
    Interval,
    /// Survives the machine when answered.
    Always,
}

/// What a commit was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// One revision per write, in batch order, ascending.
    pub revisions: Vec<u64>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With all current entries in revision order, then changes.
    Start,
    /// With each key changed after this revision: at least its last state, deletions included, in revision order.
    After(u64),
    /// With what changes from now on.
    Now,
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// The revision of the change.
    pub revision: u64,
    /// The new value; `None` when it was deleted.
    pub value: Option<Bytes>,
}

/// Changes to apply together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchBatch {
    /// The changes, in ascending revision order.
    pub changes: Vec<Change>,
    /// The bucket revision that the watcher's view holds once this is applied. While `caught_up` is false it stays
    /// where it was (0 from [`WatchFrom::Start`]). Resuming with [`WatchFrom::After`] this revision misses nothing.
    pub revision: u64,
    /// Whether the view, once this is applied, is the bucket's state at `revision`. False only on the pieces of a
    /// catch-up too large for one batch: apply them, show them once a later batch says true.
    pub caught_up: bool,
}

/// The engine's side of a watch.
pub trait WatchSource: Send {
    /// See [`Watch::next`].
    fn next(&mut self) -> BoxFuture<'_, Result<WatchBatch>>;
}

/// A running watch. Dropping it ends it.
pub struct Watch(Box<dyn WatchSource>);

impl Watch {
    /// Wraps an engine's source.
    pub fn new(source: impl WatchSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// The next changes. Each commit is seen whole. The first call always answers at once, if need be with an empty
    /// batch that says where the view stands; later ones wait for a change. A slow watcher is never waited for: it
    /// gets fewer, coalesced changes. Cancel safe: a dropped call loses nothing.
    ///
    /// Errors: [`Error::Gap`] when what it still needs is forgotten (watch again from the start), [`Error::Closed`].
    pub async fn next(&mut self) -> Result<WatchBatch> {
        self.0.next().await
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Buckets of revisioned keys.
///
/// Revisions are per bucket, ascending, not dense, below [`MAX_REVISION`] and never used twice within the bucket's
/// epoch, whatever crashes. Nothing is visible, to reads, checks or watches, before it is committed at its bucket's
/// durability.
pub trait Kv: Send + Sync {
    /// Makes sure that the bucket is there. Idempotent. `Interval` and `Always` may be changed for each other by
    /// opening again; `Memory` is for the bucket's life ([`Error::Invalid`] otherwise).
    fn open_bucket<'a>(&'a self, bucket: &'a Bucket, durability: Durability) -> BoxFuture<'a, Result<()>>;

    /// Which history the bucket's revisions belong to: `[a-z0-9]{1,32}`. It changes when the bucket lost anything
    /// that was answered: on restore, on re-creation, and for `Memory` buckets on every restart.
    fn bucket_epoch<'a>(&'a self, bucket: &'a Bucket) -> BoxFuture<'a, Result<String>>;

    /// Reads one key. Linearisable: it sees every commit that was answered before it was called.
    fn get<'a>(&'a self, bucket: &'a Bucket, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>>;

    /// Commits a batch. Dropping the call does not undo it.
    ///
    /// Errors: [`Error::Conflict`] with the first check that failed; [`Error::Indeterminate`] when it may have
    /// happened; any other error means that it did not.
    fn commit<'a>(&'a self, bucket: &'a Bucket, batch: Batch) -> BoxFuture<'a, Result<Committed>>;

    /// Watches the keys below a prefix. A revision that the bucket has not reached yet is answered with
    /// [`Error::Gap`], as is one older than the deletions still remembered.
    fn watch<'a>(
        &'a self,
        bucket: &'a Bucket,
        prefix: Prefix,
        from: WatchFrom,
    ) -> BoxFuture<'a, Result<Watch>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::parse(name).expect("key")
    }

    #[test]
    fn limits() {
        let mut batch = Batch::new();
        for n in 0..MAX_BATCH {
            batch = batch.delete(key(&format!("k{n}")));
        }
        assert!(batch.validate().is_ok());
        assert!(matches!(batch.check(key("x"), Expect::Absent).validate(), Err(Error::TooLarge { .. })));
        assert!(Batch::new().put(key("a"), vec![0; MAX_VALUE]).validate().is_ok());
        assert!(matches!(
            Batch::new().put(key("a"), vec![0; MAX_VALUE + 1]).validate(),
            Err(Error::TooLarge { .. })
        ));
        assert!(matches!(
            Batch::new().put(key("a"), "1").delete(key("a")).validate(),
            Err(Error::Invalid { .. })
        ));
        let twice = Batch::new().check(key("a"), Expect::Absent).check(key("a"), Expect::Exists);
        assert!(matches!(twice.validate(), Err(Error::Invalid { .. })));
        assert!(Batch::new().check(key("a"), Expect::Absent).put(key("a"), "1").validate().is_ok());
    }

    #[test]
    fn expectations() {
        assert!(Expect::Absent.holds(None) && !Expect::Absent.holds(Some(1)));
        assert!(Expect::Exists.holds(Some(1)) && !Expect::Exists.holds(None));
        assert!(Expect::Revision(1).holds(Some(1)));
        assert!(!Expect::Revision(1).holds(Some(2)) && !Expect::Revision(1).holds(None));
    }
}

//! Reading a watcher's backlog from the store, a bounded piece at a time.

use fjall::Readable;

use super::super::store::{Store, read_error};
use super::feed::{BATCH_BYTES, BATCH_CHANGES, change_bytes};
use super::layout;
use crate::error::Result;
use crate::key::Prefix;
use crate::kv::Change;

/// Most changes looked at in one piece, matching or not.
const PIECE_SEEN: usize = 20_000;

/// Most entries of a prefix that are listed and sorted at once; above that the bucket's changes are walked instead.
const LIST_ENTRIES: usize = 10_000;

/// Most bytes of such a list.
const LIST_BYTES: usize = 4 * 1024 * 1024;

/// What a watcher still needs.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) prefix: Prefix,
    /// It has seen everything up to here.
    pub(crate) position: u64,
    /// Deletions up to here tell it nothing, as it began with nothing.
    pub(crate) skip_deleted: u64,
    /// It wants the current entries first.
    pub(crate) list: bool,
}

/// A piece of a backlog.
pub(crate) struct Chunk {
    pub(crate) changes: Vec<Change>,
    /// Where to go on, or, when `done`, the revision of the state that was read.
    pub(crate) position: u64,
    /// Whether nothing follows.
    pub(crate) done: bool,
    last: u64,
    bytes: usize,
    seen: usize,
}

impl Chunk {
    /// An empty piece; `last` is a revision that the state read is known to have reached.
    pub(crate) fn new(last: u64) -> Self {
        Self { changes: Vec::new(), position: 0, done: false, last, bytes: 0, seen: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.changes.len() >= BATCH_CHANGES || self.bytes >= BATCH_BYTES || self.seen >= PIECE_SEEN
    }

    pub(crate) fn seen(&mut self, revision: u64) {
        self.position = revision;
        self.seen += 1;
    }

    pub(crate) fn push(&mut self, change: Change) {
        self.bytes += change_bytes(&change);
        self.changes.push(change);
    }

    pub(crate) fn partial(self) -> Self {
        self
    }

    pub(crate) fn whole(mut self) -> Self {
        self.done = true;
        self.position = self.position.max(self.last);
        self
    }
}

/// Reads a piece. `last` is the bucket's last visible revision, taken before the call.
pub(crate) fn scan(store: &Store, bucket: u32, last: u64, scan: &Scan) -> Result<Chunk> {
    let snapshot = store.snapshot();
    if scan.list
        && scan.position == 0
        && !scan.prefix.as_str().is_empty()
        && let Some(chunk) = list(store, &snapshot, bucket, last, &scan.prefix)?
    {
        return Ok(chunk);
    }
    let keyspace = store.keyspace(0);
    let mut chunk = Chunk::new(last);
    for guard in snapshot.range(keyspace, layout::change_keys(bucket, scan.position)) {
        if chunk.is_full() {
            return Ok(chunk.partial());
        }
        let (stored_key, stored) = guard.into_inner().map_err(read_error)?;
        let (revision, alive, key) = layout::decode_change(&stored_key, &stored)?;
        chunk.seen(revision);
        if !scan.prefix.matches(&key) || (!alive && revision <= scan.skip_deleted) {
            continue;
        }
        let value = if alive {
            let stored = snapshot.get(keyspace, layout::entry_key(bucket, &key)).map_err(read_error)?;
            let state = stored.map(|stored| layout::decode_state(stored.into())).transpose()?;
            state.and_then(|state| state.value)
        } else {
            None
        };
        chunk.push(Change { key, revision, value });
    }
    Ok(chunk.whole())
}

/// All entries of a prefix in revision order, or `None` when there are too many to sort.
fn list(
    store: &Store,
    snapshot: &fjall::Snapshot,
    bucket: u32,
    last: u64,
    prefix: &Prefix,
) -> Result<Option<Chunk>> {
    let keyspace = store.keyspace(0);
    let mut chunk = Chunk::new(last);
    for guard in snapshot.range(keyspace, layout::entry_keys(bucket, prefix)) {
        if chunk.changes.len() >= LIST_ENTRIES || chunk.bytes >= LIST_BYTES {
            return Ok(None);
        }
        let (stored_key, stored) = guard.into_inner().map_err(read_error)?;
        let state = layout::decode_state(stored.into())?;
        if state.value.is_some() {
            let key = layout::key_of_entry(&stored_key)?;
            chunk.push(Change { key, revision: state.revision, value: state.value });
        }
    }
    // The snapshot may be newer than `last`; its newest change says how much.
    if let Some(newest) = snapshot.range(keyspace, layout::change_keys(bucket, 0)).next_back() {
        let (stored_key, stored) = newest.into_inner().map_err(read_error)?;
        chunk.position = layout::decode_change(&stored_key, &stored)?.0;
    }
    chunk.changes.sort_unstable_by_key(|change| change.revision);
    Ok(Some(chunk.whole()))
}

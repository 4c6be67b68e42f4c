//! One fjall database: grouped writes, syncs, and what happens when one fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use super::failure::{Failure, Fault};
pub(crate) use super::ops::Ops;
use fjall::{Database, Keyspace, PersistMode, Readable};

use super::dir::DataDir;
use super::util::lock;
use crate::error::{Error, Result};

/// Fjall's smallest limit for all journals of a database.
const JOURNALS_BYTES: u64 = 256 * 1024 * 1024;

/// Threads per database for flushes and compactions: with two, a flush need not wait for a compaction.
const WORKERS: usize = 2;

/// How often, and how many times, a flush is looked for before a compaction.
const FLUSH_POLL: Duration = Duration::from_millis(10);
const FLUSH_POLLS: u32 = 1000;

/// Groups written and groups synced, counted.
#[derive(Default)]
struct Progress {
    written: u64,
    synced: u64,
}

/// One fjall database and its keyspaces.
pub(crate) struct Store {
    db: Database,
    keyspaces: Vec<Keyspace>,
    path: PathBuf,
    min_free: u64,
    failure: Failure,
    unsynced: Mutex<Progress>,
    became_unsynced: Condvar,
    /// Set once a sync failed on this store, so that no later sync pretends.
    broken: AtomicBool,
    syncs: AtomicU64,
    sync_ns: AtomicU64,
    bytes: AtomicU64,
    /// Keeps the directory's lock for as long as the store is open.
    guard: OnceLock<Arc<DataDir>>,
}

/// Settings of one store.
pub(crate) struct StoreOptions {
    pub(crate) cache_bytes: u64,
    pub(crate) min_free: u64,
    pub(crate) keyspaces: Vec<(&'static str, fjall::KeyspaceCreateOptions)>,
}

fn open_error(path: &Path, error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(source) => Error::io(format!("opening the store {}", path.display()), source),
        fjall::Error::Locked => Error::Busy { dir: path.to_owned() },
        other => {
            Error::Damaged { what: "the store".into(), path: path.to_owned(), source: Some(Box::new(other)) }
        }
    }
}

/// A read that failed. The caller's request did not happen.
pub(crate) fn read_error(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(source) => Error::io("reading the store", source),
        other => Error::Damaged {
            what: "the store".into(),
            path: PathBuf::from("(while reading)"),
            source: Some(Box::new(other)),
        },
    }
}

impl Store {
    pub(crate) fn open(path: &Path, options: StoreOptions, failure: Failure) -> Result<Self> {
        // Fjall asserts on some kinds of damage instead of returning an error.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = Database::builder(path)
                .cache_size(options.cache_bytes)
                .worker_threads(WORKERS)
                .max_journaling_size(JOURNALS_BYTES)
                .manual_journal_persist(true)
                .open()?;
            let mut keyspaces = Vec::new();
            for (name, keyspace) in options.keyspaces {
                keyspaces.push(db.keyspace(name, || keyspace)?);
            }
            Ok((db, keyspaces))
        }));
        let (db, keyspaces) = match opened {
            Ok(opened) => opened.map_err(|e| open_error(path, e))?,
            Err(_) => {
                return Err(Error::Damaged { what: "the store".into(), path: path.to_owned(), source: None });
            }
        };
        Ok(Self {
            db,
            keyspaces,
            path: path.to_owned(),
            min_free: options.min_free,
            failure,
            unsynced: Mutex::default(),
            became_unsynced: Condvar::new(),
            broken: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            sync_ns: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            guard: OnceLock::new(),
        })
    }

    /// Keeps the directory for as long as the store is open.
    pub(crate) fn hold(&self, dir: Arc<DataDir>) {
        // Set once, right after opening.
        let _ = self.guard.set(dir);
    }

    pub(crate) fn keyspace(&self, index: u8) -> &Keyspace {
        &self.keyspaces[usize::from(index)]
    }

    pub(crate) fn snapshot(&self) -> fjall::Snapshot {
        self.db.snapshot()
    }

    /// Reads what is visible: a group is seen whole, also over several reads.
    pub(crate) fn get_visible(&self, keyspace: u8, key: &[u8]) -> Result<Option<fjall::Slice>> {
        self.db.snapshot().get(self.keyspace(keyspace), key).map_err(read_error)
    }

    /// Reads the newest, for the writer alone: beside it, a group that is just being applied would be seen in part.
    pub(crate) fn get(&self, keyspace: u8, key: &[u8]) -> Result<Option<fjall::Slice>> {
        self.keyspace(keyspace).get(key).map_err(read_error)
    }

    #[cfg(test)]
    pub(crate) fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Syncs, time in them (ns), and bytes written.
    pub(crate) fn counters(&self) -> (u64, u64, u64) {
        (
            self.syncs.load(Ordering::Relaxed),
            self.sync_ns.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// Refuses a write while the disk is nearly full. The store cannot go on once a write of its own fails, so it must
    /// never come to that; what only forgets may pass longer, as it is what helps.
    pub(crate) fn check_room(&self, bytes: u64, forgets: bool) -> Result<()> {
        let Ok(fs) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let free = fs.f_bavail.saturating_mul(fs.f_frsize);
        let least = if forgets { self.min_free / 4 } else { self.min_free };
        // What is in memory has still to go to tables, and what is written now goes to the journal and to a table.
        let written = if forgets { 0 } else { self.db.write_buffer_size() };
        let pending = written.saturating_add(bytes.saturating_mul(2));
        if self.min_free > 0 && free < least.saturating_add(pending) {
            return Err(Error::Unavailable {
                why: format!(
                    "the disk of {} has only {free} bytes free; free some space",
                    self.path.display()
                ),
            });
        }
        Ok(())
    }

    /// Writes a group, all or nothing; with `sync`, everything written so far is on disk when it returns. One sync.
    pub(crate) fn commit(&self, ops: Ops, sync: bool) -> Result<(), Fault> {
        let sync = sync && (!ops.is_empty() || self.is_unsynced());
        if ops.is_empty() && !sync {
            return Ok(());
        }
        if let Err(error) = self.failure.check() {
            return Err(Fault { why: error.to_string(), refused: true });
        }
        self.bytes.fetch_add(ops.bytes(), Ordering::Relaxed);
        let started = Instant::now();
        let result = if ops.is_empty() {
            self.db.persist(PersistMode::SyncData)
        } else {
            let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
            let mut batch = self.db.batch().durability(Some(mode));
            for ((keyspace, key), value) in ops.0 {
                match value {
                    Some(value) => batch.insert(self.keyspace(keyspace), key, value),
                    None => batch.remove(self.keyspace(keyspace), key),
                }
            }
            batch.commit()
        };
        match result {
            Ok(()) => {
                let mut progress = lock(&self.unsynced);
                progress.written += 1;
                if sync {
                    progress.synced = progress.written;
                }
                drop(progress);
                if sync {
                    self.syncs.fetch_add(1, Ordering::Relaxed);
                    self.sync_ns.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
                } else {
                    self.became_unsynced.notify_all();
                }
                Ok(())
            }
            Err(error) => {
                // A poisoned store refuses before it writes; any other error may come after the bytes left.
                let refused = matches!(error, fjall::Error::Poisoned);
                Err(self.fail("writing", &error, refused))
            }
        }
    }

    fn fail(&self, what: &str, error: &fjall::Error, refused: bool) -> Fault {
        self.broken.store(true, Ordering::Release);
        let why = format!("{what} to {} failed: {error}", self.path.display());
        self.failure.set(why.clone());
        Fault { why, refused }
    }

    /// Syncs what was written without a sync.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        if self.broken.load(Ordering::Acquire) {
            return Err(Fault { why: "an earlier write failed".into(), refused: true });
        }
        let written = {
            let progress = lock(&self.unsynced);
            if progress.synced >= progress.written {
                return Ok(());
            }
            progress.written
        };
        let started = Instant::now();
        self.db.persist(PersistMode::SyncData).map_err(|e| self.fail("syncing", &e, false))?;
        let mut progress = lock(&self.unsynced);
        progress.synced = progress.synced.max(written);
        drop(progress);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_ns.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits up to `time` until there is something to sync. Returns whether there is.
    pub(crate) fn wait_unsynced(&self, time: Duration) -> bool {
        let progress = lock(&self.unsynced);
        if progress.synced < progress.written {
            return true;
        }
        let progress =
            self.became_unsynced.wait_timeout(progress, time).unwrap_or_else(PoisonError::into_inner).0;
        progress.synced < progress.written
    }

    fn is_unsynced(&self) -> bool {
        let progress = lock(&self.unsynced);
        progress.synced < progress.written
    }

    /// Wakes whoever waits in [`Store::wait_unsynced`], to let it stop.
    pub(crate) fn wake(&self) {
        self.became_unsynced.notify_all();
    }

    /// Gives back the space of deleted values. `marker` is a key that nothing else uses.
    pub(crate) fn compact(&self, keyspace: u8, marker: &[u8]) -> Result<()> {
        // The first pass counts what is stale in each file of values, the second drops or rewrites those files. Both
        // read and write keys only, and what they made superfluous is removed by the flush after them.
        for _ in 0..2 {
            self.flush(keyspace, marker)?;
            self.keyspace(keyspace).major_compact().map_err(read_error)?;
        }
        self.flush(keyspace, marker)
    }

    /// Writes what is in memory to tables. The store skips that when there is nothing, hence the marker.
    fn flush(&self, keyspace: u8, marker: &[u8]) -> Result<()> {
        let mut ops = Ops::default();
        ops.remove(keyspace, marker.to_vec());
        self.commit(ops, false).map_err(|fault| fault.error())?;
        let keyspace = self.keyspace(keyspace);
        keyspace.rotate_memtable().map_err(read_error)?;
        // Bounded, as a failed worker would never get there.
        for _ in 0..FLUSH_POLLS {
            if keyspace.sealed_memtable_count() == 0 {
                return Ok(());
            }
            std::thread::sleep(FLUSH_POLL);
        }
        Err(Error::Unavailable { why: "the store is busy".into() })
    }

    /// Notices a store that failed in the background, where a flush or compaction could not write.
    pub(crate) fn check_health(&self) {
        if !self.broken.load(Ordering::Acquire)
            && let Err(error) = self.db.persist(PersistMode::Buffer)
        {
            self.fail("background work on the store", &error, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, min_free: u64) -> Store {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            min_free,
            keyspaces: vec![("a", fjall::KeyspaceCreateOptions::default())],
        };
        Store::open(path, options, Failure::default()).expect("open")
    }

    #[test]
    fn the_last_write_of_a_group_counts() {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path(), 0);
        let mut ops = Ops::default();
        ops.put(0, b"k".to_vec(), b"1".to_vec());
        ops.remove(0, b"k".to_vec());
        ops.put(0, b"k".to_vec(), b"2".to_vec());
        ops.put(0, b"gone".to_vec(), b"2".to_vec());
        ops.remove(0, b"gone".to_vec());
        store.commit(ops, true).expect("commit");
        assert_eq!(store.get(0, b"k").expect("get").as_deref(), Some(&b"2"[..]));
        assert_eq!(store.get(0, b"gone").expect("get"), None);
        assert_eq!(store.counters().0, 1);
    }

    #[test]
    fn syncs_only_what_is_unsynced() {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path(), 0);
        store.commit(Ops::default(), true).expect("nothing to do");
        assert_eq!(store.counters().0, 0);
        let mut ops = Ops::default();
        ops.put(0, b"k".to_vec(), b"1".to_vec());
        store.commit(ops, false).expect("commit");
        assert!(store.wait_unsynced(Duration::ZERO));
        store.commit(Ops::default(), true).expect("an empty group syncs what came before");
        store.sync().expect("sync");
        assert_eq!(store.counters().0, 1);
    }

    #[test]
    fn a_nearly_full_disk_is_refused_before_writing() {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path(), u64::MAX / 2);
        assert!(matches!(store.check_room(1, false), Err(Error::Unavailable { .. })));
        assert!(open(&dir.path().join("other"), 1).check_room(1, false).is_ok());
    }

    #[test]
    fn a_failure_refuses_what_follows() {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path(), 0);
        store.failure().set("test");
        let mut ops = Ops::default();
        ops.put(0, b"k".to_vec(), b"1".to_vec());
        let fault = store.commit(ops, true).expect_err("refused");
        assert!(matches!(fault.error(), Error::Unavailable { .. }));
        assert!(store.failure().token().is_cancelled());
    }
}

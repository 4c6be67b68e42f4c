//! The data directory: one process at a time, a known format, and which history it holds.
//!
//! `LOCK` is held while the engine is open. `VERSION` names the format, the epoch and whether the directory is whole.
//! `STATE` tells a clean end from a crash, and the boot it happened in.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::util::random_name;
use crate::error::{Error, Result};

/// The format that this release writes.
pub(crate) const FORMAT: u32 = 1;

/// Letters of an epoch: 100 random bits.
const EPOCH_LENGTH: usize = 20;

const LOCK: &str = "LOCK";
const VERSION: &str = "VERSION";
const STATE: &str = "STATE";
/// Where key-value batches are stored.
pub(crate) const KV: &str = "kv";
/// Where logs are stored.
pub(crate) const LOG: &str = "log";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    /// The stores are being made; nothing was answered yet.
    Creating,
    /// A restore has not finished.
    Restoring,
    /// Whole.
    Ready,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Version {
    format: u32,
    epoch: String,
    stage: Stage,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    boot: String,
    clean: bool,
}

/// An open data directory. The lock goes when it is dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    version: Version,
    _lock: File,
}

fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{what} {}", path.display());
    move |source| Error::Io { what, source }
}

fn damaged(what: &str, path: &Path) -> Error {
    Error::Damaged { what: what.to_owned(), path: path.to_owned(), source: None }
}

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io("syncing", path))
}

/// Writes a small file so that it is there whole or not at all.
fn write_file(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = dir.join(name);
    let fresh = dir.join(format!("{name}.new"));
    let text = serde_json::to_vec(value).map_err(|e| Error::io("encoding a state file", e.into()))?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(io("writing", &path))?;
    sync_dir(dir)
}

fn read_file<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("reading", path)(e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| Error::Damaged {
        what: what.to_owned(),
        path: path.to_owned(),
        source: Some(Box::new(e)),
    })
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".into(), |id| id.trim().into())
}

/// Makes the directory where needed and takes its lock.
fn take_lock(dir: &Path) -> Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("creating", dir))?;
    let path = dir.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io("opening", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(io("locking", &path)(e)),
    }
}

impl DataDir {
    /// Opens the directory, making it where needed, and decides which epoch it continues.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let lock = take_lock(dir)?;
        let path = dir.join(VERSION);
        let version = match read_version(&path)? {
            None if dir.join(KV).exists() || dir.join(LOG).exists() => {
                return Err(damaged("the version file is missing: the data directory", dir));
            }
            None => Self::create(dir, Stage::Creating)?,
            Some(version) if version.stage == Stage::Creating => {
                // A crash during the very first start; nothing was ever answered.
                remove_stores(dir)?;
                version
            }
            Some(version) if version.stage == Stage::Restoring => {
                return Err(damaged("a restore did not finish: the data directory", dir));
            }
            Some(version) => {
                for store in [KV, LOG] {
                    if !dir.join(store).is_dir() {
                        return Err(damaged("a store is missing: the data directory", &dir.join(store)));
                    }
                }
                version
            }
        };
        let mut opened = Self { path: dir.to_owned(), version, _lock: lock };
        opened.note_start()?;
        Ok(opened)
    }

    /// Prepares an empty directory for a restore, under a new epoch.
    pub(crate) fn begin_restore(dir: &Path) -> Result<Self> {
        let lock = take_lock(dir)?;
        let others = fs::read_dir(dir).map_err(io("reading", dir))?;
        for entry in others {
            let name = entry.map_err(io("reading", dir))?.file_name();
            if name != LOCK {
                return Err(Error::invalid(format!(
                    "{} is not empty ({} is there); restore into an empty directory",
                    dir.display(),
                    name.display()
                )));
            }
        }
        let version = Self::create(dir, Stage::Restoring)?;
        Ok(Self { path: dir.to_owned(), version, _lock: lock })
    }

    fn create(dir: &Path, stage: Stage) -> Result<Version> {
        let version = Version { format: FORMAT, epoch: random_name(EPOCH_LENGTH)?, stage };
        write_file(dir, VERSION, &version)?;
        Ok(version)
    }

    /// Everything is in place.
    pub(crate) fn set_ready(&mut self) -> Result<()> {
        if self.version.stage != Stage::Ready {
            self.version.stage = Stage::Ready;
            write_file(&self.path, VERSION, &self.version)?;
        }
        Ok(())
    }

    /// After a crash of the whole machine, writes that were answered but not yet synced may be gone: that is another
    /// history, so it gets another epoch. A crash of the process alone loses nothing that was answered.
    fn note_start(&mut self) -> Result<()> {
        let boot = boot_id();
        if self.version.stage == Stage::Ready {
            let before: State = read_file(&self.path.join(STATE), "the state file")?.unwrap_or_default();
            if !before.clean && before.boot != boot {
                self.version.epoch = random_name(EPOCH_LENGTH)?;
                tracing::warn!(
                    epoch = self.version.epoch,
                    "the machine went down without a clean stop: new epoch"
                );
                write_file(&self.path, VERSION, &self.version)?;
            }
        }
        write_file(&self.path, STATE, &State { boot, clean: false })
    }

    /// Everything was synced and nothing follows.
    pub(crate) fn note_clean_end(&self) -> Result<()> {
        write_file(&self.path, STATE, &State { boot: boot_id(), clean: true })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn epoch(&self) -> &str {
        &self.version.epoch
    }
}

fn read_version(path: &Path) -> Result<Option<Version>> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    let what = "the version file";
    let Some(found) = read_file::<OnlyFormat>(path, what)? else { return Ok(None) };
    if found.format > FORMAT {
        return Err(Error::NewerVersion {
            what: format!("the data directory ({})", path.display()),
            found: found.format,
            supported: FORMAT,
        });
    }
    let version: Option<Version> = read_file(path, what)?;
    let plain = |epoch: &str| {
        !epoch.is_empty()
            && epoch.len() <= 32
            && epoch.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    match version {
        Some(version) if !plain(&version.epoch) => Err(damaged(what, path)),
        version => Ok(version),
    }
}

fn remove_stores(dir: &Path) -> Result<()> {
    for store in [KV, LOG] {
        let path = dir.join(store);
        match fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io("removing", &path)(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_ready(dir: &Path) -> DataDir {
        let mut opened = DataDir::open(dir).expect("open");
        for store in [KV, LOG] {
            fs::create_dir_all(dir.join(store)).expect("store");
        }
        opened.set_ready().expect("ready");
        opened
    }

    #[test]
    fn one_at_a_time_and_the_epoch_stays() {
        let dir = tempfile::tempdir().expect("dir");
        let first = open_ready(dir.path());
        let epoch = first.epoch().to_owned();
        assert!(matches!(DataDir::open(dir.path()), Err(Error::Busy { .. })));
        drop(first);
        assert_eq!(DataDir::open(dir.path()).expect("open").epoch(), epoch);
    }

    #[test]
    fn a_machine_crash_changes_the_epoch_and_a_clean_reboot_does_not() {
        let dir = tempfile::tempdir().expect("dir");
        let first = open_ready(dir.path());
        let epoch = first.epoch().to_owned();
        first.note_clean_end().expect("clean");
        drop(first);
        write_file(dir.path(), STATE, &State { boot: "another".into(), clean: true }).expect("state");
        assert_eq!(DataDir::open(dir.path()).expect("open").epoch(), epoch);
        write_file(dir.path(), STATE, &State { boot: "another".into(), clean: false }).expect("state");
        let after = DataDir::open(dir.path()).expect("open").epoch().to_owned();
        assert_ne!(after, epoch);
        assert_eq!(DataDir::open(dir.path()).expect("open").epoch(), after);
    }

    #[test]
    fn says_what_is_wrong() {
        let dir = tempfile::tempdir().expect("dir");
        drop(open_ready(dir.path()));
        let version = dir.path().join(VERSION);
        let good = fs::read(&version).expect("read");
        fs::write(&version, r#"{"format":9,"more":1}"#).expect("write");
        assert!(matches!(DataDir::open(dir.path()), Err(Error::NewerVersion { found: 9, .. })));
        fs::write(&version, "junk").expect("write");
        assert!(matches!(DataDir::open(dir.path()), Err(Error::Damaged { .. })));
        fs::write(&version, r#"{"format":1,"epoch":"NO","stage":"ready"}"#).expect("write");
        assert!(matches!(DataDir::open(dir.path()), Err(Error::Damaged { .. })));
        fs::remove_file(&version).expect("remove");
        assert!(matches!(DataDir::open(dir.path()), Err(Error::Damaged { .. })));
        fs::write(&version, good).expect("write");
        fs::remove_dir(dir.path().join(LOG)).expect("remove");
        assert!(matches!(DataDir::open(dir.path()), Err(Error::Damaged { .. })));
    }

    #[test]
    fn an_unfinished_start_begins_again_and_an_unfinished_restore_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        drop(DataDir::open(dir.path()).expect("creating"));
        fs::create_dir_all(dir.path().join(KV).join("half")).expect("half");
        drop(DataDir::open(dir.path()).expect("again"));
        assert!(!dir.path().join(KV).exists());

        let other = tempfile::tempdir().expect("dir");
        drop(DataDir::begin_restore(other.path()).expect("restore"));
        assert!(matches!(DataDir::open(other.path()), Err(Error::Damaged { .. })));
        assert!(matches!(DataDir::begin_restore(other.path()), Err(Error::Invalid { .. })));
    }
}

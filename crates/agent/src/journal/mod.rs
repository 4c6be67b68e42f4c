//! What a host has promised: every job it accepted is on disk before it says so.
//!
//! [`mod@file`] is the form on disk and its recovery, [`log`] the one thread that writes it and syncs once for all that
//! wait, [`record`] what is written, [`slots`] the preallocated places for outcomes.

pub mod file;
mod index;
pub mod log;
pub mod record;
pub mod slots;

pub use log::{Journal, Opened};
pub use record::{Entry, Record};

use std::path::{Path, PathBuf};

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk is full. Nothing was written.
    #[error("the disk that holds {path} is full; free some space")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused something.
    #[error("cannot {action} {path}; check the disk and the agent's rights on its data directory")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's words.
        #[source]
        source: std::io::Error,
    },
    /// What was once on disk is no longer readable: not a torn end, but damage.
    #[error("{path} is damaged at byte {at}; it has to be set aside and a new journal begun")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// It was written by a newer agent.
    #[error("{path} was written by a newer agent; install that version again")]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// An earlier write or sync failed, so nobody knows what is on disk: only opening it again tells.
    #[error("the journal failed before; restart the agent")]
    Failed,
    /// Too many requests wait for the disk.
    #[error("too many requests wait for the disk; try again")]
    Busy,
    /// All slots are taken.
    #[error("the host already has {limit} jobs that were not released; release some or raise max_jobs")]
    NoSlot {
        /// The limit.
        limit: u32,
    },
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge => Self::DiskFull { path: path.to_path_buf() },
            _ => Self::Io { action, path: path.to_path_buf(), source },
        }
    }
}

/// `[a-z0-9]{16}`, so that it can be the epoch of a cursor.
fn random_incarnation(path: &Path) -> Result<[u8; 16], JournalError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        JournalError::io("get randomness for", path)(std::io::Error::other(error.to_string()))
    })?;
    Ok(bytes.map(|byte| LETTERS[usize::from(byte % 32)]))
}

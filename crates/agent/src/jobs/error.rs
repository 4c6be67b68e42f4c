//! Why the job manager cannot start, and how its failures cross the wire.

use std::path::{Path, PathBuf};

use datacentered_proto::Error;

use crate::boot::BootError;
use crate::journal::JournalError;

/// Why [`super::Jobs::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// Another agent works in the directory.
    #[error("another agent already works in {path}; stop it, or give this one a data directory of its own")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be made or read.
    #[error("cannot {action} {path}; check the disk and the agent's rights on its data directory")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's words.
        #[source]
        source: std::io::Error,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The boot's identity.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The agent's own user cannot be looked up.
    #[error("cannot look up the agent's own user: {0}; check the host's user database")]
    Identity(String),
}

impl JobsError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// How a failure of the journal is told to the hub.
pub(super) fn wire(error: &JournalError) -> Error {
    match error {
        JournalError::NoSlot { .. } => Error::limited(error.to_string()).with_retry_after_ms(1000),
        JournalError::Busy => Error::limited(error.to_string()).with_retry_after_ms(100),
        // Written but perhaps not on disk: the same offer again, after a restart, finds out.
        JournalError::Failed => Error::indeterminate(error.to_string()),
        JournalError::DiskFull { .. }
        | JournalError::Io { .. }
        | JournalError::Damaged { .. }
        | JournalError::Newer { .. } => Error::unavailable(error.to_string()),
    }
}

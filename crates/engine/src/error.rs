//! What can go wrong, and what to do next.

use std::path::PathBuf;

use crate::key::Key;
use crate::kv::Entry;

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error of the engine. The text says what to do next; the cause is in `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A check of a batch did not hold. Nothing was written.
    #[error("`{key}` is not as expected; read it again and decide anew")]
    Conflict {
        /// The key whose check failed (the first one, in batch order).
        key: Key,
        /// What is there now.
        current: Option<Entry>,
    },
    /// What was asked for is no longer kept.
    #[error("the position is no longer kept; start again from {oldest}")]
    Gap {
        /// The oldest position that can still be served: a log offset, or a revision to watch after.
        oldest: u64,
    },
    /// An append would leave a hole, or starts inside what is already there. Nothing was written.
    #[error("the append does not start at the end of the log; continue at {end}")]
    Hole {
        /// Where the log ends.
        end: u64,
    },
    /// A named limit is reached. It did not happen.
    #[error("the limit `{what}` is reached; wait and repeat, or raise it")]
    Limited {
        /// The name of the limit.
        what: &'static str,
    },
    /// The request is larger than the engine takes. It did not happen.
    #[error("{what} is {size}, the limit is {max}; split it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit, in the same unit.
        max: u64,
    },
    /// The request makes no sense. It did not happen.
    #[error("invalid request: {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// It did not happen; it may succeed later.
    #[error("the engine cannot do this now ({why}); nothing was changed, repeat later")]
    Unavailable {
        /// Why not.
        why: String,
    },
    /// It may or may not have happened.
    #[error("the outcome is not known ({why}); read the state again before repeating")]
    Indeterminate {
        /// Why not.
        why: String,
    },
    /// The engine is shutting down or has shut down. It did not happen.
    #[error("the engine is closed; open it again")]
    Closed,
    /// There is no such bucket or log.
    #[error("there is no {what}; create it first")]
    NotFound {
        /// What is missing.
        what: String,
    },
    /// Another process holds the data directory.
    #[error("the data directory {dir} is in use by another process; stop that one first")]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// Data was written by a newer release.
    #[error("{what} has format version {found}, this release reads up to {supported}; use a newer release")]
    NewerVersion {
        /// What carries the version.
        what: String,
        /// The version found.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// Data on disk is not what was written.
    #[error("{what} ({path}) is damaged; restore a backup into an empty directory")]
    Damaged {
        /// What is damaged.
        what: String,
        /// Where it is.
        path: PathBuf,
        /// What the reader said, where there is a reader.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The operating system refused something.
    #[error("{what} failed; see the cause")]
    Io {
        /// What was attempted.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// An [`Error::Invalid`] with this text.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// An [`Error::Io`] with this text.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Whether repeating the same call later may succeed, without reading anything first.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Limited { .. } | Self::Unavailable { .. })
    }
}

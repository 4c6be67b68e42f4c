//! What happens when a write to disk fails.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// Whether anything failed for good, shared by both stores.
#[derive(Clone, Default)]
pub(crate) struct Failure {
    token: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Failure {
    pub(crate) fn set(&self, why: impl Into<String>) {
        let why = why.into();
        if self.why.set(why.clone()).is_ok() {
            tracing::error!(why, "the engine failed; nothing is written any more");
        }
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Refuses once anything failed.
    pub(crate) fn check(&self) -> Result<()> {
        match self.why.get() {
            None => Ok(()),
            Some(why) => {
                Err(Error::Unavailable { why: format!("the engine failed before: {why}; restart it") })
            }
        }
    }
}

/// How a group ended. `Some` is why; whoever was in it gets [`Fault::error`].
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(super) why: String,
    /// It certainly did not happen.
    pub(super) refused: bool,
}

impl Fault {
    pub(crate) fn error(&self) -> Error {
        let why = self.why.clone();
        if self.refused { Error::Unavailable { why } } else { Error::Indeterminate { why } }
    }
}

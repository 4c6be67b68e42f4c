//! What can go wrong between a client and its hub.

use std::time::Duration;

use datacentered_proto::Code;

/// A failure of a client's. Clones share nothing; the same failure may be told to many callers.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// No hub could be reached. The first connection fails at once.
    #[error("{}", unreachable(attempts))]
    Unreachable {
        /// Each hub that was tried, and why it was not it.
        attempts: Vec<Attempt>,
    },
    /// The other side does not have the key that is trusted. It may be a hub with a new key, or someone in between.
    #[error("{url} has the key {presented}, but {trusted} is trusted")]
    UntrustedKey {
        /// The hub's URL.
        url: String,
        /// The fingerprint of the key that it has.
        presented: String,
        /// The fingerprint that is trusted.
        trusted: String,
    },
    /// Nothing says which key the hub has.
    #[error("the key of {url} is not known, so it cannot be told from another server")]
    UnknownKey {
        /// The hub's URL.
        url: String,
    },
    /// The link was lost and could not be made again in time.
    #[error("the connection to the hub was lost and did not come back within {} s: {last}", after.as_secs())]
    GaveUp {
        /// How long it was tried.
        after: Duration,
        /// Why the last attempt failed.
        last: String,
    },
    /// The hub answered with an error.
    #[error("{error}")]
    Refused {
        /// The operation.
        operation: String,
        /// What the hub said.
        error: datacentered_proto::Error,
    },
    /// Input that the hub says it lacks is no longer held here.
    #[error(
        "the hub lost standard input from byte {missing} on, which is no longer held here: it cannot be resumed"
    )]
    InputLost {
        /// The first byte that is missing.
        missing: u64,
    },
    /// The configuration cannot work.
    #[error("{0}")]
    Invalid(String),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// One hub that could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The hub's URL.
    pub url: String,
    /// Why it could not be reached.
    pub reason: String,
}

impl Error {
    /// The hub's answer to an operation.
    pub(crate) fn refused(operation: &str, error: datacentered_proto::Error) -> Self {
        Self::Refused { operation: operation.to_owned(), error }
    }

    /// The code of the hub's answer, where it was one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { error, .. } => Some(error.code),
            _ => None,
        }
    }
}

fn unreachable(attempts: &[Attempt]) -> String {
    let tried: Vec<String> =
        attempts.iter().map(|attempt| format!("{}: {}", attempt.url, attempt.reason)).collect();
    format!("cannot reach the hub at {}", tried.join("; nor at "))
}

//! Why the agent ended, with the exit code that the command line promises.

use datacentered_link::tls::TlsError;

use crate::config::ConfigError;
use crate::hub_link::EnrolError;
use crate::identity::{IdentityError, TokenSourceError};
use crate::jobs::JobsError;

/// Why the agent could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenSourceError),
    /// The address of a hub cannot be used.
    #[error("`{url}` is no address of a hub: {why}; give it as HOST:PORT or wss://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The enrolment failed.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The host's certificate and key do not do for TLS.
    #[error("the host's certificate and key cannot be used; remove the `agent` directory and join again")]
    Tls(#[from] TlsError),
    /// The journal cannot be used.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// The journal failed while the agent ran.
    #[error(
        "the journal could not be written, so the agent takes no more jobs and ended; free space or repair the disk that \
         holds its data directory (systemd starts the agent anew; commands go on)"
    )]
    JournalFailed,
    /// The system did not give what the agent needs to run.
    #[error("the agent cannot {what}")]
    System {
        /// What it cannot do.
        what: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl RunError {
    /// The exit code: 2 where a person has to correct something on this host, 3 where the hub was not reachable, 4 where it
    /// refused, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Identity(_) | Self::Token(_) | Self::Url { .. } => 2,
            Self::Enrol(error) => error.exit_code(),
            Self::Tls(_) | Self::Jobs(_) | Self::JournalFailed | Self::System { .. } => 1,
        }
    }
}

//! Where the hub is, who we are, and what we trust.

use std::time::Duration;

use datacentered_link::Limits;
use datacentered_link::clock::Clock;
use datacentered_link::tls::Fingerprint;
use datacentered_link::url::HubUrl;

/// How long a lost link is tried again, unless configured otherwise.
pub(crate) const DEFAULT_RECONNECT_TIMEOUT: Duration = Duration::from_mins(10);

/// How to reach a hub.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where it is; several are tried in turn.
    pub urls: Vec<HubUrl>,
    /// An API or session token. None on the hub's local socket, and to log in.
    pub token: Option<Secret>,
    /// Which hub is the right one.
    pub trust: Trust,
    /// Limits of the link.
    pub limits: Limits,
    /// How long a link that was up is tried again.
    pub reconnect_timeout: Duration,
    /// Program name and version, for the hub's listings.
    pub program: String,
    /// The source of time and of fresh ids.
    pub clock: Clock,
}

impl ClientConfig {
    /// For the local socket of a hub, or a plain loopback address: nothing is trusted over TLS yet.
    pub fn new(urls: Vec<HubUrl>) -> Self {
        Self {
            urls,
            token: None,
            trust: Trust::Nothing,
            limits: Limits::default(),
            reconnect_timeout: DEFAULT_RECONNECT_TIMEOUT,
            program: concat!("datacentered-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            clock: Clock::system(),
        }
    }
}

/// Which hub is the right one, over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// None is: only local sockets and plain loopback addresses can be reached.
    Nothing,
    /// The one whose web key has this fingerprint. Names and dates do not matter.
    Pin(Fingerprint),
}

/// A text that is not shown when it is printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(...)")
    }
}

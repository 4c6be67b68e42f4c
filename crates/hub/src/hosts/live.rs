//! The links that are up, by host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datacentered_link::Link;
use datacentered_proto::HostId;
use datacentered_proto::ops::host::LinkQuality;

use crate::sessions::Session;

/// One host's link.
#[derive(Clone, Debug)]
pub struct Live {
    /// The link.
    pub link: Link,
    /// Its session.
    pub session: Arc<Session>,
    /// The journal behind it.
    pub incarnation: Arc<str>,
    /// The host's clock minus the hub's, in milliseconds, as of hello.
    pub clock_skew_ms: i64,
}

/// Every link that is up.
#[derive(Debug, Default)]
pub struct LiveHosts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    up: HashMap<HostId, Live>,
    losses: HashMap<HostId, u32>,
}

impl LiveHosts {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Plain maps: whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host's link.
    pub fn get(&self, host: HostId) -> Option<Live> {
        self.state().up.get(&host).cloned()
    }

    /// Whether a host's link is up.
    pub fn is_online(&self, host: HostId) -> bool {
        self.state().up.contains_key(&host)
    }

    /// How many are up.
    pub fn count(&self) -> usize {
        self.state().up.len()
    }

    /// A newer link takes an older one's place; the older one is returned.
    pub fn insert(&self, host: HostId, live: Live) -> Option<Live> {
        self.state().up.insert(host, live)
    }

    /// Takes a link away, unless a newer one has its place or it was not there.
    pub fn remove(&self, host: HostId, link: &Link) -> Option<Live> {
        let mut state = self.state();
        if state.up.get(&host).is_none_or(|live| live.link.id() != link.id()) {
            return None;
        }
        *state.losses.entry(host).or_default() += 1;
        state.up.remove(&host)
    }

    /// Forgets a host that left the registry.
    pub fn forget(&self, host: HostId) -> Option<Live> {
        let mut state = self.state();
        state.losses.remove(&host);
        state.up.remove(&host)
    }

    /// How good a host's link is.
    pub fn quality(&self, host: HostId) -> Option<LinkQuality> {
        let state = self.state();
        let live = state.up.get(&host)?;
        let quality = live.link.quality();
        Some(LinkQuality {
            rtt_us: quality.rtt.map_or(0, |rtt| rtt.as_micros() as u64),
            clock_skew_ms: live.clock_skew_ms,
            peer: live.session.peer.to_string(),
            losses: state.losses.get(&host).copied().unwrap_or(0),
        })
    }
}

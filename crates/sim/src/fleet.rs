//! A fleet of simulated hosts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datacentered_agent_lib::identity::JoinToken;
use datacentered_link::Limits;
use datacentered_link::clock::Clock;
use datacentered_link::url::HubUrl;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::dial::{Dialler, source_of};
use crate::enrol::{EnrolError, Wanted, enrol};
use crate::facts;
use crate::fault::{Fault, Faults};
use crate::host::{Host, Shared};
use crate::lie::LIE;
use crate::nofile::{self, TooFewFiles};
use crate::stats::{Snapshot, Spread, Stats, count};

/// Hosts that join at the same time.
const JOINING: usize = 16;

/// How long links that are cut may take to end.
const CUT_WITHIN: Duration = Duration::from_secs(5);

/// How often a fleet that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What every simulated command does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// How long it runs.
    pub runs_for: Duration,
    /// How much it prints, in bytes.
    pub output_bytes: u64,
    /// How it ends.
    pub exit_code: i32,
}

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The hub, over TLS.
    pub hub: HubUrl,
    /// Tokens that let all hosts join together; several take turns, so that fewer hosts wait for one.
    pub tokens: Vec<JoinToken>,
    /// How many hosts.
    pub hosts: usize,
    /// What their names begin with.
    pub prefix: String,
    /// The labels of each.
    pub labels: BTreeMap<String, String>,
    /// Where everything that is drawn comes from.
    pub seed: u64,
    /// What goes wrong on a host that has faults.
    pub faults: Vec<Fault>,
    /// How many hosts of a hundred have them.
    pub faulty_percent: u8,
    /// What commands do.
    pub script: Script,
    /// Limits of each link.
    pub limits: Limits,
}

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Nothing to join with.
    #[error("a fleet needs at least one join token")]
    NoToken,
    /// The exit code of lies.
    #[error("exit code {LIE} is kept for what lying hosts say; take another one")]
    ExitCode,
    /// A link needs TLS: that is who a host is.
    #[error("hosts reach a hub over TLS only; name it as wss://HOST:PORT")]
    NotTls,
    /// Too many links.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// A host could not join.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
}

/// Hosts that are connected, or on their way. Dropped, it breaks all links; [`Self::stop`] ends them in good order.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    names: Vec<String>,
    faulty: Vec<bool>,
    /// How many hosts break their links.
    breaking: usize,
    _stop_on_drop: DropGuard,
}

impl Fleet {
    /// Makes the hosts, has them join, and begins to connect them. Returns when all have joined.
    pub async fn start(config: FleetConfig) -> Result<Self, SimError> {
        if config.tokens.is_empty() {
            return Err(SimError::NoToken);
        }
        if config.script.exit_code == LIE {
            return Err(SimError::ExitCode);
        }
        if !config.hub.is_tls() {
            return Err(SimError::NotTls);
        }
        nofile::make_room(config.hosts)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            stats: Stats::default(),
            board: crate::board::Board::default(),
            script: config.script.clone(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            cut: tokio::sync::Notify::new(),
            held: tokio::sync::watch::Sender::new(false),
        });
        let faulty = faulty(config.seed, config.hosts, config.faulty_percent, &config.faults);
        let breaks = Faults::all(&config.faults).disconnect.is_some();
        let mut fleet = Self {
            shared,
            names: vec![String::new(); config.hosts],
            breaking: if breaks { faulty.iter().filter(|faulty| **faulty).count() } else { 0 },
            faulty,
            _stop_on_drop: stop.drop_guard(),
        };
        fleet.join(&Arc::new(config)).await?;
        Ok(fleet)
    }

    async fn join(&mut self, config: &Arc<FleetConfig>) -> Result<(), SimError> {
        let mut joining = JoinSet::new();
        for index in 0..config.hosts {
            if joining.len() >= JOINING {
                self.joined(joining.join_next().await)?;
            }
            let faults = if self.is_faulty(index) { Faults::all(&config.faults) } else { Faults::default() };
            joining.spawn(join_one(config.clone(), index, faults, self.shared.clone()));
        }
        while let Some(joined) = joining.join_next().await {
            self.joined(Some(joined))?;
        }
        Ok(())
    }

    fn joined(&mut self, joined: Option<Result<Joined, tokio::task::JoinError>>) -> Result<(), SimError> {
        let Some(joined) = joined else { return Ok(()) };
        let (index, name) = joined.unwrap_or_else(|error| {
            // A bug of ours; where it happened is in the panic's own message.
            Err(EnrolError::Connect(format!("the task of a host ended early: {error}")))
        })?;
        if let Some(slot) = self.names.get_mut(index) {
            *slot = name;
        }
        Ok(())
    }

    /// The names that the hub gave the hosts.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a host has faults.
    pub fn is_faulty(&self, index: usize) -> bool {
        self.faulty.get(index).copied().unwrap_or(false)
    }

    /// The names of the hosts that have faults.
    pub fn faulty(&self) -> impl Iterator<Item = &str> {
        self.names.iter().zip(&self.faulty).filter(|(_, faulty)| **faulty).map(|(name, _)| name.as_str())
    }

    /// The counters now.
    pub fn stats(&self) -> Snapshot {
        self.shared.stats.snapshot()
    }

    /// How long connecting took since this was asked last: from dialling to the hub's greeting.
    pub fn take_connecting(&self) -> Spread {
        self.shared.stats.take_connecting()
    }

    /// How long hosts were away since this was asked last.
    pub fn take_away(&self) -> Spread {
        self.shared.stats.take_away()
    }

    /// How many hosts have no fault that breaks their links.
    pub fn steady(&self) -> usize {
        self.names.len() - self.breaking
    }

    /// Waits until all steady hosts are connected; says how long that took, or nothing after `patience`.
    pub async fn wait_online(&self, patience: Duration) -> Option<Duration> {
        let steady = self.steady() as u64;
        self.wait_for(patience, |stats| stats.steady_online >= steady).await
    }

    /// Breaks every link that is up, without a word, and waits until all have noticed.
    pub async fn cut_all(&self) {
        let before = self.stats();
        self.shared.cut.notify_waiters();
        let all = before.lost + before.online;
        self.wait_for(CUT_WITHIN, |stats| stats.lost >= all).await;
    }

    /// Keeps hosts that lose their links from coming back, until this is called with `false`.
    pub fn hold_back(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    async fn wait_for(&self, patience: Duration, so: impl Fn(&Snapshot) -> bool) -> Option<Duration> {
        let began = Instant::now();
        while !so(&self.stats()) {
            if began.elapsed() > patience {
                return None;
            }
            sleep(LOOK).await;
        }
        Some(began.elapsed())
    }

    /// Ends all links in good order.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

type Joined = Result<(usize, String), EnrolError>;

async fn join_one(config: Arc<FleetConfig>, index: usize, faults: Faults, shared: Arc<Shared>) -> Joined {
    // Each host draws from a stream of its own, so that what one does changes no other.
    let seed = config.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let clock = Clock::following_tokio(Clock::system().wall(), seed);
    let host = Arc::new(Host::new(index, faults, clock, shared.clone()));
    let name = format!("{}{:05}", config.prefix, index + 1);
    let source = Some(source_of(index));
    let dialler = Dialler { hub: config.hub.clone(), limits: config.limits.clone(), source };
    let wanted = Wanted {
        facts: facts::of(index, &name, &host.boot_id, &host.clock),
        name,
        labels: config.labels.clone(),
        agent: host.hello(),
        now: host.clock.wall(),
    };
    let token = config.tokens.get(index % config.tokens.len().max(1));
    let token = token.ok_or_else(|| EnrolError::Connect("there is no join token".to_owned()))?;
    let enrolled = enrol(&dialler, token, wanted).await?;
    count(&shared.stats.enrolled);
    shared.tasks.spawn(host.run(dialler, enrolled.tls));
    Ok((index, enrolled.name))
}

/// Which hosts have faults: drawn, and exactly so many of a hundred as asked for, rounded up.
fn faulty(seed: u64, hosts: usize, percent: u8, faults: &[Fault]) -> Vec<bool> {
    let mut faulty = vec![false; hosts];
    if faults.is_empty() {
        return faulty;
    }
    let clock = Clock::simulated(datacentered_proto::Timestamp::EPOCH, seed);
    let wanted = (hosts * usize::from(percent.min(100))).div_ceil(100);
    let mut order: Vec<(u64, usize)> = (0..hosts).map(|index| (clock.random(), index)).collect();
    order.sort_unstable();
    for (_, index) in order.into_iter().take(wanted) {
        if let Some(faulty) = faulty.get_mut(index) {
            *faulty = true;
        }
    }
    faulty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_says_which_hosts_have_faults() {
        let of = |seed| faulty(seed, 50, 20, &[Fault::Lie]);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        assert_eq!(of(7).into_iter().filter(|faulty| *faulty).count(), 10);
        assert!(!faulty(7, 50, 20, &[]).contains(&true), "no faults, no faulty hosts");
        assert!(!faulty(7, 3, 100, &[Fault::Lie]).contains(&false));
        assert_eq!(faulty(7, 3, 1, &[Fault::Lie]).into_iter().filter(|faulty| *faulty).count(), 1);
    }
}

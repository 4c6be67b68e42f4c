//! The hub as a whole: what it is made of, how it starts, and how it goes down.

use std::sync::Arc;
use std::time::Duration;

use datacentered_engine::kv::Expect;
use datacentered_engine::outbox::Mover;
use datacentered_engine::{Embedded, Engine};
use datacentered_link::clock::Clock;
use datacentered_proto::{Error, HostId, RunId, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::{self, Access};
use crate::config::{Config, ConfigError, HubOptions};
use crate::dispatch::{self, Table};
use crate::hosts::{self, LiveHosts};
use crate::identity::{Identity, IdentityError};
use crate::jobs::{self, Offers, Outputs, Progresses};
use crate::metrics::{self, Metrics};
use crate::runs::{self, Pump};
use crate::server::{Server, ServerError};
use crate::sessions::{self, Sessions};
use crate::store::records::{HubRecord, JobRecord};
use crate::store::{self, Change, Store};
use crate::supervise::Supervisor;
use crate::terminals::Terminals;

/// How long what is under way may take to end when the hub goes down.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Beyond their slots, hosts get this long to come back after a start.
const RETURN_SLACK: Duration = Duration::from_secs(45);

/// Clocks of a hub and of whoever made a run's id may differ by this much.
const CLOCK_SLACK_MS: i64 = 3600 * 1000;

/// Why a hub did not start, or ended, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store cannot be used.
    #[error(transparent)]
    Engine(#[from] datacentered_engine::Error),
    /// A port or socket cannot be used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The state in the store cannot be used.
    #[error("the hub's state cannot be brought up: {0}")]
    State(Error),
    /// This build has no such engine.
    #[error("the engine '{0}' is not part of this build; use --engine embedded")]
    NoSuchEngine(String),
    /// The store failed while the hub was running.
    #[error(
        "the disk no longer takes what the hub writes, so it stopped; free space or repair the disk, then start it again"
    )]
    StoreFailed,
    /// A part that the hub needs has ended.
    #[error("a part that the hub needs has failed; its log has more")]
    PartFailed,
}

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    /// Its settings.
    pub config: Config,
    /// The one place that time comes from.
    pub clock: Clock,
    /// Where everything is kept.
    pub engine: Engine,
    /// Its own state.
    pub store: Store,
    /// Its keys and certificates.
    pub identity: Identity,
    /// Passwords and login limits.
    pub access: Access,
    /// Open sessions.
    pub sessions: Sessions,
    /// Links of hosts.
    pub live: LiveHosts,
    /// Where running jobs stand.
    pub progress: Progresses,
    /// Offers that wait for their answer.
    pub offers: Offers,
    /// Output that is being pulled.
    pub outputs: Outputs,
    /// Terminals that somebody uses.
    pub terminals: Terminals,
    /// Files that may be passed on at once.
    pub file_streams: Arc<Semaphore>,
    /// Moves waiting targets along.
    pub pump: Pump,
    /// The handlers of all operations.
    pub table: Table,
    /// What is counted.
    pub metrics: Metrics,
    /// Background work.
    pub tasks: Supervisor,
    /// Cancelled when the hub goes down.
    pub stop: CancellationToken,
    /// When it was started.
    pub started: Timestamp,
    up_since: Duration,
    restored: Option<Timestamp>,
    view: View,
}

/// What keeps the view of the store up to date.
#[derive(Debug)]
struct View {
    tasks: Supervisor,
    stop: CancellationToken,
}

impl Hub {
    /// Brings everything up but the ports.
    pub async fn open(config: Config, clock: Clock) -> Result<(Arc<Self>, Mover), HubError> {
        let engine = open_engine(&config)?;
        let identity = Identity::open(&config, &clock)?;
        let (store, follower) = Store::open(engine.clone()).await?;
        let stop = CancellationToken::new();
        let tasks = Supervisor::new(stop.clone());
        // The view follows until everything that writes has ended.
        let view = View { tasks: Supervisor::new(stop.clone()), stop: CancellationToken::new() };
        let following = view.stop.clone();
        view.tasks.spawn_vital("store view", async move {
            if let Err(error) = follower.run(following).await {
                tracing::error!(%error, "the view of the store cannot follow");
            }
        });
        let restored = note_epoch(&store, &clock).await.map_err(HubError::State)?;
        let mover = Mover::start(engine.clone(), store.bucket().clone(), None);
        let hub = Arc::new(Self {
            access: Access::new(&config.limits),
            sessions: Sessions::new(config.limits.sessions),
            live: LiveHosts::default(),
            progress: Progresses::default(),
            offers: Offers::default(),
            outputs: Outputs::default(),
            terminals: Terminals::default(),
            file_streams: Arc::new(Semaphore::new(config.limits.file_streams)),
            pump: Pump::default(),
            table: dispatch::build(),
            metrics: Metrics::new(),
            started: clock.wall(),
            up_since: clock.boot(),
            config,
            clock,
            engine,
            store,
            identity,
            tasks,
            stop,
            restored,
            view,
        });
        hosts::mark_all_offline(&hub).await.map_err(HubError::State)?;
        jobs::settle_removed_hosts(&hub).await;
        runs::resume_runs(&hub).await.map_err(HubError::State)?;
        hub.tasks.spawn_vital("credentials", sessions::watch_credentials(hub.clone()));
        hub.tasks.spawn_vital("tokens", access::maintain(hub.clone()));
        hub.tasks.spawn_vital("progress", jobs::persist_progress(hub.clone()));
        hub.tasks.spawn_vital("expiry", runs::expire_jobs(hub.clone()));
        hub.tasks.spawn_vital("waiting targets", runs::pump_when_fleet_is_back(hub.clone()));
        hub.tasks.spawn_vital("history", runs::keep_history_bounded(hub.clone()));
        hub.tasks.spawn_vital("metrics", metrics::upkeep(hub.clone()));
        Ok((hub, mover))
    }

    /// How long after a start the hosts that were online may take to come back: their slots and some slack.
    pub fn fleet_return_time(&self) -> Duration {
        let hosts = self.store.view(|view| view.hosts.len()) as u64;
        RETURN_SLACK + Duration::from_millis(hosts * 1000 / self.config.limits.accepts_per_second.max(1))
    }

    /// Whether a host that is not online now is away, rather than still on its way back after the hub's start.
    pub fn fleet_is_back(&self) -> bool {
        self.clock.boot().saturating_sub(self.up_since) >= self.fleet_return_time()
    }

    /// Whether a run that the hub does not know may be older than its last restore.
    pub fn may_adopt(&self, run: RunId) -> bool {
        let made = run.uuid().get_timestamp().map(|made| {
            let (seconds, nanos) = made.to_unix();
            seconds.cast_signed().saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000))
        });
        match (self.restored, made) {
            (Some(restored), Some(made)) => made <= restored.as_millis().saturating_add(CLOCK_SLACK_MS),
            _ => false,
        }
    }

    /// Whether a run's jobs may have been sent, run and even forgotten in a time that a restore has made the hub forget.
    pub fn predates_restore(&self, view: &store::View, run: RunId) -> bool {
        let epoch = view.runs.get(&run).and_then(|run| run.epoch.as_deref());
        self.may_adopt(run) && epoch != Some(self.engine.epoch())
    }

    /// Whether both sides' jobs were compared with this host since the last restore.
    pub fn was_compared(&self, view: &store::View, host: HostId) -> bool {
        let journal = view.journals.get(&host);
        journal.is_some_and(|known| known.compared.as_deref() == Some(self.engine.epoch()))
    }

    /// Whether only a job's host can say if it ran: the hub was restored and has not heard the host since.
    pub fn only_host_knows(&self, view: &store::View, job: &JobRecord) -> bool {
        self.predates_restore(view, job.run) && !self.was_compared(view, job.host)
    }

    /// Waits a little; false when the hub goes down instead.
    pub async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// Goes down in good order: no new work, agents told when to come back, everything written.
    pub async fn close(self: Arc<Self>, mover: Mover) {
        self.stop.cancel();
        self.tasks.drain(DRAIN_PATIENCE).await;
        self.view.stop.cancel();
        self.view.tasks.drain(DRAIN_PATIENCE).await;
        mover.stop().await;
        self.engine.shutdown().await;
    }
}

fn open_engine(config: &Config) -> Result<Engine, HubError> {
    if config.engine != "embedded" {
        return Err(HubError::NoSuchEngine(config.engine.clone()));
    }
    Ok(Embedded::open(&config.engine_dir(), config.embedded.clone())?)
}

/// Notices a restore: the engine's epoch is another one than at the last start.
async fn note_epoch(store: &Store, clock: &Clock) -> Result<Option<Timestamp>, Error> {
    let known = store.view(|view| view.hub.clone());
    if let Some(known) = &known
        && known.epoch == store.engine().epoch()
    {
        return Ok(known.restored);
    }
    let restored = known.is_some().then(|| clock.wall());
    let mut change = Change::new(clock, "hub", None);
    let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Revision(known.revision));
    change.put(&HubRecord { epoch: store.engine().epoch().to_owned(), restored }, expect);
    if restored.is_some() {
        change.event("hub.restored", "hub", serde_json::json!({"epoch": store.engine().epoch()}));
    }
    store.commit(change).await?;
    Ok(restored)
}

/// Runs a hub until it is told to stop (SIGTERM or SIGINT), or cannot go on.
pub async fn start(options: HubOptions) -> Result<(), HubError> {
    let config = Config::load(&options)?;
    let (hub, mover) = Hub::open(config, Clock::system()).await?;
    let server = match Server::bind(&hub).await {
        Ok(server) => server,
        Err(error) => {
            hub.close(mover).await;
            return Err(error.into());
        }
    };
    let announced = server.announce(&hub).await;
    server.serve(&hub);
    let failed = hub.engine.failed();
    let result = tokio::select! {
        () = crate::server::stop_signal(&hub) => Ok(()),
        () = failed.cancelled() => Err(HubError::StoreFailed),
        () = hub.stop.cancelled() => Err(HubError::PartFailed),
    };
    hub.close(mover).await;
    announced.map_err(HubError::State).and(result)
}

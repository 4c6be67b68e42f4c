//! The agent's main: identity, journal, link, and a clean end.
//!
//! Nothing here knows a command line: both programs hand in plain options.

mod delegation;
mod error;
mod files;
mod notify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datacentered_link::Proxies;
use datacentered_link::clock::Clock;
use datacentered_link::url::HubUrl;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use error::RunError;

use crate::announce::{Announcement, Announcer};
use crate::boot::BootReader;
use crate::cgroup;
use crate::config::{self, Config};
use crate::hub_link::{self, Credentials, Enrolled, HubLink, Settings, Wanted};
use crate::identity::{Identity, JoinToken, read_token};
use crate::jobs::{Jobs, Refuse};
use crate::policy::{self, PolicyFile};

/// Most threads for what blocks (disks, names that are looked up), so that a few which hang do not hold up the rest; each
/// that is idle goes away again.
const BLOCKING_THREADS: usize = 16;

/// How long an idle one of them stays.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What a blocking thread's stack may take, in bytes; only what is used of it costs memory.
const BLOCKING_STACK: usize = 1 << 20;

/// How long the end of the process waits for threads that block, such as on a disk that hangs.
const BLOCKING_LEAVE: Duration = Duration::from_millis(500);

/// Options of an agent that is enrolled.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Where the agent keeps its state; the default of [`config::default_data_dir`] where absent.
    pub data_dir: Option<PathBuf>,
    /// The host's policy; the configuration's where absent.
    pub policy: Option<PathBuf>,
    /// Print one JSON object a line on standard output for what scripts wait on.
    pub json: bool,
}

/// Options of an agent that enrols first.
#[derive(Clone, Debug, Default)]
pub struct JoinOptions {
    /// Where the hub is; several addresses are separated by commas.
    pub url: String,
    /// The join token: itself, `@FILE`, or `-` for standard input. A host that is enrolled already needs none.
    pub token: Option<String>,
    /// The name to ask for; where absent the configuration's, else the hostname.
    pub name: Option<String>,
    /// Labels to ask for; they win over the configuration's.
    pub labels: BTreeMap<String, String>,
    /// The rest.
    pub run: StartOptions,
}

/// Runs one of [`join`] and [`start`] to its end, on the small runtime that keeps the agent small.
pub fn block_on(agent: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .thread_stack_size(BLOCKING_STACK)
        .build()
        .map_err(|source| RunError::System { what: "set up its event loop", source })?;
    let result = runtime.block_on(agent);
    runtime.shutdown_timeout(BLOCKING_LEAVE);
    result
}

/// Enrols the host where it is not yet, then runs until SIGTERM or SIGINT.
pub async fn join(options: JoinOptions) -> Result<(), RunError> {
    // Before signals are taken over, so that Ctrl-C works while a token is waited for on standard input.
    let token = token_of(&options)?;
    let (stop, _signals) = stop_on_signals()?;
    enrol_and_run(options, token, stop).await
}

/// Runs an enrolled host until SIGTERM or SIGINT.
pub async fn start(options: StartOptions) -> Result<(), RunError> {
    let (stop, _signals) = stop_on_signals()?;
    start_until(options, stop).await
}

/// As [`join`], until `stop` is cancelled.
pub async fn join_until(options: JoinOptions, stop: CancellationToken) -> Result<(), RunError> {
    let token = token_of(&options)?;
    enrol_and_run(options, token, stop).await
}

fn token_of(options: &JoinOptions) -> Result<Option<JoinToken>, RunError> {
    Ok(options.token.as_deref().map(read_token).transpose()?)
}

async fn enrol_and_run(
    options: JoinOptions,
    token: Option<JoinToken>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let hubs = parse_hubs(&options.url)?;
    if token.is_none() {
        Identity::must_exist(&data_dir(&options.run)?)?;
    }
    let mut agent = Agent::open(&options.run, stop).await?;
    if let Some(token) = &token {
        agent.identity.check_hub(token.ca_fingerprint())?;
    }
    if agent.identity.enrolment().is_some() {
        agent.identity.set_hubs(hubs)?;
        return agent.run_enrolled().await;
    }
    let Some(token) = token else { return agent.run().await };
    let wanted = agent.wanted(options.name, options.labels);
    let ca = token.ca_fingerprint();
    let credentials = agent.credentials(ca)?;
    let enrolled = tokio::select! {
        () = agent.stop.cancelled() => return agent.end().await,
        enrolled = hub_link::enrol(
            &agent.settings, &credentials, &hubs, token.secret(), &wanted, &agent.jobs, &agent.clock,
        ) => enrolled?,
    };
    let enrolment = match enrolled {
        Enrolled::Issued(reply) => agent.identity.enrolled(hubs, ca, reply)?,
        Enrolled::Known { host, name } => agent.identity.known_as(hubs, ca, host, name)?,
    };
    tracing::info!(host = %enrolment.host, name = enrolment.name, "enrolled");
    agent.run_enrolled().await
}

/// As [`start`], until `stop` is cancelled.
pub async fn start_until(options: StartOptions, stop: CancellationToken) -> Result<(), RunError> {
    Identity::must_exist(&data_dir(&options)?)?;
    Agent::open(&options, stop).await?.run().await
}

fn parse_hubs(text: &str) -> Result<Vec<HubUrl>, RunError> {
    let refused = |why: String| RunError::Url { url: text.to_owned(), why };
    let hubs = HubUrl::parse_list(text).map_err(|error| refused(error.to_string()))?;
    if hubs.iter().any(|hub| !hub.is_tls()) {
        return Err(refused("an agent proves its key over TLS, which ws:// and unix: do not have".into()));
    }
    Ok(hubs)
}

/// Everything that runs, from its opening to its end.
struct Agent {
    config: Config,
    settings: Settings,
    identity: Identity,
    jobs: Arc<Jobs>,
    clock: Clock,
    announcer: Announcer,
    stop: CancellationToken,
}

impl Agent {
    /// The data directory is locked before the journal in it is touched.
    async fn open(options: &StartOptions, stop: CancellationToken) -> Result<Self, RunError> {
        let data_dir = data_dir(options)?;
        let config = Config::load(&data_dir)?;
        let identity = Identity::open(&data_dir)?;
        let clock = Clock::system();
        let policy = Arc::new(PolicyFile::open(policy_path(options, &config, &data_dir)?));
        let mut jobs = config.jobs.for_data_dir(&data_dir);
        jobs.refuse = Refuse::policy(policy.clone());
        if jobs.cgroups != cgroup::Choice::Off && !delegation::is_safe() {
            tracing::warn!(
                "jobs get no control groups: the unit has no `DelegateSubgroup=datacentered-agent`, or systemd is older \
                 than 254; limits are set per process instead"
            );
            jobs.cgroups = cgroup::Choice::Off;
        }
        jobs.command_files = files::raise();
        let jobs = Arc::new(Jobs::open(jobs, clock.clone(), BootReader::system()).await?);
        let settings = Settings {
            hub: config.hub.clone(),
            reconnect: config.reconnect.clone(),
            link: config.link.clone(),
            serve: config.serve.clone(),
            facts: config.facts.clone(),
            policy,
            proxies: Proxies::new(config.proxy.clone(), &config.no_proxy, |name| std::env::var(name).ok()),
        };
        let announcer = Announcer::new(options.json);
        Ok(Self { config, settings, identity, jobs, clock, announcer, stop })
    }

    fn wanted(&self, name: Option<String>, labels: BTreeMap<String, String>) -> Wanted {
        let hostname = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut all = self.config.labels.clone();
        all.extend(labels);
        Wanted { name: name.or_else(|| self.config.name.clone()).unwrap_or_else(hostname), labels: all }
    }

    fn credentials(&self, ca: datacentered_link::tls::Fingerprint) -> Result<Credentials, RunError> {
        let identity = &self.identity;
        Ok(Credentials::new(identity.certificate_chain(), identity.private_key(), ca)?)
    }

    /// As [`Self::run`], for scripts that wait until the host is enrolled, now or before.
    async fn run_enrolled(self) -> Result<(), RunError> {
        let enrolment = self.identity.require_enrolment()?;
        self.announcer.tell(&Announcement::Enrolled { host: enrolment.host, name: enrolment.name.clone() });
        self.run().await
    }

    /// Runs an enrolled agent until it is told to stop.
    async fn run(self) -> Result<(), RunError> {
        let enrolment = self.identity.require_enrolment()?;
        let credentials = self.credentials(enrolment.ca_fingerprint)?;
        tracing::info!(
            version = crate::facts::AGENT_VERSION,
            host = %enrolment.host,
            name = enrolment.name,
            running = self.jobs.active(),
            "the agent runs"
        );
        let link = HubLink::new(
            self.settings.clone(),
            &credentials,
            enrolment.hubs.clone(),
            enrolment.host,
            self.jobs.clone(),
            self.clock.clone(),
            self.announcer,
        );
        notify::notify(notify::READY);
        // An agent that can take nothing must not stay online: another one opens the journal again and finds out.
        let leave = self.stop.child_token();
        let failed = self.jobs.failed().clone();
        let watch = async {
            tokio::select! {
                () = failed.cancelled() => leave.cancel(),
                () = leave.cancelled() => {}
            }
        };
        let run = async {
            Box::pin(link.run(&leave)).await;
            leave.cancel();
        };
        tokio::join!(run, watch);
        self.end().await?;
        if failed.is_cancelled() { Err(RunError::JournalFailed) } else { Ok(()) }
    }

    /// Leaves what runs on this host running, and everything of the agent's on disk.
    async fn end(self) -> Result<(), RunError> {
        notify::notify(notify::STOPPING);
        if timeout(self.settings.hub.stop_timeout(), self.jobs.shutdown()).await.is_err() {
            tracing::warn!(
                "stopping took too long; the journal is whole all the same, and the next agent goes on from it"
            );
        }
        self.announcer.tell(&Announcement::Stopped);
        tracing::info!("stopped; commands go on and are taken over at the next start");
        Ok(())
    }
}

/// Absolute, because shims and the journal outlive any change of the working directory.
fn data_dir(options: &StartOptions) -> Result<PathBuf, RunError> {
    let Some(data_dir) = &options.data_dir else { return Ok(config::default_data_dir()?) };
    let what = "make the data directory's path absolute";
    std::path::absolute(data_dir).map_err(|source| RunError::System { what, source })
}

/// Absolute, as it is looked at for as long as the agent runs.
fn policy_path(options: &StartOptions, config: &Config, data_dir: &Path) -> Result<PathBuf, RunError> {
    let named = options.policy.as_ref().or(config.policy.as_ref());
    let Some(named) = named else { return Ok(policy::default_path(data_dir)) };
    let what = "make the policy's path absolute";
    let path = std::path::absolute(named).map_err(|source| RunError::System { what, source })?;
    if !path.exists() {
        tracing::warn!(path = %path.display(), "there is no policy where one is named: everything is allowed");
    }
    Ok(path)
}

/// A token that the first SIGTERM or SIGINT cancels, and the task that listens, owned by the caller.
fn stop_on_signals() -> Result<(CancellationToken, AbortOnDropHandle<()>), RunError> {
    let listen =
        |kind| signal(kind).map_err(|source| RunError::System { what: "listen for signals", source });
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    let listener = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok((stop, AbortOnDropHandle::new(listener)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_tls_are_refused_with_the_reason() {
        assert_eq!(parse_hubs("a:1,b").expect("parses").len(), 2);
        for bad in ["", "ws://localhost:1", "unix:/x", "ftp://x", "a:1,ws://localhost:2"] {
            assert!(matches!(parse_hubs(bad), Err(RunError::Url { .. })), "{bad}");
        }
    }
}

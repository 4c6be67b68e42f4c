//! The link to the hub: dials, says hello, serves, and does it again for as long as the agent runs.
//!
//! A hub that is away is no failure of the host's: what runs goes on, its changes are kept, and the hub is told when it
//! is back. What is waited for between attempts comes from [`datacentered_link::backoff`] and from what the hub asked
//! for.

mod config;
mod connect;
mod enrol;
mod facts_report;
mod failures;
mod pending;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::backoff::{Backoff, Policy};
use datacentered_link::clock::Clock;
use datacentered_link::url::HubUrl;
use datacentered_link::{CloseReason, Limits, Link, Proxies};
use datacentered_proto::HostId;
use datacentered_proto::ops::session::{HelloReply, Subject};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use config::HubConfig;
pub use connect::Credentials;
pub use enrol::{EnrolError, Enrolled, Wanted, enrol};
pub use failures::FailureKind;

use crate::announce::{Announcement, Announcer};
use crate::facts::FactsConfig;
use crate::jobs::Jobs;
use crate::policy::PolicyFile;
use crate::serve::files::Files;
use crate::serve::{Drain, Serve, ServeConfig};
use connect::{Connected, Dialler, Failure};
use facts_report::FactsReport;
use failures::{FailureLog, Say};
use reports::Reports;

/// Failures in a row up to which a lost link comes back when the hub said, and not when the backoff says.
const SLOT_AFTER: u32 = 3;

/// What the link needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When to try again, what to report.
    pub hub: HubConfig,
    /// How long to wait before dialling again.
    pub reconnect: Policy,
    /// Limits of the connection itself.
    pub link: Limits,
    /// Limits of what the hub may ask for at once.
    pub serve: ServeConfig,
    /// What the host tells about itself.
    pub facts: FactsConfig,
    /// What it refuses.
    pub policy: Arc<PolicyFile>,
    /// The proxies on the way to hubs.
    pub proxies: Proxies,
}

/// Keeps the host linked to its hub.
#[derive(Debug)]
pub struct HubLink {
    settings: Settings,
    dialler: Dialler,
    hubs: Vec<HubUrl>,
    host: HostId,
    jobs: Arc<Jobs>,
    files: Arc<Files>,
    clock: Clock,
    announcer: Announcer,
    reports: Reports,
    facts: FactsReport,
    backoff: Backoff,
    failures: FailureLog,
    /// This process has had a link.
    was_connected: bool,
    /// The hub's epoch at the last hello: a restored hub has forgotten what it answered since its backup.
    epoch: Option<String>,
}

/// Why a link is over.
enum Over {
    /// The agent stops.
    Stopped,
    /// Anything else.
    Failed(Failure),
}

impl HubLink {
    /// Links the host `host` to the hub at any of `hubs`, which all show the pinned key.
    pub fn new(
        settings: Settings,
        credentials: &Credentials,
        hubs: Vec<HubUrl>,
        host: HostId,
        jobs: Arc<Jobs>,
        clock: Clock,
        announcer: Announcer,
    ) -> Self {
        let dialler = Dialler::new(&settings, credentials, jobs.clone(), clock.clone());
        Self {
            dialler,
            reports: Reports::new(jobs.clone(), &settings.hub),
            facts: FactsReport::new(settings.facts.clone(), settings.policy.clone(), jobs.boot_id()),
            backoff: Backoff::new(settings.reconnect.clone()),
            failures: FailureLog::default(),
            was_connected: false,
            epoch: None,
            files: Arc::new(Files::new(&settings.serve, settings.policy.clone(), clock.clone())),
            settings,
            hubs,
            host,
            jobs,
            clock,
            announcer,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: &CancellationToken) {
        // The place in the list, how many were tried since the last wait, and whether all of those need a person.
        let (mut at, mut tried, mut hopeless) = (0, 0, true);
        while !stop.is_cancelled() {
            let Some(hub) = self.hubs.get(at).cloned() else { return };
            let failure = match self.one_link(&hub, stop).await {
                Over::Stopped => return,
                Over::Failed(failure) => failure,
            };
            tried += 1;
            hopeless &= failure.kind.needs_a_person();
            let wait = if failure.was_up || tried >= self.hubs.len() {
                let wait = self.wait_after(&failure, hopeless);
                (tried, hopeless) = (0, true);
                wait
            } else {
                // Another address may work at once.
                Duration::ZERO
            };
            if !failure.was_up {
                at = (at + 1) % self.hubs.len();
            }
            self.tell_failure(&hub, &failure, wait);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// One connection, from dialling to its end.
    async fn one_link(&mut self, hub: &HubUrl, stop: &CancellationToken) -> Over {
        let drain = Drain::new();
        let serve =
            Arc::new(Serve::new(self.jobs.clone(), self.files.clone(), &self.settings.serve, drain.clone()));
        let connected = tokio::select! {
            () = stop.cancelled() => return Over::Stopped,
            connected = self.dialler.connect(hub, serve) => connected,
        };
        let connected = match connected {
            Ok(connected) => connected,
            Err(failure) => return Over::Failed(failure),
        };
        if let Err(failure) = self.check(&connected.hello) {
            connected.part("not the host that this agent was enrolled as").await;
            return Over::Failed(failure);
        }
        self.now_connected(hub, &connected);
        let ended = self.while_connected(&connected.link, &connected.hello, &drain, stop).await;
        self.reports.link_lost();
        let stopped = stop.is_cancelled();
        // The driver takes leave of the hub and lets handlers finish, within limits of its own.
        let reason = connected.driver.await.unwrap_or(CloseReason::Dropped);
        if stopped {
            return Over::Stopped;
        }
        if let Some(after) = drain.announced() {
            self.backoff.set_retry_after(after);
        }
        Over::Failed(Failure::ended(&ended.unwrap_or(reason), drain.announced().is_some()))
    }

    /// The hub has to know this host as what it was enrolled as.
    fn check(&self, hello: &HelloReply) -> Result<(), Failure> {
        let refused = match &hello.subject {
            Subject::Host { id, .. } if *id == self.host => return Ok(()),
            Subject::Host { id, .. } => format!(
                "the hub knows this host's key as host {id}, and it was enrolled as {}; was the data directory copied \
                 from another host? Remove its `agent` directory and join again",
                self.host
            ),
            _ => "the hub does not know this host; it was restored from an older backup, or the host was removed. \
                  Remove the `agent` directory in the data directory and join again with a new token"
                .to_owned(),
        };
        Err(Failure::new(FailureKind::Refused, refused))
    }

    fn now_connected(&mut self, hub: &HubUrl, connected: &Connected) {
        let hello = &connected.hello;
        self.backoff.connected(self.clock.boot());
        if self.backoff.failures() <= SLOT_AFTER {
            // A link that never holds (two hosts with one key take it from each other) has to slow down instead.
            self.backoff.set_slot(Duration::from_millis(hello.reconnect_slot_ms));
        }
        let name = match &hello.subject {
            Subject::Host { name, .. } => name.as_str(),
            _ => "",
        };
        let again = if std::mem::replace(&mut self.was_connected, true) { " again" } else { "" };
        tracing::info!(%hub, name, hub_version = hello.version, "connected{again}");
        self.announcer.tell(&Announcement::Connected { hub: hub.to_string(), name: name.to_owned() });
        if self.epoch.as_ref() != Some(&hello.epoch) {
            // A hub that is new to this process, or was restored: it hears of every job once.
            self.reports.tell_all();
            self.epoch = Some(hello.epoch.clone());
        }
        self.reports.greeted();
    }

    /// What goes on while the link is up; none where this side ended it because the agent stops.
    async fn while_connected(
        &mut self,
        link: &Link,
        hello: &HelloReply,
        drain: &Drain,
        stop: &CancellationToken,
    ) -> Option<CloseReason> {
        let linger = self.settings.hub.drain_linger();
        let drained = async {
            drain.wait().await;
            sleep(linger).await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                link.close("the agent stops");
                None
            }
            reason = link.closed() => Some(reason),
            () = drained => {
                link.close("the hub is going down");
                None
            }
            never = self.reports.forward(link) => match never {},
            never = self.facts.keep_telling(link, &hello.epoch) => match never {},
        }
    }

    fn wait_after(&mut self, failure: &Failure, hopeless: bool) -> Duration {
        if let Some(after) = failure.retry_after {
            self.backoff.set_retry_after(after);
        }
        let wait = self.backoff.next(self.clock.boot(), self.clock.random());
        if hopeless {
            return wait.max(self.settings.hub.refused_retry());
        }
        wait
    }

    fn tell_failure(&mut self, hub: &HubUrl, failure: &Failure, wait: Duration) {
        let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let reason = failure.kind.as_str();
        let what = if failure.was_up { "the link to the hub is down" } else { "not connected" };
        let (why, next) = (&failure.message, next_try(wait));
        let every = self.settings.hub.summary_every();
        match self.failures.failed(failure.kind, failure.was_up, Instant::now(), every) {
            Say::InFull if failure.kind.needs_a_person() => {
                tracing::error!(%hub, reason, retry_ms, "{what}: {why}; {next}");
            }
            Say::InFull if failure.kind == FailureKind::Draining => {
                tracing::info!(%hub, reason, retry_ms, "{what}: {why}; {next}");
            }
            Say::InFull => tracing::warn!(%hub, reason, retry_ms, "{what}: {why}; {next}"),
            Say::Summary { attempts, down_for } => tracing::warn!(
                %hub, reason, retry_ms, attempts, reports_waiting = self.reports.waiting(),
                "still not connected after {} s: {why}; {next}", down_for.as_secs()
            ),
            Say::Nothing => tracing::debug!(%hub, reason, retry_ms, "{what}: {why}; {next}"),
        }
        self.announcer.tell(&Announcement::Disconnected {
            reason,
            message: failure.message.clone(),
            retry_ms,
        });
    }
}

/// When the next attempt comes, for a person.
fn next_try(wait: Duration) -> String {
    match wait.as_millis() {
        0 => "trying again now".to_owned(),
        millis if millis < 10_000 => format!("trying again in {}.{} s", millis / 1000, millis % 1000 / 100),
        millis => format!("trying again in {} s", millis / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_attempt_is_said_in_seconds() {
        assert_eq!(next_try(Duration::ZERO), "trying again now");
        assert_eq!(next_try(Duration::from_millis(1250)), "trying again in 1.2 s");
        assert_eq!(next_try(Duration::from_mins(5)), "trying again in 300 s");
    }
}

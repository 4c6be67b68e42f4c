//! When a host's link comes up, both sides compare what they know; nothing is guessed and nothing is rolled back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_link::Link;
use datacentered_proto::operations::{JobCancel, JobList, JobRelease, JobSpec};
use datacentered_proto::ops::job::{CancelParams, JobParams, JobReport, ListParams, ReleaseParams};
use datacentered_proto::ops::session::AgentHello;
use datacentered_proto::outcome::Loss;
use datacentered_proto::{Code, Error, HostId, JobId, JobState, Outcome};
use serde_json::json;

use super::end::{Ending, end_job, hub_evidence};
use super::machine::{Journal, Reconciled, reconcile};
use super::offer::offer_again;
use super::{feed, output, report};
use crate::hub::Hub;
use crate::runs;
use crate::store::Change;
use crate::store::records::JobRecord;

/// Tries at a run's record that other hosts' jobs change at the same time.
const ADOPT_TRIES: usize = 32;

/// Most jobs that a host may list: far more than it may hold.
const MAX_LISTED: usize = 100_000;

impl Journal {
    /// A host's journal as it says hello with it.
    pub(crate) fn at_hello(hub: &Hub, host: HostId, hello: &AgentHello) -> Self {
        let known = hub.store.view(|view| view.journals.get(&host).cloned());
        let (replaced, changed) = known.map_or((false, hello.high_water > 0), |known| {
            let same = known.incarnation == hello.incarnation;
            (!same || hello.high_water < known.high_water, !same || hello.high_water != known.high_water)
        });
        // Once both sides have compared since a restore, the hub knows what it sends.
        let went_on = changed && !hub.store.view(|view| hub.was_compared(view, host));
        Self { incarnation: hello.incarnation.clone(), replaced, went_on }
    }
}

/// What a comparison found.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Jobs to offer again once the host is online.
    again: Vec<JobId>,
    /// What it looked at: each job, whether its host has it or had been offered it, and whether it was to be cancelled.
    seen: HashMap<JobId, (bool, bool)>,
}

/// Compares both sides' jobs when a host's link has come up.
pub(crate) async fn compare(
    hub: &Arc<Hub>,
    host: HostId,
    link: &Link,
    journal: &Journal,
) -> Result<Compared, Error> {
    // A job that the host takes over an older link while it lists them is missing from the list, and not from the host.
    let taken_before: HashSet<JobId> = open_jobs(hub, host)
        .into_iter()
        .filter(|job| as_told(hub, job).state > JobState::Offered)
        .map(|job| job.job)
        .collect();
    let listed = list(link).await?;
    let open = open_jobs(hub, host);
    let mut seen: HashMap<_, _> =
        open.iter().map(|job| (job.job, (job.state != JobState::Queued, job.cancel.is_some()))).collect();
    let mut again = Vec::new();
    for job in &open {
        let id = job.job;
        let job = as_told(hub, job);
        let taken_meanwhile = job.state > JobState::Offered && !taken_before.contains(&id);
        let restored = hub.store.view(|view| hub.predates_restore(view, job.run));
        match reconcile(&job, journal, restored, listed.contains_key(&id) || taken_meanwhile) {
            Reconciled::Offer => again.push(id),
            Reconciled::Tombstone => cancel_on_host(hub, &job, link),
            Reconciled::Lost => {
                let fact = if journal.replaced { "journal_replaced" } else { "not_in_the_journal" };
                end_job(hub, id, &lost(Loss::JournalReplaced, fact)).await?;
                output::give_up_output(hub, id).await?;
            }
            Reconciled::OutputLost => output::give_up_output(hub, id).await?,
            Reconciled::Reported | Reconciled::Queued | Reconciled::Settled => {}
        }
    }
    for (id, said) in listed {
        if !seen.contains_key(&id) {
            match adopt(hub, host, link, &said).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    // One job that cannot be taken over must not keep its host away.
                    tracing::warn!(job = %id, %host, %error, "a job could not be adopted now; the next link tries again");
                    continue;
                }
            }
        }
        if let Err(error) = bind(hub, id, journal).await {
            tracing::warn!(job = %id, %error, "a listed job could not be bound to its host's journal now");
            continue;
        }
        // The host has it: nothing of it is to be offered.
        seen.entry(id).or_default().0 = true;
        take_in(hub, host, link, said).await;
    }
    Ok(Compared { again, seen })
}

/// A job as its host told it last, which may be newer than the record.
fn as_told(hub: &Hub, job: &Arc<JobRecord>) -> Arc<JobRecord> {
    hub.progress.get(job.job).map_or_else(|| job.clone(), |progress| Arc::new(progress.applied_to(job)))
}

/// A host's jobs that have not ended, or whose output is not complete.
pub(crate) fn open_jobs(hub: &Hub, host: HostId) -> Vec<Arc<JobRecord>> {
    hub.store.view(|view| {
        let jobs = view.open_jobs.get(&host).into_iter().flatten();
        jobs.filter_map(|id| view.jobs.get(id)).map(|job| job.record.clone()).collect()
    })
}

/// The host is online over `link`: what the comparison found to offer goes out, and so does what was decided between it
/// and `open`, the open jobs as of when the link took its place: that may have been written to an older link that nobody
/// hears any more.
pub(crate) async fn catch_up(
    hub: &Arc<Hub>,
    link: &Link,
    journal: &Journal,
    compared: Compared,
    open: &[Arc<JobRecord>],
) -> Result<(), Error> {
    let Compared { mut again, seen } = compared;
    for job in open {
        let (was_offered, was_cancelled) = seen.get(&job.job).copied().unwrap_or_default();
        if job.outcome.is_some() || job.state == JobState::Queued {
            continue;
        }
        if was_offered {
            if job.cancel.is_some() && !was_cancelled {
                again.retain(|id| *id != job.job);
                cancel_on_host(hub, job, link);
            }
        } else if job.state == JobState::Offered {
            match reconcile(job, journal, false, false) {
                Reconciled::Offer => again.push(job.job),
                Reconciled::Tombstone => cancel_on_host(hub, job, link),
                Reconciled::Lost => {
                    end_job(hub, job.job, &lost(Loss::JournalReplaced, "journal_replaced")).await?;
                    output::give_up_output(hub, job.job).await?;
                }
                _ => {}
            }
        }
    }
    offer_again(hub, again);
    Ok(())
}

async fn list(link: &Link) -> Result<HashMap<JobId, JobReport>, Error> {
    let mut all = HashMap::new();
    let mut next = None;
    loop {
        let page = link.call::<JobList>(&ListParams { next }).await?;
        let before = all.len();
        all.extend(page.jobs.into_iter().map(|job| (job.job, job)));
        next = page.next;
        if next.is_none() {
            return Ok(all);
        }
        if all.len() == before || all.len() > MAX_LISTED {
            return Err(Error::invalid("the host's list of jobs does not end"));
        }
    }
}

/// A listed job that waits here was offered in a time that a restore has made the hub forget: it is the host's now, whatever
/// the run's limit on parallel targets says, and bound to the journal that it is in.
async fn bind(hub: &Arc<Hub>, id: JobId, journal: &Journal) -> Result<(), Error> {
    loop {
        let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(()) };
        if job.outcome.is_some() || job.state != JobState::Queued {
            return Ok(());
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        let mut record = (*job.record).clone();
        record.state = JobState::Offered;
        record.incarnation = Some(journal.incarnation.clone());
        let detail = "the host had this job when the hub, restored from a backup, thought that it waited";
        record.evidence.push(hub_evidence(change.at(), "taken_in", Some(detail.into())));
        change.put(&record, Expect::Revision(job.revision));
        match hub.store.commit(change).await {
            Err(error) if error.code == Code::Conflict => {}
            result => return result.map(|_| ()),
        }
    }
}

/// A job that both sides know.
async fn take_in(hub: &Arc<Hub>, host: HostId, link: &Link, said: JobReport) {
    let id = said.job;
    let found = hub.store.view(|view| {
        let job = view.jobs.get(&id)?.record.clone();
        let stdin = view.runs.get(&job.run).is_some_and(|run| run.exec.stdin);
        Some((job, stdin))
    });
    let Some((job, stdin)) = found else { return };
    let running = said.outcome.is_none();
    if let Err(error) = report::learn(hub, host, link, said).await {
        tracing::warn!(job = %id, %error, "a listed job was not usable");
        return;
    }
    if running && job.outcome.is_some() {
        // The hub gave it up, and nobody could reach it any more.
        let given_up = JobRecord { cancel: Some("hub: the job was given up".into()), ..(*job).clone() };
        cancel_on_host(hub, &given_up, link);
        return;
    }
    if running {
        output::ensure_pulling(hub, id, host, link);
        if job.cancel.is_some() {
            cancel_on_host(hub, &job, link);
        } else if stdin {
            feed(hub, id, link);
        }
    }
}

/// A job that the host has and the hub's open ones do not: settled long ago, another host's, or older than a restore.
/// Says whether the hub knows it now.
async fn adopt(hub: &Arc<Hub>, host: HostId, link: &Link, said: &JobReport) -> Result<bool, Error> {
    let known = hub.store.view(|view| view.jobs.get(&said.job).map(|job| job.host));
    match known {
        Some(owner) if owner == host => return Ok(true),
        Some(owner) => {
            let mut change = Change::new(&hub.clock, "hub", None);
            let detail = json!({"job": said.job, "owner": owner, "claimed_by": host});
            change.event("job.claimed_by_another_host", said.run.to_string(), detail);
            hub.store.commit(change).await?;
            return Ok(false);
        }
        None => {}
    }
    if !hub.may_adopt(said.run) {
        tracing::warn!(%host, job = %said.job, state = %said.state, "a host holds a job that this hub does not know");
        if said.outcome.is_some() {
            link.call::<JobRelease>(&ReleaseParams { jobs: vec![said.job] }).await?;
        }
        return Ok(false);
    }
    let offer = link.call::<JobSpec>(&JobParams { job: said.job }).await?;
    let name = hub.store.view(|view| view.hosts.get(&host).map(|host| host.name.clone()));
    let Some(name) = name else { return Ok(false) };
    for _ in 0..ADOPT_TRIES {
        let mut change = Change::new(&hub.clock, "hub", None);
        let record = JobRecord {
            job: said.job,
            run: said.run,
            host,
            host_name: name.clone(),
            state: JobState::Offered,
            incarnation: Some(offer.incarnation.clone()),
            expires: None,
            cancel: None,
            outcome: None,
            evidence: vec![hub_evidence(
                change.at(),
                "adopted",
                Some("the host knew this job when the hub, restored from a backup, did not".into()),
            )],
            started: None,
            ended: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            mark_bytes: 0,
            output_complete: false,
            held_bytes: None,
            recording_bytes: hub.config.terminals.recording_of(&offer.spec),
            window: None,
        };
        runs::adopt(hub, &mut change, &offer, &record);
        change.put(&record, Expect::Absent);
        change.event("job.adopted", said.run.to_string(), json!({"job": said.job, "host": name}));
        match hub.store.commit(change).await {
            Ok(_) => return Ok(true),
            // Another host's job of the same run is adopted at the same time.
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::unavailable("too many jobs of one run are adopted at this moment"))
}

/// Asks the host to end a job; its report says what came of it.
pub(crate) fn cancel_on_host(hub: &Arc<Hub>, job: &JobRecord, link: &Link) {
    let Some(by) = job.cancel.clone() else { return };
    let params = CancelParams { job: job.job, run: job.run, by };
    let (hub, link, host) = (hub.clone(), link.clone(), job.host);
    let tasks = hub.tasks.clone();
    tasks.spawn("job cancel", async move {
        match link.call::<JobCancel>(&params).await {
            Ok(said) => {
                if let Err(error) = report::learn(&hub, host, &link, said).await {
                    tracing::warn!(job = %params.job, %error, "the host's answer to a cancel was not usable");
                }
            }
            Err(error) => tracing::debug!(job = %params.job, %error, "a cancel was not answered; the next link asks again"),
        }
    });
}

fn lost(why: Loss, fact: &'static str) -> Ending {
    Ending {
        outcome: Outcome::Lost { why, by: None },
        fact,
        detail: None,
        only_queued: false,
        output_complete: false,
    }
}

/// A host has left the registry: nobody will ever say more about its jobs.
pub(crate) async fn host_removed(hub: &Arc<Hub>, host: HostId) {
    let open: Vec<JobId> = hub
        .store
        .view(|view| view.open_jobs.get(&host).map_or_else(Vec::new, |jobs| jobs.iter().copied().collect()));
    for id in open {
        let result = match end_job(hub, id, &lost(Loss::HostRemoved, "host_removed")).await {
            Ok(_) => output::give_up_output(hub, id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::error!(job = %id, %error, "the job of a removed host could not be ended");
        }
    }
}

/// After a start: jobs of hosts that are no longer in the registry have nobody left to speak for them.
pub(crate) async fn settle_removed_hosts(hub: &Arc<Hub>) {
    let gone: Vec<HostId> = hub
        .store
        .view(|view| view.open_jobs.keys().filter(|host| !view.hosts.contains_key(host)).copied().collect());
    for host in gone {
        host_removed(hub, host).await;
    }
}

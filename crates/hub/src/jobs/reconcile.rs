//! When a host's link comes up, both sides compare what they know; nothing is guessed and nothing is rolled back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_link::Link;
use datacentered_proto::operations::{JobCancel, JobList, JobRelease, JobSpec};
use datacentered_proto::ops::job::{CancelParams, JobParams, JobReport, ListParams, ReleaseParams};
use datacentered_proto::outcome::Loss;
use datacentered_proto::{Error, HostId, JobId, JobState, Outcome};
use serde_json::json;

use super::end::{Ending, end_job, hub_evidence};
use super::machine::{Reconciled, reconcile};
use super::offer::offer_again;
use super::{feed, output, report};
use crate::hub::Hub;
use crate::runs;
use crate::store::Change;
use crate::store::records::JobRecord;

/// Most jobs that a host may list: far more than it may hold.
const MAX_LISTED: usize = 100_000;

/// A host's link has come up.
pub async fn connected(hub: &Arc<Hub>, host: HostId, link: &Link, journal_replaced: bool) {
    if let Err(error) = compare(hub, host, link, journal_replaced).await
        && !link.is_closed()
    {
        // Half a comparison is worse than none: the next link begins again.
        tracing::warn!(%host, %error, "a host's jobs could not be compared; reconnecting");
        link.close("the hub could not compare its jobs with the host's");
    }
}

async fn compare(hub: &Arc<Hub>, host: HostId, link: &Link, journal_replaced: bool) -> Result<(), Error> {
    let listed = list(link).await?;
    let Some(live) = hub.live.get(host).filter(|live| live.link.id() == link.id()) else { return Ok(()) };
    let open: Vec<_> = hub.store.view(|view| {
        let jobs = view.open_jobs.get(&host).into_iter().flatten();
        jobs.filter_map(|id| view.jobs.get(id)).map(|job| job.record.clone()).collect()
    });
    let known: HashSet<JobId> = open.iter().map(|job| job.job).collect();
    for job in &open {
        let id = job.job;
        match reconcile(job, &live.incarnation, journal_replaced, listed.contains_key(&id)) {
            Reconciled::Offer => offer_again(hub, id),
            Reconciled::Tombstone => cancel_on_host(hub, job, link),
            Reconciled::Lost => {
                end_job(hub, id, &lost(Loss::JournalReplaced, "journal_replaced")).await?;
                output::give_up_output(hub, id).await?;
            }
            Reconciled::OutputLost => output::give_up_output(hub, id).await?,
            Reconciled::Reported | Reconciled::Queued | Reconciled::Settled => {}
        }
    }
    for (id, said) in listed {
        if !known.contains(&id) && !adopt(hub, host, link, &said).await? {
            continue;
        }
        take_in(hub, host, link, said).await;
    }
    runs::host_connected(hub, host);
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
    if running && job.outcome.is_none() {
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
        output_complete: false,
    };
    runs::adopt(hub, &mut change, &offer, &record);
    change.put(&record, Expect::Absent);
    change.event("job.adopted", said.run.to_string(), json!({"job": said.job, "host": name}));
    hub.store.commit(change).await?;
    Ok(true)
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
pub async fn host_removed(hub: &Arc<Hub>, host: HostId) {
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

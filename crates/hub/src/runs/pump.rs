//! Moving targets along: whoever waits for a host or for room is offered when both are there, or expires.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use datacentered_engine::kv::Expect;
use datacentered_proto::ops::run::OfflinePolicy;
use datacentered_proto::outcome::Witness;
use datacentered_proto::{Code, Error, Evidence, HostId, JobState, Outcome, RunId, Timestamp};
use tokio::sync::Mutex;

use super::{create, finish};
use crate::hub::Hub;
use crate::jobs::{self, Ending, end_job};
use crate::store::Change;
use crate::store::records::JobRecord;

/// How often waiting jobs are looked over for those whose time is up.
const EXPIRY_PERIOD: Duration = Duration::from_millis(500);

/// Pause before what the store did not take is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// One pump at a time, so that a run's limit on parallel targets holds.
#[derive(Debug, Default)]
pub struct Pump(Mutex<()>);

/// The hub durably decides to tell the host.
pub(super) fn mark_offered(job: &mut JobRecord, incarnation: &str, now: Timestamp) {
    job.state = JobState::Offered;
    job.incarnation = Some(incarnation.to_owned());
    job.evidence.push(Evidence { at: now, witness: Witness::Hub, fact: "offered".into(), detail: None });
}

/// A host has come up: what waits for it moves.
pub(crate) fn host_connected(hub: &Arc<Hub>, host: HostId) {
    let runs: BTreeSet<RunId> = hub.store.view(|view| {
        let open = view.open_jobs.get(&host).into_iter().flatten().filter_map(|id| view.jobs.get(id));
        open.filter(|job| job.outcome.is_none() && job.state == JobState::Queued).map(|job| job.run).collect()
    });
    for run in runs {
        start(hub, run);
    }
}

/// Moves a run's waiting targets along, in the background.
pub(super) fn start(hub: &Arc<Hub>, run: RunId) {
    let hub = hub.clone();
    let tasks = hub.tasks.clone();
    tasks.spawn("run pump", async move {
        while let Err(error) = pump(&hub, run).await {
            tracing::warn!(%run, %error, "waiting targets could not be moved along; trying again");
            if !hub.pause(RETRY).await {
                return;
            }
        }
    });
}

async fn pump(hub: &Arc<Hub>, run: RunId) -> Result<(), Error> {
    loop {
        end_cancelled(hub, run).await?;
        let turn = hub.pump.0.lock().await;
        let (change, offers, more) = next_batch(hub, run);
        if change.is_empty() {
            return Ok(());
        }
        match hub.store.commit(change).await {
            Ok(_) => {}
            // One of them was cancelled or has expired meanwhile: look again.
            Err(error) if error.code == Code::Conflict => continue,
            Err(error) => return Err(error),
        }
        drop(turn);
        jobs::send_offers(hub, offers);
        finish::job_ended_quietly(hub, run).await;
        if !more {
            return Ok(());
        }
    }
}

/// How a job ends that is cancelled while it waits.
pub(super) fn cancelled_while_waiting(by: &str) -> Ending {
    Ending {
        outcome: Outcome::Cancelled { by: by.to_owned() },
        fact: "cancelled",
        detail: Some("before it was offered".into()),
        only_queued: true,
        output_complete: true,
    }
}

/// Jobs that were cancelled when only their host knew whether they ran, and that it never had.
async fn end_cancelled(hub: &Arc<Hub>, run: RunId) -> Result<(), Error> {
    let cancelled: Vec<_> = hub.store.view(|view| {
        let jobs = view.run_jobs.get(&run).into_iter().flat_map(|jobs| &jobs.queued);
        jobs.filter_map(|job| view.jobs.get(job))
            .filter(|job| !hub.only_host_knows(view, job))
            .filter_map(|job| job.cancel.clone().map(|by| (job.job, by)))
            .collect()
    });
    for (job, by) in cancelled {
        end_job(hub, job, &cancelled_while_waiting(&by)).await?;
    }
    Ok(())
}

fn next_batch(hub: &Arc<Hub>, id: RunId) -> (Change, Vec<datacentered_proto::JobId>, bool) {
    let mut change = Change::new(&hub.clock, "hub", None);
    let now = change.at();
    let mut offers = Vec::new();
    let mut more = false;
    let fleet_is_back = hub.fleet_is_back();
    let waiting: Vec<_> = hub.store.view(|view| {
        let Some(run) = view.runs.get(&id) else { return Vec::new() };
        let Some(jobs) = view.run_jobs.get(&id) else { return Vec::new() };
        let under_way = jobs.counts(run).under_way;
        let room = run.max_parallel.map_or(u32::MAX, |limit| limit.saturating_sub(under_way));
        let mut room = room as usize;
        let mut chosen = Vec::new();
        for job in jobs.queued.iter().filter_map(|job| view.jobs.get(job)) {
            // Looked at once: a host that leaves a moment later makes no job end that may wait for it.
            let live = hub.live.get(job.host);
            let online = live.is_some();
            // After a start every host is still on its way back; after a restore its word is waited for.
            let away = !online && run.offline != OfflinePolicy::Queue && fleet_is_back;
            let gives_up = away && !hub.only_host_knows(view, job);
            if job.cancel.is_none() && (gives_up || (online && room > 0)) {
                if online {
                    room -= 1;
                }
                if chosen.len() == create::JOBS_PER_BATCH {
                    more = true;
                    break;
                }
                chosen.push((job.clone(), live.map(|live| live.incarnation)));
            }
        }
        chosen
    });
    for (job, incarnation) in waiting {
        let mut record = (*job.record).clone();
        match incarnation {
            Some(incarnation) => {
                mark_offered(&mut record, &incarnation, now);
                offers.push(record.job);
            }
            None => create::mark_offline(hub, &mut record, now),
        }
        change.put(&record, Expect::Revision(job.revision));
    }
    (change, offers, more)
}

/// Ends jobs that have waited for their host long enough.
pub(crate) async fn expire_jobs(hub: Arc<Hub>) {
    let mut period = tokio::time::interval(EXPIRY_PERIOD);
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = period.tick() => {}
        }
        let now = hub.clock.wall();
        let due: Vec<_> = hub.store.view(|view| {
            view.expiries
                .iter()
                .take_while(|(at, _)| *at <= now)
                .filter(|(_, job)| view.jobs.get(job).is_some_and(|job| !hub.only_host_knows(view, job)))
                .take(create::JOBS_PER_BATCH)
                .copied()
                .collect()
        });
        for (at, job) in due {
            let ending = Ending {
                outcome: Outcome::Expired,
                fact: "expired",
                detail: Some(format!("it waited for its host until {at}")),
                only_queued: true,
                output_complete: true,
            };
            if let Err(error) = end_job(&hub, job, &ending).await {
                tracing::warn!(%job, %error, "a job could not be expired");
            }
        }
    }
}

/// After a start: runs whose making was interrupted are made whole, runs whose last step was missed are ended.
pub(crate) async fn resume_runs(hub: &Arc<Hub>) -> Result<(), Error> {
    let active: Vec<_> = hub.store.view(|view| {
        view.active_runs.iter().filter_map(|id| view.runs.get(id)).map(|run| run.record.clone()).collect()
    });
    for run in active {
        let missing = create::missing_targets(hub, &run);
        // No host is there yet: whatever the policy, they wait until the fleet had time to come back.
        create::write_waiting_jobs(hub, &run, &missing).await?;
        finish::job_ended(hub, run.run);
    }
    Ok(())
}

/// Once the fleet had time to come back: what still waits for hosts that are away is moved along, as its run wants it.
pub(crate) async fn pump_when_fleet_is_back(hub: Arc<Hub>) {
    // More hosts may be awaited by now, and the two clocks are not the same one.
    while !hub.fleet_is_back() {
        if !hub.pause(RETRY).await {
            return;
        }
    }
    for run in hub.store.view(|view| view.active_runs.clone()) {
        start(&hub, run);
    }
    // A vital task never ends before the hub does.
    hub.stop.cancelled().await;
}

//! Handing jobs to their hosts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datacentered_link::Link;
use datacentered_proto::operations::JobOffer;
use datacentered_proto::ops::job::Offer;
use datacentered_proto::ops::run::OfflinePolicy;
use datacentered_proto::outcome::Loss;
use datacentered_proto::{Code, Error, JobId, JobState, Outcome};

use datacentered_engine::kv::Expect;
use tokio::sync::Notify;

use super::end::{Ending, end_job, hub_evidence, write_end};
use super::progress::Progress;
use super::{feed, output, report};
use crate::hub::Hub;
use crate::store::Change;
use crate::store::records::JobRecord;

/// Pause before an offer that the host could not take at the moment is made again.
const RETRY: Duration = Duration::from_millis(500);

/// Longest such pause; it grows where nobody can say what became of the offer.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Offers that wait for their answer. Calls overtake each other before they are on the wire, so that a job is not released
/// while one of them is on its way: the host would have forgotten it, and run it when it comes.
#[derive(Debug, Default)]
pub struct Offers {
    waiting: Mutex<HashMap<JobId, u32>>,
    answered: Notify,
}

/// An offer that waits for its answer.
struct Waiting<'a> {
    offers: &'a Offers,
    job: JobId,
}

impl Offers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, u32>> {
        // A plain map: whole after any panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, job: JobId) -> Waiting<'_> {
        *self.lock().entry(job).or_default() += 1;
        Waiting { offers: self, job }
    }

    /// Waits until no offer of the job is on its way.
    pub(super) async fn none_of(&self, job: JobId) {
        loop {
            let answered = self.answered.notified();
            if !self.lock().contains_key(&job) {
                return;
            }
            answered.await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.offers.lock();
        if let Some(count) = waiting.get_mut(&self.job) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.job);
                self.offers.answered.notify_waiters();
            }
        }
    }
}
/// What a host is told that it may print in a terminal: more than any ever does.
const MAX_OUTPUT_BYTES: u64 = 1 << 52;

/// Sends the first offers of jobs that were durably offered a moment ago.
pub fn send_offers(hub: &Arc<Hub>, jobs: impl IntoIterator<Item = JobId>) {
    for job in jobs {
        spawn_offer(hub, job, true);
    }
}

/// Offers jobs again that their host does not know. Whether an earlier offer is still on its way nobody can say, so that
/// from here on only the host ends them: that is written down before anything is sent.
pub(super) fn offer_again(hub: &Arc<Hub>, jobs: Vec<JobId>) {
    for job in jobs {
        let task_hub = hub.clone();
        hub.tasks.spawn("job offer", async move {
            if mark_until_written(&task_hub, job).await {
                offer(&task_hub, job, false).await;
            }
        });
    }
}

/// The fact in the record of a job that was offered more than once.
const OFFERED_AGAIN: &str = "offered_again";

/// Says whether the job is still to be offered.
async fn mark_until_written(hub: &Arc<Hub>, job: JobId) -> bool {
    loop {
        match mark_offered_again(hub, job).await {
            Ok(to_offer) => return to_offer,
            Err(error) => tracing::warn!(%job, %error, "a job could not be offered again now; trying again"),
        }
        if !hub.pause(RETRY).await {
            return false;
        }
    }
}

async fn mark_offered_again(hub: &Arc<Hub>, id: JobId) -> Result<bool, Error> {
    loop {
        let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(false) };
        if job.outcome.is_some() {
            return Ok(false);
        }
        if was_offered_again(&job) {
            return Ok(true);
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        let mut record = (*job.record).clone();
        record.evidence.push(hub_evidence(change.at(), OFFERED_AGAIN, None));
        change.put(&record, Expect::Revision(job.revision));
        match hub.store.commit(change).await {
            Ok(_) => return Ok(true),
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

fn was_offered_again(job: &JobRecord) -> bool {
    job.evidence.iter().any(|evidence| evidence.fact == OFFERED_AGAIN)
}

fn spawn_offer(hub: &Arc<Hub>, job: JobId, first: bool) {
    let hub = hub.clone();
    let tasks = hub.tasks.clone();
    tasks.spawn("job offer", async move { offer(&hub, job, first).await });
}

async fn offer(hub: &Arc<Hub>, id: JobId, mut first: bool) {
    let mut unclear = RETRY;
    loop {
        // Before the look at the job: whoever releases it has written its outcome first.
        let waiting = hub.offers.begin(id);
        let found = hub.store.view(|view| {
            let job = view.jobs.get(&id)?.record.clone();
            let run = view.runs.get(&job.run)?.record.clone();
            Some((job, run))
        });
        let Some((job, run)) = found else { return };
        if job.outcome.is_some() || job.state == JobState::Queued {
            return;
        }
        // Without a link it waits for the next one, which begins with a reconciliation.
        let policy = if first { run.offline } else { OfflinePolicy::Queue };
        let Some(live) = hub.live.get(job.host) else { return undelivered(hub, id, policy).await };
        let Some(incarnation) = job.incarnation.clone() else { return };
        if *live.incarnation != *incarnation {
            // The host came back with another journal between the decision and now.
            return end_until_written(hub, id, &lost_with_journal(None)).await;
        }
        let mut spec = run.exec.clone();
        if spec.terminal.is_some() {
            // The hub bounds a recording by dropping its oldest bytes; a host that stopped recording would freeze the screen.
            spec.output_bytes = MAX_OUTPUT_BYTES;
        }
        let offer = Offer { job: id, run: job.run, incarnation, by: run.by.clone(), spec };
        let error = match live.link.call::<JobOffer>(&offer).await {
            Ok(accepted) => {
                output::ensure_pulling(hub, id, job.host, &live.link);
                if run.exec.stdin {
                    feed(hub, id, &live.link);
                }
                if let Err(error) = report::learn(hub, job.host, &live.link, accepted).await {
                    tracing::warn!(job = %id, %error, "the host's answer to an offer was not usable");
                }
                return;
            }
            Err(error) => error,
        };
        drop(waiting);
        match error.code {
            // Nothing was written to the link: the host cannot have it.
            Code::Unavailable if live.link.is_closed() => return undelivered(hub, id, policy).await,
            Code::Indeterminate => {
                // The host cannot say whether it has it, and asks for the same offer again.
                tracing::warn!(job = %id, host = job.host_name, %error, "a host could not say whether it took a job");
                if !pause_while_up(hub, &live.link, unclear).await {
                    return;
                }
                unclear = (unclear * 2).min(LONGEST_RETRY);
                first = false;
                if !mark_until_written(hub, id).await {
                    return;
                }
            }
            Code::Unavailable | Code::Limited | Code::Internal => {
                tracing::info!(job = %id, host = job.host_name, %error, "the host could not take a job; again soon");
                let pause = error.retry_after_ms.map_or(RETRY, Duration::from_millis).min(LONGEST_RETRY);
                if !pause_while_up(hub, &live.link, pause).await {
                    return;
                }
            }
            Code::Conflict => {
                return end_until_written(hub, id, &lost_with_journal(Some(error.message))).await;
            }
            _ => {
                let ending = Ending {
                    outcome: Outcome::Refused { why: error.message.chars().take(256).collect() },
                    fact: "refused",
                    detail: Some(format!("{}: {}", error.code, error.message)),
                    only_queued: false,
                    output_complete: true,
                };
                return end_until_written(hub, id, &ending).await;
            }
        }
    }
}

fn lost_with_journal(detail: Option<String>) -> Ending {
    Ending {
        outcome: Outcome::Lost { why: Loss::JournalReplaced, by: None },
        fact: "journal_replaced",
        detail,
        only_queued: false,
        output_complete: true,
    }
}

/// The host was offered nothing after all: what its run wants for hosts that are away applies. Unless the job was offered
/// again meanwhile; both are decided on the job's record, where only one of them can come first.
async fn undelivered(hub: &Arc<Hub>, id: JobId, policy: OfflinePolicy) {
    if policy == OfflinePolicy::Queue {
        return;
    }
    let decide = |job: &JobRecord, _: Option<&Progress>, now| {
        if was_offered_again(job) {
            return None;
        }
        let since = hub.store.view(|view| view.presence.get(&job.host).map(|presence| presence.since));
        let mut record = job.clone();
        let detail = "the link was lost before the offer left the hub";
        record.evidence.push(hub_evidence(now, "not_sent", Some(detail.into())));
        record.state = JobState::Ended;
        record.outcome = Some(Outcome::Offline { since });
        record.ended = Some(now);
        record.output_complete = true;
        Some(record)
    };
    while to_repeat(hub, id, write_end(hub, id, None, decide).await).await {}
}

async fn end_until_written(hub: &Arc<Hub>, job: JobId, ending: &Ending) {
    while to_repeat(hub, job, end_job(hub, job, ending).await).await {}
}

/// Whether an outcome has to be written again, after a pause: where the store does not take it, nobody else would.
async fn to_repeat<T>(hub: &Hub, job: JobId, written: Result<T, Error>) -> bool {
    let Err(error) = written else { return false };
    tracing::error!(%job, %error, "a job's outcome could not be written; trying again");
    hub.pause(RETRY).await
}

async fn pause_while_up(hub: &Hub, link: &Link, pause: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        _ = link.closed() => false,
        () = hub.stop.cancelled() => false,
    }
}

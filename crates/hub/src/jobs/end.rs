//! The one place where a job gets its outcome.

use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_proto::outcome::Witness;
use datacentered_proto::{Code, Error, Evidence, HostId, JobId, JobState, Outcome, Timestamp};
use serde_json::json;

use super::progress::Progress;
use crate::hub::Hub;
use crate::runs;
use crate::store::Change;
use crate::store::records::{JobRecord, JournalRecord};

/// How the hub ends a job by itself.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The outcome.
    pub outcome: Outcome,
    /// The fact behind it, as a stable word.
    pub fact: &'static str,
    /// Particulars for a person.
    pub detail: Option<String>,
    /// Only if the job still waits to be offered.
    pub only_queued: bool,
    /// Whether what the hub does not hold of its output will never come.
    pub output_complete: bool,
}

/// How far a host's journal had come when it said something.
pub(super) struct Mark {
    /// The host.
    pub(super) host: HostId,
    /// The journal.
    pub(super) incarnation: String,
    /// Its mark.
    pub(super) high_water: u64,
}

/// A fact that the hub saw.
pub(super) fn hub_evidence(at: Timestamp, fact: &str, detail: Option<String>) -> Evidence {
    Evidence { at, witness: Witness::Hub, fact: fact.into(), detail }
}

/// Ends a job by the hub's own decision, unless it has ended. Says whether it did.
pub async fn end_job(hub: &Arc<Hub>, job: JobId, ending: &Ending) -> Result<bool, Error> {
    let ended = write_end(hub, job, None, |job, progress, now| {
        if ending.only_queued && job.state != JobState::Queued {
            return None;
        }
        let mut record = progress.map_or_else(|| job.clone(), |progress| progress.applied_to(job));
        record.evidence.push(hub_evidence(now, ending.fact, ending.detail.clone()));
        record.state = JobState::Ended;
        record.outcome = Some(ending.outcome.clone());
        record.ended = Some(now);
        record.output_complete = ending.output_complete;
        Some(record)
    })
    .await?;
    Ok(ended.is_some())
}

/// Writes what `decide` makes of a job that has not ended, by compare-and-set, with its event; then what follows from
/// it: the run's next target, the run's own end.
pub(super) async fn write_end(
    hub: &Arc<Hub>,
    id: JobId,
    journal: Option<Mark>,
    mut decide: impl FnMut(&JobRecord, Option<&Progress>, Timestamp) -> Option<JobRecord>,
) -> Result<Option<JobRecord>, Error> {
    loop {
        let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(None) };
        if job.outcome.is_some() {
            return Ok(None);
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        let progress = hub.progress.get(id);
        let Some(record) = decide(&job, progress.as_deref(), change.at()) else { return Ok(None) };
        debug_assert!(record.outcome.is_some());
        change.put(&record, Expect::Revision(job.revision));
        change.event(
            "job.ended",
            record.run.to_string(),
            json!({"job": record.job, "host": record.host_name, "outcome": record.outcome}),
        );
        if let Some(journal) = &journal {
            note_mark(hub, &mut change, journal);
        }
        runs::end_with_last_job(hub, &mut change, &record);
        match hub.store.commit(change).await {
            Ok(_) => {
                hub.progress.forget(id);
                hub.metrics.job_ended(record.outcome.as_ref().map_or("", Outcome::kind));
                runs::job_ended(hub, record.run);
                return Ok(Some(record));
            }
            // Its record changed meanwhile (a cancel mark, progress): look again.
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

/// How far the host's journal has come, so that one that was rolled back is noticed.
fn note_mark(hub: &Hub, change: &mut Change, mark: &Mark) {
    let known = hub.store.view(|view| view.journals.get(&mark.host).cloned());
    if let Some(known) = known
        && known.incarnation == mark.incarnation
        && known.high_water < mark.high_water
    {
        change.put_unchecked(&JournalRecord { high_water: mark.high_water, ..(*known.record).clone() });
    }
}

//! What a report or a reconciliation means for a job: pure decisions, no I/O, no clock.

use datacentered_proto::ops::job::JobReport;
use datacentered_proto::outcome::{MAX_EVIDENCE, Witness};
use datacentered_proto::{Error, Evidence, JobState, Outcome};

use super::progress::Progress;
use crate::store::records::JobRecord;

/// Longest text taken over from a host into evidence or an outcome, in characters.
const MAX_TEXT: usize = 512;

/// Most evidence taken over from a host about one job, as JSON: its record must stay well below the largest value.
const MAX_EVIDENCE_BYTES: usize = 32 * 1024;

/// Largest byte count that a host may claim: integers on the wire stay below 2^53.
const MAX_BYTES: u64 = 1 << 52;

/// What a report teaches.
#[derive(Debug, PartialEq)]
pub enum Learnt {
    /// The job has its outcome already; it never changes.
    Known,
    /// Where it stands.
    Progress(Progress),
    /// How it ended: the record to write.
    Ended(Box<JobRecord>),
}

/// What to do about a job when its host's link comes up.
#[derive(Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// The host knows it: its report says the rest.
    Reported,
    /// The host never got it: offer it (again), as it is bound to this very journal.
    Offer,
    /// The host never got it and it is to be cancelled: leave a tombstone.
    Tombstone,
    /// It was bound to a journal that is gone.
    Lost,
    /// It has ended and the host has forgotten it: output that the hub does not hold is gone.
    OutputLost,
    /// It waits for its turn.
    Queued,
    /// Nothing.
    Settled,
}

/// A host's journal at hello, against what the hub knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Its name.
    pub incarnation: String,
    /// Another journal than the one that the hub knows, or the same one rolled back.
    pub replaced: bool,
    /// It went on since the hub, restored from a backup, last heard of it.
    pub went_on: bool,
}

/// Decides about one job of the hub's when its host is there with `journal`.
///
/// `restored`: the hub's own knowledge of the job comes from a backup; where the journal went on since, a job that the
/// host does not list may have run, ended and been forgotten.
pub fn reconcile(job: &JobRecord, journal: &Journal, restored: bool, listed: bool) -> Reconciled {
    let same_journal = job.incarnation.as_ref() == Some(&journal.incarnation) && !journal.replaced;
    if job.outcome.is_some() {
        return match (job.output_complete, listed) {
            (_, true) => Reconciled::Reported,
            (true, false) => Reconciled::Settled,
            (false, false) => Reconciled::OutputLost,
        };
    }
    if !listed && restored && journal.went_on {
        return Reconciled::Lost;
    }
    if job.state == JobState::Queued {
        return if listed { Reconciled::Reported } else { Reconciled::Queued };
    }
    match (same_journal, listed) {
        (false, _) => Reconciled::Lost,
        (true, true) => Reconciled::Reported,
        // It was in that journal once.
        (true, false) if job.state > JobState::Offered => Reconciled::Lost,
        (true, false) if job.cancel.is_some() => Reconciled::Tombstone,
        (true, false) => Reconciled::Offer,
    }
}

/// Checks and cleans what a host says about a job.
///
/// Errors: `invalid` for what no honest agent says.
pub fn clean_report(mut report: JobReport) -> Result<JobReport, Error> {
    let ended = report.state == JobState::Ended;
    if ended != report.outcome.is_some() {
        return Err(Error::invalid("a report has an outcome if and only if its state is 'ended'"));
    }
    if matches!(report.state, JobState::Queued | JobState::Offered) {
        return Err(Error::invalid("a host reports jobs that it has accepted"));
    }
    if matches!(report.outcome, Some(Outcome::Expired | Outcome::Offline { .. } | Outcome::Lost { .. })) {
        return Err(Error::invalid("expired, offline and lost are the hub's to say"));
    }
    let claimed = [report.stdout_bytes, report.stderr_bytes, report.mark_bytes, report.stdin_bytes];
    if claimed.iter().any(|bytes| *bytes > MAX_BYTES) {
        return Err(Error::invalid("a byte count is beyond belief"));
    }
    match &mut report.outcome {
        Some(Outcome::Cancelled { by }) => clean(by),
        Some(Outcome::Refused { why }) => clean(why),
        _ => {}
    }
    report.evidence.truncate(MAX_EVIDENCE);
    for evidence in &mut report.evidence {
        clean(&mut evidence.fact);
        if let Some(detail) = &mut evidence.detail {
            clean(detail);
        }
        // Only the hub speaks for the hub.
        if evidence.witness == Witness::Hub {
            evidence.witness = Witness::Agent;
        }
    }
    let mut bytes = 0;
    report.evidence.retain(|evidence| {
        bytes += serde_json::to_vec(evidence).map_or(MAX_EVIDENCE_BYTES, |json| json.len());
        bytes <= MAX_EVIDENCE_BYTES
    });
    Ok(report)
}

fn clean(text: &mut String) {
    if text.chars().any(char::is_control) || text.len() > MAX_TEXT {
        *text = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    }
}

/// What the hub wrote itself, then what the host says: the host sends all of its own each time.
pub(super) fn merge(own: &[Evidence], reported: &[Evidence]) -> Vec<Evidence> {
    let hub = own.iter().filter(|evidence| evidence.witness == Witness::Hub).cloned();
    let mut all: Vec<_> = hub.chain(reported.iter().cloned()).collect();
    all.truncate(MAX_EVIDENCE);
    all
}

/// What a cleaned report of the job's own host means.
pub fn learn(job: &JobRecord, report: &JobReport) -> Learnt {
    if job.outcome.is_some() {
        return Learnt::Known;
    }
    match &report.outcome {
        Some(outcome) => Learnt::Ended(Box::new(JobRecord {
            state: JobState::Ended,
            outcome: Some(outcome.clone()),
            evidence: merge(&job.evidence, &report.evidence),
            started: report.started,
            ended: report.ended,
            stdout_bytes: report.stdout_bytes,
            stderr_bytes: report.stderr_bytes,
            mark_bytes: report.mark_bytes,
            ..job.clone()
        })),
        None => Learnt::Progress(Progress {
            // A report that was overtaken by a later one takes nothing back.
            state: report.state.max(job.state),
            evidence: report.evidence.clone(),
            started: report.started,
            stdout_bytes: report.stdout_bytes.max(job.stdout_bytes),
            stderr_bytes: report.stderr_bytes.max(job.stderr_bytes),
            mark_bytes: report.mark_bytes.max(job.mark_bytes),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ids::uuid_v7;
    use datacentered_proto::{HostId, JobId, RunId, Timestamp};
    use proptest::prelude::*;

    pub(crate) fn job(state: JobState) -> JobRecord {
        JobRecord {
            job: JobId::from_uuid(uuid_v7(1, [1; 10])),
            run: RunId::from_uuid(uuid_v7(1, [2; 10])),
            host: HostId::from_uuid(uuid_v7(1, [3; 10])),
            host_name: "h".into(),
            state,
            incarnation: (state != JobState::Queued).then(|| "a".into()),
            expires: None,
            cancel: None,
            outcome: None,
            evidence: vec![Evidence {
                at: Timestamp::EPOCH,
                witness: Witness::Hub,
                fact: "offered".into(),
                detail: None,
            }],
            started: None,
            ended: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            mark_bytes: 0,
            output_complete: false,
            held_bytes: None,
            recording_bytes: None,
            window: None,
        }
    }

    fn journal(incarnation: &str) -> Journal {
        Journal { incarnation: incarnation.into(), replaced: false, went_on: false }
    }

    fn report(job: &JobRecord, state: JobState, outcome: Option<Outcome>) -> JobReport {
        JobReport {
            job: job.job,
            run: job.run,
            state,
            outcome,
            evidence: vec![],
            started: None,
            ended: None,
            stdout_bytes: 3,
            stderr_bytes: 4,
            mark_bytes: 0,
            stdin_bytes: 0,
            high_water: 0,
        }
    }

    #[test]
    fn an_outcome_never_changes() {
        let mut ended = job(JobState::Ended);
        ended.outcome = Some(Outcome::Exited { code: 0 });
        let later = report(&ended, JobState::Ended, Some(Outcome::Exited { code: 1 }));
        assert_eq!(learn(&ended, &later), Learnt::Known);
    }

    #[test]
    fn a_job_is_bound_to_one_journal() {
        for state in [JobState::Offered, JobState::Accepted, JobState::Running] {
            let job = job(state);
            for listed in [false, true] {
                assert_eq!(
                    reconcile(&job, &journal("b"), false, listed),
                    Reconciled::Lost,
                    "another incarnation"
                );
                let rolled_back = Journal { replaced: true, ..journal("a") };
                assert_eq!(
                    reconcile(&job, &rolled_back, false, listed),
                    Reconciled::Lost,
                    "a mark that went back"
                );
            }
            assert_eq!(reconcile(&job, &journal("a"), false, true), Reconciled::Reported);
            let unlisted = reconcile(&job, &journal("a"), false, false);
            let never_had_it = state == JobState::Offered;
            assert_eq!(unlisted, if never_had_it { Reconciled::Offer } else { Reconciled::Lost });
        }
        let other = Journal { replaced: true, ..journal("b") };
        assert_eq!(reconcile(&job(JobState::Queued), &other, false, false), Reconciled::Queued);
    }

    #[test]
    fn after_a_restore_what_may_have_run_is_not_offered() {
        let went_on = Journal { went_on: true, ..journal("a") };
        for state in [JobState::Queued, JobState::Offered] {
            assert_eq!(reconcile(&job(state), &went_on, true, false), Reconciled::Lost);
            assert_eq!(reconcile(&job(state), &went_on, true, true), Reconciled::Reported);
            assert_ne!(
                reconcile(&job(state), &journal("a"), true, false),
                Reconciled::Lost,
                "nothing has happened since"
            );
            assert_ne!(
                reconcile(&job(state), &went_on, false, false),
                Reconciled::Lost,
                "the run is newer than the restore"
            );
        }
    }

    #[test]
    fn a_cancel_that_comes_first_leaves_a_tombstone() {
        let mut cancelled = job(JobState::Offered);
        cancelled.cancel = Some("ann".into());
        assert_eq!(reconcile(&cancelled, &journal("a"), false, false), Reconciled::Tombstone);
    }

    #[test]
    fn hosts_cannot_say_what_is_the_hubs_to_say() {
        let job = job(JobState::Offered);
        for outcome in [
            Outcome::Expired,
            Outcome::Offline { since: None },
            Outcome::Lost { why: datacentered_proto::outcome::Loss::HostRemoved, by: None },
        ] {
            assert!(clean_report(report(&job, JobState::Ended, Some(outcome))).is_err());
        }
        assert!(clean_report(report(&job, JobState::Ended, None)).is_err());
        assert!(clean_report(report(&job, JobState::Running, Some(Outcome::TimedOut))).is_err());
        assert!(clean_report(report(&job, JobState::Queued, None)).is_err());
        let mut forged = report(&job, JobState::Running, None);
        forged.evidence = vec![
            Evidence {
                at: Timestamp::EPOCH,
                witness: Witness::Hub,
                fact: "x\u{1b}[2J".into(),
                detail: Some("y".repeat(10_000)),
            };
            500
        ];
        let cleaned = clean_report(forged).expect("cleaned");
        assert!(cleaned.evidence.len() <= MAX_EVIDENCE && !cleaned.evidence.is_empty());
        assert!(cleaned.evidence.iter().all(|evidence| evidence.witness == Witness::Agent
            && evidence.fact == "x[2J"
            && evidence.detail.as_ref().is_some_and(|detail| detail.len() <= MAX_TEXT)));
    }

    #[test]
    fn evidence_leaves_room_for_the_rest_of_the_record() {
        let mut report = report(&job(JobState::Offered), JobState::Running, None);
        let text = "\u{10ffff}".repeat(MAX_TEXT);
        let at = Timestamp::EPOCH;
        report.evidence = vec![
            Evidence { at, witness: Witness::Shim, fact: text.clone(), detail: Some(text) };
            MAX_EVIDENCE
        ];
        let cleaned = clean_report(report).expect("cleaned");
        let bytes = serde_json::to_vec(&cleaned.evidence).expect("encodes").len();
        assert!((1..=MAX_EVIDENCE_BYTES + MAX_EVIDENCE).contains(&bytes), "{bytes}");
        assert!(!cleaned.evidence.is_empty());
    }

    proptest! {
        /// Whatever order reports come in: a state never goes back, an outcome once learnt stays.
        #[test]
        fn states_only_move_forward(steps in proptest::collection::vec(0u8..4, 0..20)) {
            let mut job = job(JobState::Offered);
            for step in steps {
                let (state, outcome) = match step {
                    0 => (JobState::Accepted, None),
                    1 => (JobState::Running, None),
                    2 => (JobState::Ended, Some(Outcome::Exited { code: 0 })),
                    _ => (JobState::Ended, Some(Outcome::TimedOut)),
                };
                let before = job.clone();
                match learn(&job, &report(&job, state, outcome)) {
                    Learnt::Known => prop_assert!(before.outcome.is_some()),
                    Learnt::Progress(progress) => {
                        prop_assert!(progress.state >= before.state);
                        job.state = progress.state;
                    }
                    Learnt::Ended(ended) => {
                        prop_assert!(before.outcome.is_none() && ended.outcome.is_some());
                        job = *ended;
                    }
                }
                prop_assert!(job.evidence.iter().any(|evidence| evidence.fact == "offered"));
            }
        }
    }
}

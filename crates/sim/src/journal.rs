//! A simulated host's journal: what an agent's says, kept in memory for as long as the simulation lasts.

use std::collections::BTreeMap;

use datacentered_proto::ops::job::{CancelParams, JobReport, ListReply, Offer};
use datacentered_proto::outcome::Witness;
use datacentered_proto::{Error, Evidence, JobId, JobState, Outcome, RunId, Timestamp};
use tokio_util::sync::CancellationToken;

/// Jobs that one host holds at most.
const MOST_JOBS: usize = 10_000;

/// Jobs in one page of the list: each takes well below 1 KiB, and a page must fit into a message.
const PAGE: usize = 100;

/// The jobs of one host.
#[derive(Debug)]
pub(crate) struct Journal {
    incarnation: String,
    /// Records that would have been written.
    high_water: u64,
    jobs: BTreeMap<JobId, Job>,
}

#[derive(Debug)]
struct Job {
    /// None of a tombstone.
    offer: Option<Offer>,
    report: JobReport,
    /// Cancelled when the job has its outcome.
    ended: CancellationToken,
}

/// A job that was taken.
pub(crate) struct Taken {
    /// What the hub is answered.
    pub(crate) report: JobReport,
    /// It was not there before.
    pub(crate) fresh: bool,
}

impl Journal {
    pub(crate) fn new(incarnation: String) -> Self {
        Self { incarnation, high_water: 0, jobs: BTreeMap::new() }
    }

    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    pub(crate) fn high_water(&self) -> u64 {
        self.high_water
    }

    /// Takes an offer, or finds that it was taken before.
    pub(crate) fn offer(&mut self, offer: Offer, now: Timestamp) -> Result<Taken, Error> {
        if offer.incarnation != self.incarnation {
            return Err(Error::conflict(format!("this journal is {}", self.incarnation)));
        }
        if self.jobs.contains_key(&offer.job) {
            return Ok(Taken { report: self.known(offer.job)?, fresh: false });
        }
        if self.jobs.len() >= MOST_JOBS {
            return Err(Error::limited(format!("this host holds {MOST_JOBS} jobs")).with_retry_after_ms(500));
        }
        let (job, run) = (offer.job, offer.run);
        self.add(job, run, Some(offer), JobState::Accepted, ("accepted", now));
        Ok(Taken { report: self.known(job)?, fresh: true })
    }

    /// The process has been started, and has this much to say.
    pub(crate) fn started(&mut self, job: JobId, stdout_bytes: u64, now: Timestamp) {
        if self.is_open(job) {
            self.high_water += 1;
            if let Some(entry) = self.jobs.get_mut(&job) {
                entry.report.state = JobState::Running;
                entry.report.started = Some(now);
                entry.report.stdout_bytes = stdout_bytes;
                entry.report.evidence.push(evidence("started", now));
            }
        }
    }

    /// The first outcome counts; says whether this is it.
    pub(crate) fn end(&mut self, job: JobId, outcome: Outcome, now: Timestamp) -> bool {
        if !self.is_open(job) {
            return false;
        }
        self.high_water += 1;
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.report.state = JobState::Ended;
            entry.report.evidence.push(evidence("ended", now));
            entry.report.outcome = Some(outcome);
            entry.report.ended = Some(now);
            entry.ended.cancel();
        }
        true
    }

    /// Ends a job; one that never came leaves a tombstone.
    pub(crate) fn cancel(&mut self, params: CancelParams, now: Timestamp) -> Result<JobReport, Error> {
        if !self.jobs.contains_key(&params.job) {
            self.add(params.job, params.run, None, JobState::Accepted, ("cancelled_first", now));
        }
        self.end(params.job, Outcome::Cancelled { by: params.by }, now);
        self.known(params.job)
    }

    /// Counts bytes of standard input.
    pub(crate) fn fed(&mut self, job: JobId, upto: u64) {
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.report.stdin_bytes = entry.report.stdin_bytes.max(upto);
        }
    }

    /// How the job stands now; none where it was released.
    pub(crate) fn report(&self, job: JobId) -> Option<JobReport> {
        let report = self.jobs.get(&job)?.report.clone();
        Some(JobReport { high_water: self.high_water, ..report })
    }

    /// As [`Self::report`], for a hub that asks.
    pub(crate) fn known(&self, job: JobId) -> Result<JobReport, Error> {
        self.report(job).ok_or_else(|| no_such(job))
    }

    /// What the job was.
    pub(crate) fn spec(&self, job: JobId) -> Result<Offer, Error> {
        self.jobs.get(&job).and_then(|entry| entry.offer.clone()).ok_or_else(|| no_such(job))
    }

    /// Resolves when the job has its outcome.
    pub(crate) fn end_of(&self, job: JobId) -> Option<CancellationToken> {
        self.jobs.get(&job).map(|entry| entry.ended.clone())
    }

    /// The hub has it all.
    pub(crate) fn release(&mut self, jobs: &[JobId]) -> Result<(), Error> {
        for job in jobs {
            match self.jobs.get(job) {
                Some(entry) if entry.report.outcome.is_none() => {
                    return Err(Error::conflict(format!("job {job} has not ended; release it when it has")));
                }
                Some(_) => {
                    self.high_water += 1;
                    self.jobs.remove(job);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// A page of jobs behind `after`.
    pub(crate) fn list(&self, after: Option<JobId>) -> ListReply {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = (after.map_or(Unbounded, Excluded), Unbounded);
        let mut reports = self.jobs.range(behind).filter_map(|(id, _)| self.report(*id));
        let jobs: Vec<JobReport> = reports.by_ref().take(PAGE).collect();
        let next = reports.next().and_then(|_| jobs.last().map(|last| last.job));
        ListReply { jobs, next }
    }

    fn is_open(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|entry| entry.report.outcome.is_none())
    }

    fn add(
        &mut self,
        job: JobId,
        run: RunId,
        offer: Option<Offer>,
        state: JobState,
        (fact, now): (&str, Timestamp),
    ) {
        self.high_water += 1;
        let report = JobReport { state, evidence: vec![evidence(fact, now)], ..blank(job, run) };
        self.jobs.insert(job, Job { offer, report, ended: CancellationToken::new() });
    }
}

/// A report that says nothing yet.
pub(crate) fn blank(job: JobId, run: RunId) -> JobReport {
    JobReport {
        job,
        run,
        state: JobState::Accepted,
        outcome: None,
        evidence: Vec::new(),
        started: None,
        ended: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        mark_bytes: 0,
        stdin_bytes: 0,
        high_water: 0,
    }
}

fn evidence(fact: &str, at: Timestamp) -> Evidence {
    Evidence { at, witness: Witness::Agent, fact: fact.to_owned(), detail: None }
}

fn no_such(job: JobId) -> Error {
    Error::not_found(format!("this host has no job {job}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_link::clock::Clock;
    use datacentered_proto::Code;
    use datacentered_proto::ops::job::ExecSpec;

    fn offer(clock: &Clock) -> Offer {
        Offer {
            job: JobId::from_uuid(clock.uuid()),
            run: clock.run_id(),
            incarnation: "a".into(),
            by: "ann".into(),
            spec: ExecSpec::command(vec!["true".into()]),
        }
    }

    #[test]
    fn a_job_goes_its_way_once_and_the_mark_only_rises() {
        let clock = Clock::simulated(Timestamp::EPOCH, 1);
        let mut journal = Journal::new("a".into());
        let offered = offer(&clock);
        let job = offered.job;
        assert!(journal.offer(offered.clone(), clock.wall()).expect("taken").fresh);
        let before = journal.high_water();
        assert!(!journal.offer(offered.clone(), clock.wall()).expect("known").fresh);
        assert_eq!(journal.high_water(), before, "a repeat writes nothing");
        journal.started(job, 5, clock.wall());
        assert_eq!(journal.release(&[job]).expect_err("not ended").code, Code::Conflict);
        assert!(journal.end(job, Outcome::Exited { code: 0 }, clock.wall()));
        assert!(!journal.end(job, Outcome::TimedOut, clock.wall()), "an outcome never changes");
        let report = journal.report(job).expect("there");
        assert_eq!((report.outcome, report.stdout_bytes), (Some(Outcome::Exited { code: 0 }), 5));
        assert_eq!(report.high_water, 3);
        assert_eq!(journal.spec(job).expect("there"), offered);
        journal.release(&[job]).expect("ended");
        assert!(journal.report(job).is_none() && journal.high_water() == 4);
    }

    #[test]
    fn another_journals_job_is_not_taken_and_a_cancel_that_comes_first_wins() {
        let clock = Clock::simulated(Timestamp::EPOCH, 2);
        let mut journal = Journal::new("b".into());
        let foreign = offer(&clock);
        assert_eq!(journal.offer(foreign, clock.wall()).err().map(|error| error.code), Some(Code::Conflict));
        let own = Offer { incarnation: "b".into(), ..offer(&clock) };
        let cancel = CancelParams { job: own.job, run: own.run, by: "bob".into() };
        let cancelled = Outcome::Cancelled { by: "bob".into() };
        assert_eq!(journal.cancel(cancel, clock.wall()).expect("tombstone").outcome, Some(cancelled.clone()));
        let taken = journal.offer(own, clock.wall()).expect("known");
        assert_eq!((taken.fresh, taken.report.outcome), (false, Some(cancelled)));
    }

    #[test]
    fn the_list_has_pages_that_end() {
        let clock = Clock::simulated(Timestamp::EPOCH, 3);
        let mut journal = Journal::new("a".into());
        let count = 2 * PAGE + 1;
        for _ in 0..count {
            journal.offer(offer(&clock), clock.wall()).expect("taken");
        }
        let (mut seen, mut next) = (Vec::new(), None);
        loop {
            let page = journal.list(next);
            seen.extend(page.jobs.iter().map(|report| report.job));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}

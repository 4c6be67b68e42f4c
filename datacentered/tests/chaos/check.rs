//! What must be true of every run, whatever was done to the fleet.

use std::collections::{BTreeMap, HashMap};

use datacentered_proto::Outcome;
use datacentered_proto::ops::run::{OfflinePolicy, Target};
use datacentered_proto::outcome::{Interruption, StartFailure};
use serde::Serialize;

use crate::load::{Ran, Read, Watched};

/// What was made, so that it can be an explanation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) shims_killed: bool,
    pub(crate) disks_full: bool,
}

/// What came out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) runs: usize,
    pub(crate) targets: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) own_ends: u32,
    pub(crate) bytes: u64,
    pub(crate) bytes_discarded_and_told: u64,
    pub(crate) events: usize,
    pub(crate) unexplained: u64,
    pub(crate) double_starts: u64,
    pub(crate) wrong_bytes: u64,
    pub(crate) wrong_events: u64,
    pub(crate) seconds: f64,
    /// Every fault found, in words.
    pub(crate) findings: Vec<String>,
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn unexplained(&mut self, what: String) {
        self.unexplained += 1;
        self.findings.push(what);
    }

    /// Holds one run against its plan. `again` is what fresh readers got, `starts` how often each job was started.
    pub(crate) fn check(
        &mut self,
        ran: &Ran,
        again: &BTreeMap<String, Read>,
        starts: &HashMap<String, u64>,
        made: Made,
    ) {
        self.runs += 1;
        for complaint in &ran.complaints {
            self.unexplained(format!("{}: {complaint}", ran.tag));
        }
        let Some(shown) = &ran.shown else { return };
        for target in &shown.targets {
            self.targets += 1;
            let name = format!("{} on {} (job {}, {:?})", ran.tag, target.host, target.job, ran.work);
            let started = starts.get(&target.job.to_string()).copied().unwrap_or(0);
            if started > 1 {
                self.double_starts += 1;
                self.findings.push(format!("{name}: started {started} times"));
            }
            let Some(outcome) = &target.outcome else {
                self.unexplained(format!("{name}: still {}", target.state));
                continue;
            };
            *self.outcomes.entry(outcome.kind().to_owned()).or_default() += 1;
            if target.evidence.is_empty() {
                self.unexplained(format!("{name}: {outcome:?} without evidence"));
            }
            if let Err(why) = explain(ran, outcome, started, made) {
                self.unexplained(format!("{name}: {outcome:?} {why}; {:?}", target.evidence));
            }
            self.check_output(ran, target, outcome, &name, again, made);
        }
    }

    fn check_output(
        &mut self,
        ran: &Ran,
        target: &Target,
        outcome: &Outcome,
        name: &str,
        again: &BTreeMap<String, Read>,
        made: Made,
    ) {
        let nothing = Read::default();
        let fresh = again.get(&target.host).unwrap_or(&nothing);
        let live = ran.live.get(&target.host).unwrap_or(&nothing);
        self.bytes += (fresh.out.len() + fresh.err.len()) as u64;
        // A host whose disk is full cannot even note in the spool what it discards; its evidence says so then.
        let told = made.disks_full && target.evidence.iter().any(|fact| fact.fact == "output_lost");
        let discarded = fresh.discarded + if told { fresh.lost } else { 0 };
        self.bytes_discarded_and_told += discarded;
        let mut wrong = |why: String| {
            self.wrong_bytes += 1;
            self.findings.push(format!("{name}: {why}"));
        };
        if live != fresh && ran.complaints.is_empty() {
            wrong(format!(
                "a reader that was there got {} + {} bytes, one that came later {} + {}",
                live.out.len(),
                live.err.len(),
                fresh.out.len(),
                fresh.err.len()
            ));
        }
        let read = (fresh.out.len() + fresh.err.len()) as u64 + discarded;
        if read != target.stdout_bytes + target.stderr_bytes {
            wrong(format!("{read} bytes read of {} + {}", target.stdout_bytes, target.stderr_bytes));
        }
        if (fresh.lost > 0 && !told) || (fresh.discarded > 0 && !made.disks_full) {
            wrong(format!(
                "{} bytes lost, {} discarded: {:?}; {:?}",
                fresh.lost, fresh.discarded, fresh.gaps, target.evidence
            ));
        }
        let (out, err) = ran.work.output(&ran.tag);
        let whole = matches!(outcome, Outcome::Exited { .. }) && discarded == 0;
        if whole && (fresh.out != out || fresh.err != err) {
            let (got, due) = ((fresh.out.len(), fresh.err.len()), (out.len(), err.len()));
            wrong(format!("output of {got:?} bytes instead of {due:?}"));
        }
        if discarded == 0 && !(out.starts_with(&fresh.out) && err.starts_with(&fresh.err)) {
            wrong("its output is not the beginning of what it prints".to_owned());
        }
    }

    /// Holds what a watcher saw live against the log, and the log against itself.
    pub(crate) fn check_events(&mut self, live: &Watched, fresh: &Watched, ran: &[Ran]) {
        self.events = fresh.events.len();
        let mut wrong = |why: String| {
            self.wrong_events += 1;
            self.findings.push(why);
        };
        if live.gaps + fresh.gaps > 0 {
            wrong(format!("{} gaps in the events", live.gaps + fresh.gaps));
        }
        if live.events != fresh.events {
            wrong(format!("{} events seen live, {} in the log", live.events.len(), fresh.events.len()));
        }
        let mut ends: HashMap<String, (u64, String)> = HashMap::new();
        for (_, event) in fresh.events.iter().filter(|(_, event)| event.kind == "job.ended") {
            let job = event.detail["job"].as_str().unwrap_or_default().to_owned();
            let outcome = event.detail["outcome"]["kind"].as_str().unwrap_or_default().to_owned();
            let known = ends.entry(job).or_default();
            *known = (known.0 + 1, outcome);
        }
        for target in ran.iter().filter_map(|ran| ran.shown.as_ref()).flat_map(|shown| &shown.targets) {
            let Some(outcome) = &target.outcome else { continue };
            match ends.get(&target.job.to_string()) {
                Some((1, told)) if told == outcome.kind() => {}
                // It ended where it was created; the run's own event tells.
                None if matches!(outcome, Outcome::Offline { .. }) => {}
                other => wrong(format!("job {} ended as {outcome:?}, its events: {other:?}", target.job)),
            }
        }
    }
}

/// Whether an outcome follows from the work and from what was done to the fleet.
fn explain(ran: &Ran, outcome: &Outcome, started: u64, made: Made) -> Result<(), &'static str> {
    match outcome {
        Outcome::Cancelled { .. } if ran.work.ends_as(outcome) => Ok(()),
        _ if ran.work.ends_as(outcome) => {
            if started == 1 {
                Ok(())
            } else {
                Err("and was not started")
            }
        }
        Outcome::Offline { .. } => match (ran.offline, started) {
            (OfflinePolicy::Queue, _) => Err("although it may wait"),
            (_, 0) => Ok(()),
            _ => Err("and was started all the same"),
        },
        Outcome::Interrupted { why: Interruption::ShimLost } if made.shims_killed => Ok(()),
        Outcome::Refused { .. }
        | Outcome::FailedToStart { why: StartFailure::DiskFull | StartFailure::Other }
            if made.disks_full =>
        {
            if started == 0 {
                Ok(())
            } else {
                Err("and was started all the same")
            }
        }
        _ => Err("is not what it does"),
    }
}

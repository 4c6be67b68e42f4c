//! Runs and their targets as callers see them.

use datacentered_proto::limits::{DEFAULT_PAGE, MAX_PAGE};
use datacentered_proto::ops::run::{Counts, RunReply, RunSummary, Target};
use datacentered_proto::{ByteString, Error, JobId, JobState, RunId};

use crate::access::{Scope, outside};
use crate::hub::Hub;
use crate::store::records::{JobRecord, RunRecord, TargetRef};
use crate::store::{RunJobs, Versioned, View};

/// Bytes of targets in one reply: well below the largest message, with room for the command itself.
const PAGE_BYTES: usize = 96 * 1024;

/// Longest command shown in a summary, in characters.
const MAX_COMMAND: usize = 120;

/// A run of which the caller may see something, or why there is none.
///
/// Errors: `not_found`; `forbidden` where every target is on hosts outside the scope.
pub(crate) fn find(hub: &Hub, scope: &Scope, run: RunId) -> Result<Versioned<RunRecord>, Error> {
    let (found, visible) = hub.store.view(|view| {
        let found = view.runs.get(&run).cloned();
        let visible = found.as_ref().is_some_and(|run| visible(hub, view, scope, run));
        (found, visible)
    });
    match found {
        Some(run) if visible => Ok(run),
        Some(_) => Err(Error::forbidden(format!(
            "your role is limited to some hosts, and run {run} has no target on them"
        ))),
        None => Err(Error::not_found(format!(
            "there is no run {run}; 'datacentered run list' shows those that are kept"
        ))),
    }
}

/// Terminals have operations of their own, so that the right to them is one of its own.
pub(super) fn check_no_terminal(run: &RunRecord, instead: &str) -> Result<(), Error> {
    if run.exec.terminal.is_none() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "this run is a terminal: use {instead} (datacentered terminal attach {})",
        run.run
    )))
}

/// Whether some target of the run is on a host in the scope.
pub(crate) fn visible(hub: &Hub, view: &View, scope: &Scope, run: &RunRecord) -> bool {
    !scope.is_limited()
        || view
            .targets(run)
            .is_some_and(|targets| targets.iter().any(|target| scope.allows_id(hub, view, target.host)))
}

/// The targets of the run that are on hosts in the scope.
pub(super) fn targets(hub: &Hub, view: &View, scope: &Scope, run: &RunRecord) -> Vec<TargetRef> {
    let mut targets = view.targets(run).unwrap_or_default();
    scope.keep(hub, view, &mut targets);
    targets
}

/// A run in a list, as far as the scope goes: others' targets are not counted, nor the selectors told that chose them.
pub(crate) fn summary(hub: &Hub, view: &View, scope: &Scope, run: &RunRecord) -> RunSummary {
    let whole = whole_summary(view, run);
    if !scope.is_limited() {
        return whole;
    }
    let targets = targets(hub, view, scope, run);
    if targets.len() == run.target_count as usize {
        return whole;
    }
    let mut jobs = RunJobs::default();
    for job in targets.iter().filter_map(|target| view.jobs.get(&target.job)) {
        jobs.add(job);
    }
    let mut counts = jobs.counts(run);
    counts.queued += (targets.len() as u32).saturating_sub(counts.targets);
    counts.targets = targets.len() as u32;
    RunSummary { counts, on: Vec::new(), ..whole }
}

fn whole_summary(view: &View, run: &RunRecord) -> RunSummary {
    let mut counts = view.run_jobs.get(&run.run).map_or_else(Counts::default, |jobs| jobs.counts(run));
    // Targets whose job records are still to be written wait like any other.
    counts.queued += run.target_count.saturating_sub(counts.targets);
    counts.targets = run.target_count;
    RunSummary {
        run: run.run,
        by: run.by.clone(),
        created: run.created,
        ended: run.ended,
        on: run.on.clone(),
        command: command_text(run),
        stdin: run.exec.stdin,
        offline: run.offline,
        counts,
    }
}

/// A run as the audit names it.
pub(super) fn object_text(run: &RunRecord) -> String {
    let what = if run.exec.terminal.is_some() { "terminal" } else { "run" };
    format!("{what} {}: {}", run.run, command_text(run))
}

/// The command as a person would type it, shortened.
pub(super) fn command_text(run: &RunRecord) -> String {
    if run.exec.terminal.is_some() && run.exec.argv.is_empty() {
        return "<login shell>".into();
    }
    let quote = |arg: &ByteString| {
        let text = arg.to_text();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.into_owned()
        } else {
            let shown: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            format!("'{}'", shown.replace('\'', "'\\''"))
        }
    };
    let mut words: Vec<String> = Vec::new();
    if run.exec.script.is_some() {
        words.push("<script>".into());
    }
    words.extend(run.exec.argv.iter().map(quote));
    let text = words.join(" ");
    if text.chars().count() <= MAX_COMMAND {
        return text;
    }
    text.chars().take(MAX_COMMAND - 1).chain(['…']).collect()
}

/// One target, as far as the hub knows now.
pub(super) fn target(hub: &Hub, job: &JobRecord) -> Target {
    let progress = if job.outcome.is_none() { hub.progress.get(job.job) } else { None };
    let job = progress.map_or_else(|| job.clone(), |progress| progress.applied_to(job));
    let total = job.record_bytes();
    let under_way = job.outcome.is_none() && job.state >= JobState::Offered;
    Target {
        host: job.host_name,
        host_id: job.host,
        job: job.job,
        state: job.state,
        unknown: under_way && !hub.live.is_online(job.host),
        outcome: job.outcome,
        evidence: job.evidence,
        started: job.started,
        ended: job.ended,
        stdout_bytes: job.stdout_bytes,
        stderr_bytes: job.stderr_bytes,
        stored_bytes: if job.output_complete { total } else { hub.outputs.stored(job.job).unwrap_or(0) },
    }
}

/// A target whose job record is still to be written.
fn coming(target: &TargetRef) -> Target {
    Target {
        host: target.name.clone(),
        host_id: target.host,
        job: target.job,
        state: JobState::Queued,
        unknown: false,
        outcome: None,
        evidence: Vec::new(),
        started: None,
        ended: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        stored_bytes: 0,
    }
}

/// Where one target stands.
pub(super) fn target_of(hub: &Hub, view: &View, target: &TargetRef) -> Target {
    view.jobs.get(&target.job).map_or_else(|| coming(target), |job| self::target(hub, job))
}

/// The run and a page of its targets.
pub(super) fn page(
    hub: &Hub,
    scope: &Scope,
    run: &RunRecord,
    limit: Option<u32>,
    next: Option<&str>,
) -> Result<RunReply, Error> {
    let limit = limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
    let skip: usize = match next {
        None => 0,
        Some(next) => {
            next.parse().map_err(|_| Error::invalid("'next' must be the one of the page before"))?
        }
    };
    hub.store.view(|view| {
        let all = targets(hub, view, scope, run);
        let mut targets = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        for (index, one) in all.iter().enumerate().skip(skip) {
            if targets.len() >= limit || bytes >= PAGE_BYTES {
                next = Some(index.to_string());
                break;
            }
            let target = target_of(hub, view, one);
            bytes += serde_json::to_string(&target).map_or(0, |json| json.len());
            targets.push(target);
        }
        Ok(RunReply {
            run: run.run,
            summary: summary(hub, view, scope, run),
            exec: run.exec.clone(),
            targets,
            next,
        })
    })
}

/// The targets that `hosts` (names or ids) mean; all in the scope where it is empty.
///
/// Errors: `not_found` for a host that is not a target, `forbidden` for one outside the scope.
pub(super) fn chosen(
    hub: &Hub,
    scope: &Scope,
    run: &RunRecord,
    hosts: &[String],
) -> Result<Vec<TargetRef>, Error> {
    if hosts.is_empty() {
        return Ok(hub.store.view(|view| targets(hub, view, scope, run)));
    }
    let all = hub.store.view(|view| view.targets(run)).unwrap_or_default();
    let mut chosen = Vec::new();
    for host in hosts {
        let found = all.iter().find(|target| target.name == *host || target.host.to_string() == *host);
        if let Some(target) = found {
            if !hub.store.view(|view| scope.allows_id(hub, view, target.host)) {
                return Err(outside(&target.name));
            }
            chosen.push(target.clone());
        } else {
            let shown: String = host.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(Error::not_found(format!("'{shown}' is not a target of run {}", run.run)));
        }
    }
    Ok(chosen)
}

/// The one target that `host` means, or the only one.
pub(super) fn one_target(
    hub: &Hub,
    scope: &Scope,
    run: &RunRecord,
    host: Option<&str>,
) -> Result<TargetRef, Error> {
    let hosts: Vec<String> = host.map(str::to_owned).into_iter().collect();
    let mut chosen = chosen(hub, scope, run, &hosts)?;
    match (chosen.pop(), chosen.is_empty()) {
        (Some(target), true) => Ok(target),
        (Some(_), false) => Err(Error::invalid("this run has several targets; name the host")),
        (None, _) => Err(Error::not_found("this run has no target")),
    }
}

/// The jobs of targets.
pub(super) fn jobs_of(targets: &[TargetRef]) -> Vec<JobId> {
    targets.iter().map(|target| target.job).collect()
}

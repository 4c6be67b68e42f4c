//! The end of a run: when the last of its targets has its outcome.

use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_proto::ops::audit::{AuditEntry, Phase};
use datacentered_proto::ops::job::Offer;
use datacentered_proto::ops::run::{Counts, OfflinePolicy, default_expires_ms};
use datacentered_proto::{AuditId, Code, Outcome, RunId};
use serde_json::json;

use super::{pump, views};
use crate::hub::Hub;
use crate::store::records::{JobRecord, RunRecord, TargetRef};
use crate::store::{Change, Versioned};

fn add_end(hub: &Hub, change: &mut Change, run: &Versioned<RunRecord>, counts: Counts) {
    let ended = RunRecord { ended: Some(change.at()), ..(*run.record).clone() };
    change.put(&ended, Expect::Revision(run.revision));
    add_end_notices(hub, change, run, counts);
}

fn add_end_notices(hub: &Hub, change: &mut Change, run: &RunRecord, counts: Counts) {
    let terminal = run.exec.terminal.is_some();
    change.event(
        if terminal { "terminal.ended" } else { "run.ended" },
        run.run.to_string(),
        json!({"by": run.by, "targets": counts.targets, "succeeded": counts.succeeded, "failed": counts.failed}),
    );
    change.audit(&AuditEntry {
        id: run.audit,
        phase: Phase::Outcome,
        at: hub.clock.wall(),
        by: run.by.clone(),
        from: "hub".into(),
        // The one that made it.
        operation: if terminal { "terminal.open" } else { "run.create" }.into(),
        object: views::object_text(run),
        hosts: Vec::new(),
        outcome: Some(format!("{} succeeded, {} failed", counts.succeeded, counts.failed)),
        code: None,
    });
}

/// Where this job is the last of its run, the run ends in the same step.
pub(crate) fn end_with_last_job(hub: &Hub, change: &mut Change, job: &JobRecord) {
    let last = hub.store.view(|view| {
        let run = view.runs.get(&job.run)?;
        let counts = view.run_jobs.get(&job.run)?.counts(run);
        let all_there = counts.targets == run.target_count;
        let last = all_there && counts.queued + counts.under_way == 1 && run.ended.is_none();
        last.then(|| (run.clone(), counts))
    });
    if let Some((run, mut counts)) = last {
        let skipped =
            run.offline == OfflinePolicy::Skip && matches!(job.outcome, Some(Outcome::Offline { .. }));
        if skipped || job.outcome.as_ref().is_some_and(Outcome::is_success) {
            counts.succeeded += 1;
        } else {
            counts.failed += 1;
        }
        add_end(hub, change, &run, counts);
    }
}

/// A job has ended: its run's next target may have room now, or the run is over.
pub(crate) fn job_ended(hub: &Arc<Hub>, run: RunId) {
    let (waits, over) = hub.store.view(|view| {
        let waits = view.run_jobs.get(&run).is_some_and(|jobs| !jobs.queued.is_empty());
        (waits, is_over(view, run).is_some())
    });
    if over {
        let hub = hub.clone();
        let tasks = hub.tasks.clone();
        tasks.spawn("run end", async move { job_ended_quietly(&hub, run).await });
    } else if waits {
        pump::start(hub, run);
    }
}

fn is_over(view: &crate::store::View, run: RunId) -> Option<(Versioned<RunRecord>, Counts)> {
    let record = view.runs.get(&run)?;
    let counts = view.run_jobs.get(&run)?.counts(record);
    let over = record.ended.is_none() && counts.targets == record.target_count && counts.all_ended();
    over.then(|| (record.clone(), counts))
}

/// Ends a run whose targets have all ended, if nobody has yet.
pub(super) async fn job_ended_quietly(hub: &Arc<Hub>, run: RunId) {
    loop {
        let Some((record, counts)) = hub.store.view(|view| is_over(view, run)) else { return };
        let mut change = Change::new(&hub.clock, "hub", None);
        add_end(hub, &mut change, &record, counts);
        match hub.store.commit(change).await {
            Err(error) if error.code == Code::Conflict => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%run, %error, "a run could not be ended now; trying again");
                if !hub.pause(pump::RETRY).await {
                    return;
                }
            }
        }
    }
}

/// Makes the run of an adopted job: what is left of it is this one target.
pub(crate) fn adopt(hub: &Hub, change: &mut Change, offer: &Offer, job: &JobRecord) {
    let known = hub.store.view(|view| view.runs.get(&job.run).cloned());
    let target = TargetRef { job: job.job, host: job.host, name: job.host_name.clone() };
    match known {
        Some(run) if run.target_chunks == 0 && !run.targets.iter().any(|one| one.job == job.job) => {
            let mut updated = (*run.record).clone();
            updated.targets.push(target);
            updated.targets.sort_by(|a, b| a.name.cmp(&b.name));
            updated.target_count += 1;
            updated.ended = None;
            change.put(&updated, Expect::Revision(run.revision));
        }
        Some(_) => {}
        None => change.put(
            &RunRecord {
                run: job.run,
                by: offer.by.clone(),
                caller: "restored".into(),
                params_hash: String::new(),
                created: change.at(),
                ended: None,
                on: vec![job.host_name.clone()],
                exec: offer.spec.clone(),
                offline: OfflinePolicy::Queue,
                expires_ms: default_expires_ms(),
                max_parallel: None,
                target_count: 1,
                targets: vec![target],
                target_chunks: 0,
                audit: AuditId::from_uuid(hub.clock.uuid()),
                epoch: None,
            },
            Expect::Absent,
        ),
    }
}

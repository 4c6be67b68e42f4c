//! History is bounded by age and by size: what has ended and is over it goes, oldest first.

use std::sync::Arc;
use std::time::Duration;

use datacentered_engine::LogName;
use datacentered_proto::Error;

use crate::dispatch::expired_replies;
use crate::hub::Hub;
use crate::jobs::{input_log, output_log};
use crate::store::records::{DedupeRecord, JobRecord, RunRecord, RunTargetsRecord};
use crate::store::{AUDIT_LOG, Change, EVENT_LOG, engine_error};

/// How often it is looked over.
const PERIOD: Duration = Duration::from_secs(30);

/// For how long a repeated creation must be recognised: 24 h.
const REPEATABLE_MS: i64 = 24 * 3600 * 1000;

/// Deletions in one batch.
const BATCH: usize = 300;

/// Runs deleted in one look.
const RUNS_PER_LOOK: usize = 500;

/// Keeps the history within its bounds. Idempotent; takes no input.
pub(crate) async fn keep_history_bounded(hub: Arc<Hub>) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = period.tick() => {}
        }
        for (what, result) in [
            ("runs", delete_old_runs(&hub).await),
            ("events", trim(&hub, EVENT_LOG, hub.config.retention.events).await),
            ("audit", trim(&hub, AUDIT_LOG, hub.config.retention.audit_entries).await),
            ("replies", forget_replies(&hub).await),
        ] {
            if let Err(error) = result {
                tracing::warn!(what, %error, "history could not be kept within its bounds now");
            }
        }
    }
}

async fn delete_old_runs(hub: &Arc<Hub>) -> Result<(), Error> {
    let retention = &hub.config.retention;
    let oldest = hub.clock.wall().plus_millis(-retention.run_age_ms.cast_signed());
    let due: Vec<_> = hub.store.view(|view| {
        let (mut runs, mut jobs, mut bytes) = (view.runs.len(), view.jobs.len(), view.output_bytes);
        let mut due = Vec::new();
        for run in view.runs.values() {
            let over = runs > retention.runs || jobs > retention.jobs || bytes > retention.output_bytes;
            let old = run.ended.is_some_and(|ended| ended < oldest);
            if !over && !old && run.created >= oldest {
                break;
            }
            // Output that the hub still waits for keeps its run.
            let targets = view.targets(run).unwrap_or_default();
            let records: Vec<_> = targets.iter().filter_map(|one| view.jobs.get(&one.job)).collect();
            let whole = records.iter().all(|job| job.output_complete);
            if run.ended.is_some() && whole && (over || old) {
                runs -= 1;
                jobs = jobs.saturating_sub(records.len());
                let size: u64 = records.iter().map(|job| job.kept_bytes()).sum();
                bytes = bytes.saturating_sub(size);
                due.push((run.record.clone(), targets));
                if due.len() == RUNS_PER_LOOK {
                    break;
                }
            }
        }
        due
    });
    for (run, targets) in due {
        for target in &targets {
            remove_log(hub, output_log(target.job)?).await?;
        }
        if run.exec.stdin {
            remove_log(hub, input_log(run.run)?).await?;
        }
        for batch in targets.chunks(BATCH) {
            let mut change = Change::new(&hub.clock, "hub", None);
            for target in batch {
                change.delete::<JobRecord>(&[target.job.to_string()]);
            }
            hub.store.commit(change).await?;
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        for chunk in 0..run.target_chunks {
            change.delete::<RunTargetsRecord>(&[run.run.to_string(), chunk.to_string()]);
        }
        change.delete::<RunRecord>(&[run.run.to_string()]);
        if run.created > hub.clock.wall().plus_millis(-REPEATABLE_MS) {
            // A repeat of its creation must not make it again.
            change.put_unchecked(&DedupeRecord {
                caller: run.caller.clone(),
                key: run.run.into(),
                operation: "run.create".into(),
                params_hash: run.params_hash.clone(),
                reply: serde_json::Value::Null,
                at: run.created,
            });
        }
        hub.store.commit(change).await?;
    }
    Ok(())
}

async fn remove_log(hub: &Hub, log: LogName) -> Result<(), Error> {
    match hub.engine.log().remove(&log).await {
        Ok(()) | Err(datacentered_engine::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(engine_error(error)),
    }
}

async fn trim(hub: &Hub, log: &str, keep: u64) -> Result<(), Error> {
    let log = LogName::parse(log).map_err(engine_error)?;
    let Some(state) = hub.engine.log().state(&log).await.map_err(engine_error)? else { return Ok(()) };
    // A little slack, so that it is not trimmed for every entry.
    if state.end - state.oldest <= keep + keep / 10 {
        return Ok(());
    }
    hub.engine.log().trim(&log, state.end - keep).await.map_err(engine_error)
}

async fn forget_replies(hub: &Arc<Hub>) -> Result<(), Error> {
    loop {
        let due = expired_replies(hub, BATCH);
        if due.is_empty() {
            return Ok(());
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        for id in &due {
            change.delete::<DedupeRecord>(id);
        }
        hub.store.commit(change).await?;
    }
}

//! `run.create`: the targets are frozen, the jobs made, and those whose host is there offered, in one batch where it
//! fits: the one sync that a command costs before its host hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_proto::ops::audit::Phase;
use datacentered_proto::ops::run::{CreateParams, OfflinePolicy, RunReply};
use datacentered_proto::outcome::Witness;
use datacentered_proto::{
    AuditId, Code, Error, Evidence, HostId, JobId, JobState, Outcome, RunId, Timestamp,
};
use serde_json::json;

use super::{finish, pump, validate, views};
use crate::dispatch::{Ctx, params_hash};
use crate::hosts;
use crate::hub::Hub;
use crate::jobs;
use crate::store::Change;
use crate::store::records::{JobRecord, RunRecord, RunTargetsRecord, TargetRef};

/// Targets kept inside the run's own record.
const INLINE_TARGETS: usize = 100;

/// Targets in one record of their own.
const CHUNK_TARGETS: usize = 500;

/// Job records in one batch.
pub(super) const JOBS_PER_BATCH: usize = 150;

/// Host names in one audit entry.
const AUDIT_HOSTS: usize = 1000;

/// `run.create`. Its id is its key: a repeat gets the run as it stands.
pub(super) async fn create(ctx: Ctx, params: CreateParams) -> Result<RunReply, Error> {
    if params.exec.terminal.is_some() {
        return Err(Error::invalid(
            "a run has no terminal; open one with terminal.open (datacentered shell)",
        ));
    }
    create_on(ctx, params, |ctx, params| {
        let chosen = hosts::resolve(&ctx.hub, &ctx.scope, &params.on)?;
        if chosen.is_empty() {
            return Err(Error::not_found("no host matches; 'datacentered host list' shows what there is")
                .with_details(json!({"reason": "nothing_matched"})));
        }
        Ok(chosen)
    })
    .await
}

/// As [`create`], on the hosts that `choose` finds. `terminal.open` comes here too.
pub(crate) async fn create_on(
    ctx: Ctx,
    params: CreateParams,
    choose: impl FnOnce(&Ctx, &CreateParams) -> Result<BTreeMap<String, HostId>, Error>,
) -> Result<RunReply, Error> {
    let hash = params_hash(&ctx, &ctx.raw_params)?;
    if let Some(reply) = repeated(&ctx, params.key, &hash).await? {
        return Ok(reply);
    }
    validate::check(&params)?;
    let chosen = choose(&ctx, &params)?;
    check_room(&ctx.hub, chosen.len())?;
    match commit(&ctx, &params, &hash, chosen).await {
        Ok(run) => views::page(&ctx.hub, &ctx.scope, &run, None, None),
        // The same call was under way twice; the other one has made the run.
        Err(error) if error.code == Code::Conflict => repeated(&ctx, params.key, &hash).await?.ok_or(error),
        Err(error) => Err(error),
    }
}

async fn repeated(ctx: &Ctx, run: RunId, hash: &str) -> Result<Option<RunReply>, Error> {
    let Some(found) = ctx.hub.store.view(|view| view.runs.get(&run).cloned()) else {
        if ctx.hub.store.view(|view| view.dedupe.contains_key(&(ctx.who.caller(), run.into()))) {
            return Err(Error::conflict(
                "this run has ended, and its history was dropped to stay within its bounds",
            ));
        }
        return Ok(None);
    };
    if found.caller != ctx.who.caller() || found.params_hash != hash {
        return Err(Error::conflict(
            "this run id was already used for another run; make a new UUIDv7 for each",
        ));
    }
    complete(&ctx.hub, &found).await?;
    views::page(&ctx.hub, &ctx.scope, &found, None, None).map(Some)
}

/// Makes a run whole whose creation failed half way, or is still under way: what is missing waits, and is moved along.
async fn complete(hub: &Arc<Hub>, run: &RunRecord) -> Result<(), Error> {
    let missing = missing_targets(hub, run);
    if run.ended.is_some() || missing.is_empty() {
        return Ok(());
    }
    write_waiting_jobs(hub, run, &missing).await?;
    finish::job_ended(hub, run.run);
    Ok(())
}

/// The targets of a run that have no job record.
pub(super) fn missing_targets(hub: &Hub, run: &RunRecord) -> Vec<TargetRef> {
    hub.store.view(|view| {
        if view.run_jobs.get(&run.run).is_some_and(|jobs| jobs.counts(run).targets == run.target_count) {
            return Vec::new();
        }
        let mut targets = view.targets(run).unwrap_or_default();
        targets.retain(|target| !view.jobs.contains_key(&target.job));
        targets
    })
}

/// Those of a batch that have no job record: somebody else may write the same ones.
fn absent(hub: &Hub, batch: &[TargetRef]) -> Vec<TargetRef> {
    hub.store.view(|view| batch.iter().filter(|one| !view.jobs.contains_key(&one.job)).cloned().collect())
}

fn check_room(hub: &Hub, more: usize) -> Result<(), Error> {
    let open: usize =
        hub.store.view(|view| view.open_jobs.values().map(std::collections::BTreeSet::len).sum());
    let limit = hub.config.limits.open_jobs;
    if open + more > limit {
        return Err(Error::limited(format!(
            "{open} jobs are open and {more} more would be over the limit of {limit} (limits.open_jobs); wait for \
             some to end, or cancel some"
        ))
        .with_retry_after_ms(5000));
    }
    Ok(())
}

async fn commit(
    ctx: &Ctx,
    params: &CreateParams,
    hash: &str,
    chosen: BTreeMap<String, HostId>,
) -> Result<RunRecord, Error> {
    let hub = &ctx.hub;
    let targets: Vec<TargetRef> = chosen
        .into_iter()
        .map(|(name, host)| TargetRef { job: JobId::from_uuid(hub.clock.uuid()), host, name })
        .collect();
    let mut change = ctx.change();
    let inline = targets.len() <= INLINE_TARGETS;
    let run = RunRecord {
        run: params.key,
        by: ctx.who.name(),
        caller: ctx.who.caller(),
        params_hash: hash.to_owned(),
        created: change.at(),
        ended: None,
        on: params.on.clone(),
        exec: params.exec.clone(),
        offline: params.offline,
        expires_ms: params.expires_ms,
        max_parallel: params.max_parallel,
        target_count: targets.len() as u32,
        targets: if inline { targets.clone() } else { Vec::new() },
        target_chunks: if inline { 0 } else { targets.len().div_ceil(CHUNK_TARGETS) as u32 },
        audit: AuditId::from_uuid(hub.clock.uuid()),
        epoch: Some(hub.store.engine().epoch().to_owned()),
    };
    change.put(&run, Expect::Absent);
    if !inline {
        for (index, chunk) in targets.chunks(CHUNK_TARGETS).enumerate() {
            let record = RunTargetsRecord { run: run.run, chunk: index as u32, targets: chunk.to_vec() };
            change.put(&record, Expect::Absent);
        }
    }
    let command = views::command_text(&run);
    change.event(
        if run.exec.terminal.is_some() { "terminal.opened" } else { "run.created" },
        run.run.to_string(),
        json!({"by": run.by, "targets": run.target_count, "on": run.on, "command": command}),
    );
    for hosts in targets.chunks(AUDIT_HOSTS) {
        let names = hosts.iter().map(|target| target.name.clone()).collect();
        change.audit(&ctx.audit_entry(run.audit, Phase::Intent, &views::object_text(&run), names));
    }
    let (first, rest) = targets.split_at(targets.len().min(JOBS_PER_BATCH));
    let mut room = run.max_parallel.map_or(usize::MAX, |limit| limit as usize);
    let offers = add_jobs(hub, &mut change, &run, first, &mut room);
    hub.store.commit(change).await?;
    jobs::send_offers(hub, offers);
    write_jobs(hub, &run, rest, &mut room).await?;
    finish::job_ended(hub, run.run);
    Ok(run)
}

/// Writes the job records of `targets` as waiting, whatever their hosts do. Idempotent.
pub(super) async fn write_waiting_jobs(
    hub: &Arc<Hub>,
    run: &RunRecord,
    targets: &[TargetRef],
) -> Result<(), Error> {
    for batch in targets.chunks(JOBS_PER_BATCH) {
        loop {
            let mut change = Change::new(&hub.clock, &run.by, None);
            let now = change.at();
            for target in absent(hub, batch) {
                change.put(&new_job(run, &target, now), Expect::Absent);
            }
            if change.is_empty() {
                break;
            }
            match hub.store.commit(change).await {
                Ok(_) => break,
                Err(error) if error.code == Code::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn new_job(run: &RunRecord, target: &TargetRef, now: Timestamp) -> JobRecord {
    JobRecord {
        job: target.job,
        run: run.run,
        host: target.host,
        host_name: target.name.clone(),
        state: JobState::Queued,
        incarnation: None,
        expires: (run.offline == OfflinePolicy::Queue)
            .then(|| run.created.plus_millis(run.expires_ms.cast_signed())),
        cancel: None,
        outcome: None,
        evidence: vec![Evidence { at: now, witness: Witness::Hub, fact: "queued".into(), detail: None }],
        started: None,
        ended: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        mark_bytes: 0,
        output_complete: false,
        held_bytes: None,
        recording_bytes: run.exec.terminal.as_ref().map(|_| run.exec.output_bytes),
        window: None,
    }
}

/// Writes the job records of `targets`, batch by batch, and offers what can be offered. Idempotent.
pub(super) async fn write_jobs(
    hub: &Arc<Hub>,
    run: &RunRecord,
    targets: &[TargetRef],
    room: &mut usize,
) -> Result<(), Error> {
    for batch in targets.chunks(JOBS_PER_BATCH) {
        let mut change = Change::new(&hub.clock, &run.by, None);
        let offers = add_jobs(hub, &mut change, run, batch, room);
        match hub.store.commit(change).await {
            Ok(_) => jobs::send_offers(hub, offers),
            // A repeat of the same call makes the run whole at the same time, and moves its targets along.
            Err(error) if error.code == Code::Conflict => {
                return write_waiting_jobs(hub, run, &missing_targets(hub, run)).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Adds the job records of `targets` to a change; returns those that it offers.
fn add_jobs(
    hub: &Hub,
    change: &mut Change,
    run: &RunRecord,
    targets: &[TargetRef],
    room: &mut usize,
) -> Vec<JobId> {
    let now = change.at();
    let mut offers = Vec::new();
    for target in targets {
        let mut job = new_job(run, target, now);
        match hub.live.get(target.host) {
            Some(live) if *room > 0 => {
                *room -= 1;
                pump::mark_offered(&mut job, &live.incarnation, now);
                offers.push(target.job);
            }
            Some(_) => {}
            None if run.offline == OfflinePolicy::Queue => {}
            None => mark_offline(hub, &mut job, now),
        }
        change.put(&job, Expect::Absent);
    }
    offers
}

/// The host is away and the run does not wait.
pub(super) fn mark_offline(hub: &Hub, job: &mut JobRecord, now: Timestamp) {
    let since = hub.store.view(|view| view.presence.get(&job.host).map(|presence| presence.since));
    let detail = match since {
        Some(since) => format!("the host has been offline since {since}"),
        None => "the host has never connected".to_owned(),
    };
    job.state = JobState::Ended;
    job.outcome = Some(Outcome::Offline { since });
    job.ended = Some(now);
    job.output_complete = true;
    job.evidence.push(Evidence {
        at: now,
        witness: Witness::Hub,
        fact: "offline".into(),
        detail: Some(detail),
    });
}

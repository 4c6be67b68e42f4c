//! The operations on runs.

use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_proto::limits::{DEFAULT_PAGE, MAX_PAGE};
use datacentered_proto::operations::{
    JobSignal, RunAbandon, RunCancel, RunCreate, RunInput, RunList, RunOutput, RunShow, RunSignal, RunWatch,
};
use datacentered_proto::ops::job;
use datacentered_proto::ops::run::{
    AbandonParams, CancelParams, ListParams, ListReply, ReachedReply, RunReply, ShowParams, SignalParams,
};
use datacentered_proto::outcome::{Loss, Witness};
use datacentered_proto::{Code, Error, Evidence, JobId, JobState, Outcome};
use serde_json::json;

use super::{create, input, output, pump, views, watch};
use crate::dispatch::{ChangeCtx, Ctx, Table};
use crate::hub::Hub;
use crate::jobs::{self, Ending, end_job};
use crate::store::Change;
use crate::store::records::JobRecord;

/// Signals that exist.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// Bytes of runs in one reply.
const PAGE_BYTES: usize = 160 * 1024;

/// Registers this noun's operations.
pub(crate) fn register(table: &mut Table) {
    table.change_self_keyed::<RunCreate, _, _>(create::create);
    table.read::<RunShow, _, _>(show);
    table.read::<RunList, _, _>(list);
    table.stream::<RunWatch, _, _, _, _>(watch::watch);
    table.stream::<RunOutput, _, _, _, _>(output::output);
    table.upload::<RunInput, _, _, _, _>(input::input);
    table.change::<RunCancel, _, _>(cancel);
    table.change::<RunSignal, _, _>(signal);
    table.change::<RunAbandon, _, _>(abandon);
}

async fn show(ctx: Ctx, params: ShowParams) -> Result<RunReply, Error> {
    let run = views::find(&ctx.hub, &ctx.scope, params.run)?;
    views::page(&ctx.hub, &ctx.scope, &run, params.limit, params.next.as_deref())
}

async fn list(ctx: Ctx, params: ListParams) -> Result<ListReply, Error> {
    let limit = params.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
    Ok(ctx.hub.store.view(|view| {
        let mut reply = ListReply::default();
        let mut bytes = 0;
        let before = |id: &datacentered_proto::RunId| params.next.is_none_or(|next| *id < next);
        for (_, run) in view.runs.iter().rev().filter(|(id, _)| before(id)) {
            if params.active && run.ended.is_some() {
                continue;
            }
            if !views::visible(&ctx.hub, view, &ctx.scope, run) {
                continue;
            }
            if let Some(host) = &params.host {
                let targets = views::targets(&ctx.hub, view, &ctx.scope, run);
                if !targets.iter().any(|target| target.name == *host || target.host.to_string() == *host) {
                    continue;
                }
            }
            if reply.runs.len() >= limit || bytes >= PAGE_BYTES {
                reply.next = reply.runs.last().map(|run| run.run);
                break;
            }
            let summary = views::summary(&ctx.hub, view, &ctx.scope, run);
            bytes += 300 + summary.on.iter().map(String::len).sum::<usize>();
            reply.runs.push(summary);
        }
        reply
    }))
}

async fn cancel(ctx: ChangeCtx, params: CancelParams) -> Result<ReachedReply, Error> {
    let run = views::find(&ctx.hub, &ctx.scope, params.run)?;
    let targets = views::chosen(&ctx.hub, &ctx.scope, &run, &params.hosts)?;
    let by = ctx.who.name();
    let names = targets.iter().map(|target| target.name.clone()).collect();
    let audit = ctx.intend(format!("run {}", params.run), names).await?;
    let mut reply = ReachedReply::default();
    for id in views::jobs_of(&targets) {
        match cancel_job(&ctx.hub, id, &by).await? {
            Reached::Now => reply.targets += 1,
            Reached::Later => {
                reply.targets += 1;
                reply.pending += 1;
            }
            Reached::Ended => {}
        }
    }
    let mut change = ctx.change();
    change.event("run.cancelled", params.run.to_string(), json!({"by": by, "targets": reply.targets}));
    ctx.commit_intended(change, audit, &reply).await?;
    Ok(reply)
}

enum Reached {
    Now,
    Later,
    Ended,
}

/// A job that still waits is ended here; one that was offered, or may have been before a restore, is the host's to end.
async fn cancel_job(hub: &Arc<Hub>, id: JobId, by: &str) -> Result<Reached, Error> {
    loop {
        let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(Reached::Ended) };
        if job.outcome.is_some() {
            return Ok(Reached::Ended);
        }
        let waits = job.state == JobState::Queued;
        if waits && !hub.store.view(|view| hub.only_host_knows(view, &job)) {
            if end_job(hub, id, &pump::cancelled_while_waiting(by)).await? {
                return Ok(Reached::Now);
            }
            continue;
        }
        let mut record: JobRecord = (*job.record).clone();
        if record.cancel.is_none() {
            let mut change = Change::new(&hub.clock, by, None);
            record.cancel = Some(by.to_owned());
            record.evidence.push(Evidence {
                at: change.at(),
                witness: Witness::Hub,
                fact: "cancel_requested".into(),
                detail: Some(format!("by {by}")),
            });
            change.put(&record, Expect::Revision(job.revision));
            match hub.store.commit(change).await {
                Ok(_) => {}
                Err(error) if error.code == Code::Conflict => continue,
                Err(error) => return Err(error),
            }
        }
        if waits {
            // Its host may have been heard meanwhile.
            pump::start(hub, record.run);
        }
        return Ok(match hub.live.get(record.host) {
            Some(live) => {
                jobs::cancel_on_host(hub, &record, &live.link);
                Reached::Now
            }
            None => Reached::Later,
        });
    }
}

async fn signal(ctx: ChangeCtx, params: SignalParams) -> Result<ReachedReply, Error> {
    if !SIGNALS.contains(&params.signal) {
        return Err(Error::invalid("a signal's number is 1 to 64"));
    }
    let run = views::find(&ctx.hub, &ctx.scope, params.run)?;
    let targets = views::chosen(&ctx.hub, &ctx.scope, &run, &params.hosts)?;
    let names = targets.iter().map(|target| target.name.clone()).collect();
    let audit = ctx.intend(format!("run {} signal {}", params.run, params.signal), names).await?;
    let mut calls = tokio::task::JoinSet::new();
    let mut reply = ReachedReply::default();
    for target in &targets {
        let open =
            ctx.hub.store.view(|view| view.jobs.get(&target.job).is_some_and(|job| job.outcome.is_none()));
        if !open {
            continue;
        }
        match ctx.hub.live.get(target.host) {
            Some(live) => {
                let call = job::SignalParams { job: target.job, signal: params.signal };
                calls.spawn(async move { live.link.call::<JobSignal>(&call).await.is_ok() });
            }
            None => reply.pending += 1,
        }
    }
    while let Some(reached) = calls.join_next().await {
        reply.targets += u32::from(reached.unwrap_or(false));
    }
    let mut change = ctx.change();
    change.event(
        "run.signalled",
        params.run.to_string(),
        json!({"by": ctx.who.name(), "signal": params.signal, "targets": reply.targets}),
    );
    ctx.commit_intended(change, audit, &reply).await?;
    Ok(reply)
}

async fn abandon(ctx: ChangeCtx, params: AbandonParams) -> Result<ReachedReply, Error> {
    let run = views::find(&ctx.hub, &ctx.scope, params.run)?;
    let targets = views::chosen(&ctx.hub, &ctx.scope, &run, &params.hosts)?;
    let names = targets.iter().map(|target| target.name.clone()).collect();
    let audit = ctx.intend(format!("run {}", params.run), names).await?;
    let mut reply = ReachedReply::default();
    let mut hosts = Vec::new();
    for target in targets {
        if ctx.hub.live.is_online(target.host) {
            if params.hosts.is_empty() {
                continue;
            }
            return Err(Error::conflict(format!(
                "'{}' is online: its job ends by itself, or cancel it",
                target.name
            )));
        }
        let ending = Ending {
            outcome: Outcome::Lost { why: Loss::Abandoned, by: Some(ctx.who.name()) },
            fact: "abandoned",
            detail: Some(format!("by {}", ctx.who.name())),
            only_queued: false,
            output_complete: false,
        };
        if end_job(&ctx.hub, target.job, &ending).await? {
            jobs::give_up_output(&ctx.hub, target.job).await?;
            reply.targets += 1;
            hosts.push(target.name);
        }
    }
    let mut change = ctx.change();
    change.event(
        "run.abandoned",
        params.run.to_string(),
        json!({"by": ctx.who.name(), "targets": hosts.len()}),
    );
    ctx.commit_intended(change, audit, &reply).await?;
    Ok(reply)
}

//! The operations on terminals.

use datacentered_proto::limits::{DEFAULT_PAGE, MAX_PAGE};
use datacentered_proto::operations::{
    TerminalInput, TerminalList, TerminalOpen, TerminalOutput, TerminalResize,
};
use datacentered_proto::ops::run::{CreateParams, OfflinePolicy, RunReply, default_expires_ms};
use datacentered_proto::ops::terminal::{ListParams, ListReply, OpenParams, Terminal};
use datacentered_proto::{Error, RunId};

use super::{input, output, resize};
use crate::access::Scope;
use crate::dispatch::{Ctx, Table};
use crate::hub::Hub;
use crate::jobs::output_log;
use crate::runs;
use crate::store::Versioned;
use crate::store::engine_error;
use crate::store::records::{RunRecord, TargetRef};

/// Registers this noun's operations.
pub(crate) fn register(table: &mut Table) {
    table.change_self_keyed::<TerminalOpen, _, _>(open);
    table.read::<TerminalList, _, _>(list);
    table.stream::<TerminalOutput, _, _, _, _>(output::output);
    table.upload::<TerminalInput, _, _, _, _>(input::input);
    table.change::<TerminalResize, _, _>(resize::resize);
}

/// A terminal, or why there is none.
pub(super) fn find(hub: &Hub, scope: &Scope, run: RunId) -> Result<Versioned<RunRecord>, Error> {
    let found = runs::find(hub, scope, run)?;
    if found.exec.terminal.is_none() {
        return Err(Error::invalid(format!(
            "run {run} has no terminal: use run.output and run.input (datacentered run attach {run})"
        )));
    }
    Ok(found)
}

/// The one target of a terminal.
pub(super) fn target_of(run: &RunRecord) -> Result<&TargetRef, Error> {
    run.targets.first().ok_or_else(|| Error::not_found("this terminal has no target"))
}

/// `terminal.open`: a run with one target, which is named literally. Its id is its key.
async fn open(ctx: Ctx, params: OpenParams) -> Result<RunReply, Error> {
    let settings = &ctx.hub.config.terminals;
    let mut exec = params.exec;
    if exec.terminal.is_none() {
        return Err(Error::invalid("exec.terminal is missing: its window and kind"));
    }
    exec.stdin = true;
    exec.output_bytes = exec.output_bytes.min(settings.recording_bytes);
    exec.spool_bytes = exec.spool_bytes.min(settings.spool_bytes);
    let params = CreateParams {
        key: params.key,
        on: vec![params.host],
        exec,
        offline: OfflinePolicy::Fail,
        expires_ms: default_expires_ms(),
        max_parallel: None,
    };
    runs::create_on(ctx, params, |ctx, params| {
        let name = params.on.first().map(String::as_str).unwrap_or_default();
        let Some(host) = ctx.hub.store.view(|view| view.find_host(name).cloned()) else {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(Error::not_found(format!(
                "there is no host '{shown}'; 'datacentered host list' shows what there is"
            )));
        };
        ctx.scope.require(&ctx.hub, &host)?;
        Ok([(host.name.clone(), host.id)].into())
    })
    .await
}

async fn list(ctx: Ctx, params: ListParams) -> Result<ListReply, Error> {
    let hub = &ctx.hub;
    let limit = params.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
    let mut reply = ListReply::default();
    let mut jobs = Vec::new();
    hub.store.view(|view| {
        let before = |id: &RunId| params.next.is_none_or(|next| *id < next);
        let terminals = view.runs.iter().rev().filter(|(_, run)| run.exec.terminal.is_some());
        for (id, run) in terminals.filter(|(id, _)| before(id)) {
            if params.active && run.ended.is_some() {
                continue;
            }
            let Some(target) = run.targets.first() else { continue };
            if !ctx.scope.allows_id(hub, view, target.host) {
                continue;
            }
            if let Some(host) = &params.host
                && target.name != *host
                && target.host.to_string() != *host
            {
                continue;
            }
            if reply.terminals.len() >= limit {
                reply.next = reply.terminals.last().map(|terminal| terminal.summary.run);
                break;
            }
            let (watchers, writers) = hub.terminals.counts(*id);
            reply.terminals.push(Terminal {
                summary: runs::summary(hub, view, &ctx.scope, run),
                host: target.name.clone(),
                watchers,
                writers,
                recorded_bytes: 0,
                outcome: view.jobs.get(&target.job).and_then(|job| job.outcome.clone()),
            });
            jobs.push(target.job);
        }
    });
    for (terminal, job) in reply.terminals.iter_mut().zip(jobs) {
        let state = hub.engine.log().state(&output_log(job)?).await.map_err(engine_error)?;
        terminal.recorded_bytes = state.map_or(0, |state| state.end - state.oldest);
    }
    Ok(reply)
}

//! `run.output`: one target's output from a cursor, then as it comes, until behind its last byte.

use std::sync::Arc;

use datacentered_proto::ops::run::OutputParams;
use datacentered_proto::ops::{EndReason, GapReason, StreamOpened};
use datacentered_proto::{Cursor, Error, HostId, JobId, RunId};
use tokio::sync::broadcast::error::RecvError;

use super::views;
use crate::access::{Scope, outside};
use crate::dispatch::Ctx;
use crate::hub::Hub;
use crate::jobs::{self, Chunk};
use crate::outlet::{self, Body, Outlet, ReaderGone};
use crate::store::records::TargetRef;
use crate::store::{Changed, engine_error};

/// Bytes read from the log at a time.
const PAGE_BYTES: usize = 128 * 1024;

pub(super) async fn output(ctx: Ctx, params: OutputParams) -> Result<(StreamOpened, Body), Error> {
    let hub = ctx.hub.clone();
    let run = views::find(&hub, &ctx.scope, params.run)?;
    views::check_no_terminal(&run, "terminal.output")?;
    let target = views::one_target(&hub, &ctx.scope, &run, params.host.as_deref())?;
    let epoch = hub.engine.epoch().to_owned();
    let from = match &params.cursor {
        Some(cursor) if cursor.epoch == epoch => cursor.offset,
        Some(_) => return Ok(outlet::gone(epoch)),
        None => params.from,
    };
    let opened = StreamOpened { cursor: Some(Cursor::new(epoch, from)), credit: None };
    let run = params.run;
    let scope = ctx.scope.clone();
    let body: Body = Box::new(move |outlet| {
        Box::pin(async move { write(&hub, &scope, run, &target, from, outlet).await })
    });
    Ok((opened, body))
}

/// Writes a target's output from an offset to its end, for as long as its host is in the reader's scope.
pub(crate) async fn write(
    hub: &Arc<Hub>,
    scope: &Scope,
    run: RunId,
    target: &TargetRef,
    from: u64,
    mut outlet: Outlet,
) {
    let mut at = from;
    let followed = tokio::select! {
        followed = follow(hub, run, target.job, &mut at, &mut outlet) => followed,
        () = left_scope(hub, scope, target.host) => Ok(Some(outside(&target.name))),
    };
    match followed {
        Ok(None) => outlet.end(EndReason::Done, at, None).await,
        Ok(Some(error)) => outlet.end(EndReason::Failed, at, Some(error)).await,
        Err(ReaderGone) => {}
    }
}

/// Returns once the host is outside the reader's scope: what it writes from then on is not the reader's to see.
pub(crate) async fn left_scope(hub: &Hub, scope: &Scope, host: HostId) {
    if !scope.is_limited() {
        return std::future::pending().await;
    }
    let mut changes = hub.store.changes();
    while hub.store.view(|view| scope.allows_id(hub, view, host)) {
        loop {
            match changes.recv().await {
                Ok(change) => match change.what {
                    Changed::Host(id) | Changed::HostRemoved(id, _) if id == host => break,
                    _ => {}
                },
                Err(RecvError::Lagged(_)) => break,
                // The hub is going down, which the reader is told elsewhere.
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }
}

/// Where the output ends, once that is certain, and whether the hub holds all that will ever come of it.
fn final_offset(hub: &Hub, job: JobId) -> Option<(u64, bool)> {
    hub.store.view(|view| match view.jobs.get(&job) {
        Some(job) => job.outcome.is_some().then_some((job.record_bytes(), job.output_complete)),
        // No longer kept.
        None => Some((0, true)),
    })
}

async fn follow(
    hub: &Arc<Hub>,
    run: RunId,
    job: JobId,
    at: &mut u64,
    outlet: &mut Outlet,
) -> Result<Option<Error>, ReaderGone> {
    // Subscribed before anything is looked at, so that nothing falls between.
    let mut changes = hub.store.changes();
    let log = match jobs::output_log(job) {
        Ok(log) => log,
        Err(error) => return Ok(Some(error)),
    };
    let mut tail = match hub.engine.log().tail(&log).await {
        Ok(tail) => tail,
        Err(error) => return Ok(Some(engine_error(error))),
    };
    loop {
        tail.borrow_and_update();
        let (chunks, behind) = match jobs::read_output(hub, job, *at, PAGE_BYTES).await {
            Ok(read) => read,
            Err(error) => return Ok(Some(error)),
        };
        for chunk in chunks {
            match chunk {
                Chunk::Bytes(kind, offset, bytes) => outlet.bytes(kind, offset, bytes).await?,
                Chunk::Gap(from, to, reason) => outlet.gap(from, to, reason).await?,
            }
        }
        if behind > *at {
            *at = behind;
            continue;
        }
        match final_offset(hub, job) {
            Some((end, _)) if *at >= end => return Ok(None),
            // All that will ever come is there, and it is less than was written.
            Some((end, true)) => {
                outlet.gap(*at, end, GapReason::Retention).await?;
                *at = end;
                return Ok(None);
            }
            _ => {}
        }
        // Waits for bytes, or for word of the job itself.
        loop {
            tokio::select! {
                () = outlet.closed() => return Err(ReaderGone),
                changed = tail.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(Some(Error::unavailable("the hub is going down"))),
                },
                change = changes.recv() => match change {
                    Ok(change) if change.what == Changed::Job(run, job) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(Some(Error::unavailable("the hub is going down"))),
                },
            }
        }
    }
}

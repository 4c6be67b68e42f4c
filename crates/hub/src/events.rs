//! The one ordered event log: filled from the outbox, read from any cursor, then followed.

use std::sync::Arc;

use datacentered_engine::{Error as EngineError, LogName};
use datacentered_proto::operations::EventWatch;
use datacentered_proto::ops::event::{Event, WatchParams};
use datacentered_proto::ops::{EndReason, GapReason, StreamOpened};
use datacentered_proto::{Cursor, Error, HostId, JobId, RunId};

use crate::access::Scope;
use crate::dispatch::{Ctx, Table};
use crate::hub::Hub;
use crate::outlet::{self, Body, Outlet, ReaderGone};
use crate::runs;
use crate::store::{EVENT_LOG, engine_error};

/// Bytes read from the log at a time.
const PAGE_BYTES: usize = 256 * 1024;

/// Most kinds in a filter.
const MAX_KINDS: usize = 32;

/// Registers this noun's operations.
pub(crate) fn register(table: &mut Table) {
    table.stream::<EventWatch, _, _, _, _>(watch);
}

async fn watch(ctx: Ctx, params: WatchParams) -> Result<(StreamOpened, Body), Error> {
    if params.kinds.len() > MAX_KINDS {
        return Err(Error::limited(format!("at most {MAX_KINDS} kinds in one filter")));
    }
    let log = LogName::parse(EVENT_LOG).map_err(engine_error)?;
    let state = ctx.hub.engine.log().state(&log).await.map_err(engine_error)?;
    let (oldest, end) = state.map_or((0, 0), |state| (state.oldest, state.end));
    let epoch = ctx.hub.engine.epoch().to_owned();
    let from = match &params.cursor {
        Some(cursor) if cursor.epoch != epoch => return Ok(outlet::gone(epoch)),
        Some(cursor) => cursor.offset,
        None if params.from_start => oldest,
        None => end,
    };
    let opened = StreamOpened { cursor: Some(Cursor::new(epoch, from)), credit: None };
    let (hub, scope) = (ctx.hub.clone(), ctx.scope.clone());
    let body: Body = Box::new(move |outlet| Box::pin(follow(hub, scope, log, from, params.kinds, outlet)));
    Ok((opened, body))
}

async fn follow(
    hub: Arc<Hub>,
    scope: Scope,
    log: LogName,
    mut from: u64,
    kinds: Vec<String>,
    mut outlet: Outlet,
) {
    let Ok(mut tail) = hub.engine.log().tail(&log).await else {
        return outlet
            .end(EndReason::Failed, from, Some(Error::unavailable("the event log is closed")))
            .await;
    };
    loop {
        tail.borrow_and_update();
        match send_page(&hub, &scope, &log, &mut from, &kinds, &mut outlet).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(None) => return,
            Err(Some(error)) => return outlet.end(EndReason::Failed, from, Some(error)).await,
        }
        tokio::select! {
            () = outlet.closed() => return,
            changed = tail.changed() => if changed.is_err() {
                return outlet.end(EndReason::Failed, from, Some(Error::unavailable("the hub is going down"))).await;
            },
        }
    }
}

/// Sends what one read finds; says whether there may be more at once. `Err(None)`: the reader has gone.
async fn send_page(
    hub: &Hub,
    scope: &Scope,
    log: &LogName,
    from: &mut u64,
    kinds: &[String],
    outlet: &mut Outlet,
) -> Result<bool, Option<Error>> {
    let page = match hub.engine.log().read(log, *from, PAGE_BYTES).await {
        Ok(page) => page,
        Err(EngineError::Gap { oldest }) => {
            outlet.gap(*from, oldest, GapReason::Retention).await.map_err(|ReaderGone| None)?;
            *from = oldest;
            return Ok(true);
        }
        Err(EngineError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(Some(engine_error(error))),
    };
    let any = !page.items.is_empty();
    for item in page.items {
        let behind = item.offset + item.span;
        if let Ok(event) = serde_json::from_slice::<Event>(&item.payload)
            && (kinds.is_empty() || kinds.iter().any(|kind| event.kind.starts_with(kind.as_str())))
            && let Some(event) = as_seen(hub, scope, event)
        {
            let cursor = Cursor::new(hub.engine.epoch(), behind);
            outlet.item(&cursor, &event).await.map_err(|ReaderGone| None)?;
        }
        *from = behind;
    }
    Ok(any)
}

/// Particulars of a run that are about all of its targets.
const ABOUT_ALL_TARGETS: &[&str] = &["on", "targets", "succeeded", "failed"];

/// The event as a reader may see it who may see only the hosts in `scope`: those of hosts in it, of their jobs, and of
/// runs with a target there; of the hub itself only what is about no host, account or token.
fn as_seen(hub: &Hub, scope: &Scope, mut event: Event) -> Option<Event> {
    if !scope.is_limited() {
        return Some(event);
    }
    let text = |member: &str| event.detail.get(member).and_then(serde_json::Value::as_str);
    let noun = event.kind.split('.').next().unwrap_or_default();
    let seen = hub.store.view(|view| match noun {
        "host" => {
            let host = text("host").and_then(|id| id.parse::<HostId>().ok());
            host.is_some_and(|host| scope.allows_id(hub, view, host))
        }
        "job" => {
            let job = text("job").and_then(|id| id.parse::<JobId>().ok());
            let job = job.and_then(|job| view.jobs.get(&job));
            job.is_some_and(|job| scope.allows_id(hub, view, job.host))
        }
        "run" => {
            let run = event.about.parse::<RunId>().ok().and_then(|run| view.runs.get(&run));
            run.is_some_and(|run| runs::visible(hub, view, scope, run))
        }
        "hub" => true,
        _ => false,
    });
    if !seen {
        return None;
    }
    if let (true, Some(detail)) = (noun == "run", event.detail.as_object_mut()) {
        detail.retain(|member, _| !ABOUT_ALL_TARGETS.contains(&member.as_str()));
    }
    Some(event)
}

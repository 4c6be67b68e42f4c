//! The one ordered event log: filled from the outbox, read from any cursor, then followed.

use std::sync::Arc;

use datacentered_engine::{Error as EngineError, LogName};
use datacentered_proto::operations::EventWatch;
use datacentered_proto::ops::event::{Event, WatchParams};
use datacentered_proto::ops::{EndReason, GapReason, StreamOpened};
use datacentered_proto::{Cursor, Error};

use crate::dispatch::{Ctx, Table};
use crate::hub::Hub;
use crate::outlet::{self, Body, Outlet, ReaderGone};
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
    let hub = ctx.hub.clone();
    let body: Body = Box::new(move |outlet| Box::pin(follow(hub, log, from, params.kinds, outlet)));
    Ok((opened, body))
}

async fn follow(hub: Arc<Hub>, log: LogName, mut from: u64, kinds: Vec<String>, mut outlet: Outlet) {
    let Ok(mut tail) = hub.engine.log().tail(&log).await else {
        return outlet
            .end(EndReason::Failed, from, Some(Error::unavailable("the event log is closed")))
            .await;
    };
    loop {
        tail.borrow_and_update();
        match send_page(&hub, &log, &mut from, &kinds, &mut outlet).await {
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
        {
            let cursor = Cursor::new(hub.engine.epoch(), behind);
            outlet.item(&cursor, &event).await.map_err(|ReaderGone| None)?;
        }
        *from = behind;
    }
    Ok(any)
}

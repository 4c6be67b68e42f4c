//! `terminal.output`: what a terminal printed, from a cursor or near its end, then as it comes.

use datacentered_engine::Error as EngineError;
use datacentered_proto::ops::StreamOpened;
use datacentered_proto::ops::terminal::OutputParams;
use datacentered_proto::{Cursor, Error, JobId};

use super::attached::{Attached, Role};
use super::ops::{find, target_of};
use crate::dispatch::Ctx;
use crate::hub::Hub;
use crate::jobs::output_log;
use crate::outlet::{self, Body};
use crate::runs::write_output;
use crate::store::engine_error;

pub(super) async fn output(ctx: Ctx, params: OutputParams) -> Result<(StreamOpened, Body), Error> {
    let hub = ctx.hub.clone();
    let run = find(&hub, &ctx.scope, params.run)?;
    let target = target_of(&run)?.clone();
    let epoch = hub.engine.epoch().to_owned();
    let mut credit = None;
    let from = match (&params.cursor, params.tail) {
        (Some(cursor), _) if cursor.epoch == epoch => cursor.offset,
        (Some(_), _) => return Ok(outlet::gone(epoch)),
        (None, Some(tail)) if params.from == 0 => {
            let from = near_end(&hub, target.job, tail).await?;
            credit = Some(from);
            from
        }
        (None, _) => params.from,
    };
    let attached = Attached::new(&ctx, &run, Role::Watcher).await?;
    let opened = StreamOpened { cursor: Some(Cursor::new(epoch, from)), credit };
    let scope = ctx.scope.clone();
    let body: Body = Box::new(move |outlet| {
        Box::pin(async move {
            write_output(&hub, &scope, params.run, &target, from, outlet).await;
            drop(attached);
        })
    });
    Ok((opened, body))
}

/// The beginning of the piece of the recording that lies `tail` bytes before its end.
async fn near_end(hub: &Hub, job: JobId, tail: u64) -> Result<u64, Error> {
    let log = output_log(job)?;
    let Some(state) = hub.engine.log().state(&log).await.map_err(engine_error)? else { return Ok(0) };
    let from = state.end.saturating_sub(tail).max(state.oldest);
    match hub.engine.log().read(&log, from, 1).await {
        Ok(page) => Ok(page.items.first().map_or(from, |item| item.offset)),
        Err(EngineError::Gap { oldest }) => Ok(oldest),
        Err(error) => Err(engine_error(error)),
    }
}

//! `run.input`: what the caller sends is kept in a log, from which every job is fed.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use datacentered_engine::kv::Durability;
use datacentered_engine::{Append, Error as EngineError, LogName, Position};
use datacentered_link::{BoxFuture, StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::run::InputParams;
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::{Cursor, Error};

use super::views;
use crate::dispatch::Ctx;
use crate::hub::Hub;
use crate::jobs::{TAG_DATA, TAG_END, input_log};
use crate::store::engine_error;

/// Bytes that the caller may send ahead.
const WINDOW: u64 = 256 * 1024;

type Body = Box<dyn FnOnce(StreamReader) -> BoxFuture<'static, ()> + Send>;

pub(super) async fn input(ctx: Ctx, params: InputParams) -> Result<(StreamOpened, u64, Body), Error> {
    let hub = ctx.hub.clone();
    let run = views::find(&hub, &ctx.scope, params.run)?;
    views::check_no_terminal(&run, "terminal.input")?;
    // What is sent goes to every target, so that every one must be the caller's.
    let mine = hub.store.view(|view| views::targets(&hub, view, &ctx.scope, &run).len());
    if mine < run.target_count as usize {
        return Err(Error::forbidden(
            "standard input goes to every target of a run, and this one has targets on hosts that your role does not \
             reach",
        ));
    }
    if !run.exec.stdin {
        return Err(Error::conflict(
            "this run was created without standard input; its commands read /dev/null",
        ));
    }
    if run.ended.is_some() {
        return Err(Error::conflict("this run has ended; nothing reads its standard input any more"));
    }
    let log = input_log(params.run)?;
    let state = hub.engine.log().state(&log).await.map_err(engine_error)?;
    let held = state.map_or(0, |state| state.end);
    if ended(&hub, &log, held).await? {
        return Err(Error::conflict("the standard input of this run has come to its end already"));
    }
    if held >= hub.config.limits.input_bytes {
        return Err(over(hub.config.limits.input_bytes));
    }
    let opened =
        StreamOpened { cursor: Some(Cursor::new(hub.engine.epoch(), held)), credit: Some(held + WINDOW) };
    let id = params.run;
    let body: Body = Box::new(move |reader| {
        Box::pin(async move {
            if let Err(error) = take_in(&hub, &log, held, reader).await {
                tracing::info!(run = %id, %error, "standard input was not taken to its end");
            }
        })
    });
    Ok((opened, held, body))
}

async fn take_in(
    hub: &Arc<Hub>,
    log: &LogName,
    mut held: u64,
    mut reader: StreamReader,
) -> Result<(), Error> {
    let limit = hub.config.limits.input_bytes;
    while let Some(event) = reader.next().await {
        match event {
            StreamEvent::Bytes { kind: Kind::Stdin, offset, payload } => {
                if offset + payload.len() as u64 > limit {
                    return Err(over(limit));
                }
                held = append(hub, log, offset, payload).await?;
            }
            StreamEvent::End(end) if end.reason == EndReason::Done => {
                append_item(hub, log, held, 1, Bytes::from_static(&[TAG_END])).await?;
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn over(limit: u64) -> Error {
    Error::too_large(format!(
        "standard input is over {limit} bytes (limits.input_bytes); cancel the run, and copy larger data as files"
    ))
}

/// Whether the end of file is the last thing in the log.
async fn ended(hub: &Hub, log: &LogName, held: u64) -> Result<bool, Error> {
    if held == 0 {
        return Ok(false);
    }
    let page = hub.engine.log().read(log, held - 1, 1).await.map_err(engine_error)?;
    Ok(page.items.last().is_some_and(|item| item.payload.first() == Some(&TAG_END)))
}

async fn append(hub: &Hub, log: &LogName, offset: u64, payload: Bytes) -> Result<u64, Error> {
    if payload.is_empty() {
        return Ok(offset);
    }
    let span = payload.len() as u64;
    let mut item = BytesMut::with_capacity(payload.len() + 1);
    item.put_u8(TAG_DATA);
    item.extend_from_slice(&payload);
    append_item(hub, log, offset, span, item.freeze()).await
}

async fn append_item(hub: &Hub, log: &LogName, offset: u64, span: u64, payload: Bytes) -> Result<u64, Error> {
    let append = Append { position: Position::At(offset), span, payload };
    match hub.engine.log().append(log, vec![append], Durability::Interval).await {
        Ok(state) => Ok(state.end),
        Err(EngineError::Hole { end }) => {
            Err(Error::invalid(format!("standard input goes on at offset {end}; some of it was left out")))
        }
        Err(error) => Err(engine_error(error)),
    }
}

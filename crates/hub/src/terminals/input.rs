//! `terminal.input`: what clients type, each byte once and in the order of its writer.
//!
//! All writers share the run's input log, from which the host is fed as any standard input is. An item goes in whole, and
//! says how far each writer is ([`Typed`]): the bytes and that knowledge are one write. It is synced within the engine's
//! interval, as output is: an echo waits for no disk. A hub that is killed loses nothing; a machine that loses its power
//! may lose what was typed in its last moments, and never types it twice.

use std::sync::Arc;

use bytes::Bytes;
use datacentered_engine::kv::Durability;
use datacentered_engine::{Append, Error as EngineError, Position};
use datacentered_link::{BoxFuture, StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::StreamOpened;
use datacentered_proto::ops::terminal::InputParams;
use datacentered_proto::{Cursor, Error, OperationKey, RunId};
use tokio::sync::broadcast::error::RecvError;

use super::Terminal;
use super::attached::{Attached, Role};
use super::ops::{find, target_of};
use crate::dispatch::Ctx;
use crate::hub::Hub;
use crate::jobs::{Typed, input_log};
use crate::runs::left_scope;
use crate::store::{Changed, engine_error};

/// Bytes that a writer may send ahead.
const WINDOW: u64 = 64 * 1024;

/// Writers that are remembered beyond those that are there, so that they may come back.
const REMEMBERED: usize = 16;

/// Where a terminal's input stands.
#[derive(Debug)]
pub(super) struct Held {
    typed: Typed,
    end: u64,
}

type Body = Box<dyn FnOnce(StreamReader) -> BoxFuture<'static, ()> + Send>;

pub(super) async fn input(ctx: Ctx, params: InputParams) -> Result<(StreamOpened, u64, Body), Error> {
    let hub = ctx.hub.clone();
    let run = find(&hub, &ctx.scope, params.run)?;
    let host = target_of(&run)?.host;
    let scope = ctx.scope.clone();
    if run.ended.is_some() {
        return Err(Error::conflict("this terminal has ended; nobody reads what is typed into it any more"));
    }
    let attached = Attached::new(&ctx, &run, Role::Writer).await?;
    let held = held(&hub, &attached.terminal, params.run, params.writer).await?;
    let opened =
        StreamOpened { cursor: Some(Cursor::new(hub.engine.epoch(), held)), credit: Some(held + WINDOW) };
    let body: Body = Box::new(move |reader| {
        Box::pin(async move {
            let (id, writer) = (params.run, params.writer);
            let taken = tokio::select! {
                taken = take_in(&hub, &attached.terminal, id, writer, reader) => taken,
                () = ended(&hub, id) => Ok(()),
                () = left_scope(&hub, &scope, host) => Ok(()),
            };
            if let Err(error) = taken {
                tracing::info!(run = %id, %error, "what was typed was not taken to its end");
            }
        })
    });
    Ok((opened, held, body))
}

/// Waits until the terminal has ended.
async fn ended(hub: &Hub, run: RunId) {
    let mut changes = hub.store.changes();
    while hub.store.view(|view| view.active_runs.contains(&run)) {
        loop {
            match changes.recv().await {
                Ok(change) if change.what == Changed::Run(run) => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

async fn take_in(
    hub: &Arc<Hub>,
    terminal: &Terminal,
    run: RunId,
    writer: OperationKey,
    mut reader: StreamReader,
) -> Result<(), Error> {
    let mut fed = terminal.fed.subscribe();
    while let Some(event) = reader.next().await {
        // The end of the stream, however it comes, ends the writer only.
        let StreamEvent::Bytes { kind: Kind::Stdin, offset, payload } = event else { return Ok(()) };
        let end = append(hub, terminal, run, writer, offset, payload).await?;
        // Far ahead of the host nothing more is taken, and so no more credit given.
        let ahead = hub.config.terminals.input_ahead_bytes;
        if fed.wait_for(|fed| end.saturating_sub(*fed) <= ahead).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// How far the hub holds what a writer has typed.
async fn held(hub: &Hub, terminal: &Terminal, run: RunId, writer: OperationKey) -> Result<u64, Error> {
    let mut held = terminal.input.lock().await;
    Ok(load(hub, run, &mut held).await?.typed.held(writer))
}

/// Reads from the log where the input stands, unless that is known.
async fn load<'a>(hub: &Hub, run: RunId, held: &'a mut Option<Held>) -> Result<&'a mut Held, Error> {
    let known = if let Some(known) = held.take() {
        known
    } else {
        let log = input_log(run)?;
        let state = hub.engine.log().state(&log).await.map_err(engine_error)?;
        let end = state.map_or(0, |state| state.end);
        let mut typed = Typed::default();
        if end > 0 {
            let page = hub.engine.log().read(&log, end - 1, 1).await.map_err(engine_error)?;
            typed = page.items.last().map(|item| Typed::decode(&item.payload)).unwrap_or_default();
        }
        Held { typed, end }
    };
    Ok(held.insert(known))
}

/// Adds what is new of a writer's bytes; returns the end of the input.
async fn append(
    hub: &Hub,
    terminal: &Terminal,
    run: RunId,
    writer: OperationKey,
    offset: u64,
    payload: Bytes,
) -> Result<u64, Error> {
    let mut slot = terminal.input.lock().await;
    let Held { typed, end } = load(hub, run, &mut slot).await?;
    let known = typed.held(writer);
    if offset > known {
        return Err(Error::invalid(format!("this writer goes on at offset {known}; some was left out")));
    }
    // Over two links at once, of which one is about to end, the same may come twice.
    let skip = usize::try_from(known - offset).unwrap_or(usize::MAX).min(payload.len());
    let fresh = payload.slice(skip..);
    if fresh.is_empty() {
        return Ok(*end);
    }
    let mut writers = typed.writers.clone();
    writers.retain(|(id, _)| *id != writer);
    let most = REMEMBERED + hub.config.terminals.writers;
    writers.drain(..(writers.len() + 1).saturating_sub(most));
    writers.push((writer, known + fresh.len() as u64));
    let next = Typed { writers };
    let item =
        Append { position: Position::At(*end), span: fresh.len() as u64, payload: next.encode(&fresh) };
    let log = input_log(run)?;
    match hub.engine.log().append(&log, vec![item], Durability::Interval).await {
        Ok(state) => {
            *slot = Some(Held { typed: next, end: state.end });
            Ok(state.end)
        }
        Err(error) => {
            // It may have happened: the log knows.
            *slot = None;
            Err(match error {
                EngineError::Hole { .. } => Error::unavailable("the input went on elsewhere; open it again"),
                error => engine_error(error),
            })
        }
    }
}

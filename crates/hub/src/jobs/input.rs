//! A run's standard input: kept in a log of the hub's, fed from there to every job at its own pace.
//!
//! The log's offsets are the input's bytes; the end of file is one more item of span one. What is typed into a terminal
//! comes from several writers and has no end: see [`super::typed`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datacentered_engine::{Error as EngineError, LogName};
use datacentered_link::{Link, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::JobInput;
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::job::InputParams;
use datacentered_proto::{Code, Error, JobId, RunId};

use super::typed;
use crate::hub::Hub;
use crate::store::engine_error;
use crate::terminals;

/// Bytes read from the log at a time.
const PAGE_BYTES: usize = 128 * 1024;

/// Pause before a host that had no room is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// The first byte of an item that is data.
pub(crate) const TAG_DATA: u8 = 0;

/// The first byte of the item that is the end of file.
pub(crate) const TAG_END: u8 = 1;

/// The first byte of an item that was typed into a terminal.
pub(crate) const TAG_TYPED: u8 = 2;

/// Bytes of a terminal's input that are kept behind what was sent: more than any host grants ahead.
const KEPT_BYTES: u64 = 1 << 20;

/// The log that holds a run's input.
pub(crate) fn input_log(run: RunId) -> Result<LogName, Error> {
    LogName::from_tokens(["input", &run.to_string()]).map_err(engine_error)
}

/// Feeds a job's standard input over this link until its end of file.
pub(crate) fn feed(hub: &Arc<Hub>, job: JobId, link: &Link) {
    let (hub, link) = (hub.clone(), link.clone());
    let tasks = hub.tasks.clone();
    tasks.spawn("job input", async move {
        loop {
            let result = tokio::select! {
                result = feed_all(&hub, job, &link) => result,
                _ = link.closed() => return,
                () = hub.stop.cancelled() => return,
            };
            match result {
                // The host had no room for another stream at the moment.
                Err(error) if matches!(error.code, Code::Limited | Code::Unavailable) => {}
                Err(error) => {
                    tracing::info!(%job, %error, "standard input was not taken to its end");
                    return;
                }
                // The host let go of it, such as for a disk that is full; the process may still want it.
                Ok(Fed::Stopped) if is_open(&hub, job) => {}
                Ok(Fed::Whole | Fed::Stopped) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = link.closed() => return,
                () = hub.stop.cancelled() => return,
            }
        }
    });
}

/// How far the feeding came.
enum Fed {
    /// To the end of the input.
    Whole,
    /// The host took no more.
    Stopped,
}

fn is_open(hub: &Hub, job: JobId) -> bool {
    hub.store.view(|view| view.jobs.get(&job).is_some_and(|job| job.outcome.is_none()))
}

async fn feed_all(hub: &Arc<Hub>, job: JobId, link: &Link) -> Result<Fed, Error> {
    let found = hub.store.view(|view| view.jobs.get(&job).map(|job| job.record.clone()));
    let Some(record) = found else { return Ok(Fed::Stopped) };
    let run = record.run;
    let log = input_log(run)?;
    let terminal = record.recording_bytes.map(|_| hub.terminals.get(run));
    if terminal.is_some() {
        // The size may have changed while the host was away.
        terminals::tell_window(hub, job, link).await;
    }
    let (opened, writer) = link.upload::<JobInput>(|stream| InputParams { job, stream }).await?;
    let held = opened.cursor.map_or(0, |cursor| cursor.offset);
    let mut tail = hub.engine.log().tail(&log).await.map_err(engine_error)?;
    let mut at = held;
    let mut writer = writer;
    let mut kept_from = 0;
    loop {
        if let Some(terminal) = &terminal {
            terminal.fed.send_replace(at);
            kept_from = forget_taken(hub, &log, at, kept_from).await?;
        }
        tail.borrow_and_update();
        let page = match hub.engine.log().read(&log, at, PAGE_BYTES).await {
            Ok(page) => page.items,
            Err(EngineError::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(engine_error(error)),
        };
        if page.is_empty() {
            tokio::select! {
                changed = tail.changed() => if changed.is_err() { return Ok(Fed::Stopped) },
                () = writer.closed() => return Ok(Fed::Stopped),
            }
            continue;
        }
        for item in page {
            if item.payload.first() == Some(&TAG_END) {
                let ended = writer.end(EndReason::Done, item.offset, None).await;
                return Ok(if ended.is_ok() { Fed::Whole } else { Fed::Stopped });
            }
            let skip = at.saturating_sub(item.offset) as usize;
            let data = if item.payload.first() == Some(&TAG_TYPED) {
                typed::bytes(&item.payload)
            } else {
                item.payload.slice(1.min(item.payload.len())..)
            };
            let data = data.slice(skip.min(data.len())..);
            if !send(&mut writer, at, data).await {
                return Ok(Fed::Stopped);
            }
            at = item.offset + item.span;
        }
    }
}

/// Drops what a terminal's host has taken. It grants credit only for that, so what lies further back than it lets anyone
/// run ahead is with it. The last item always stays: it says how far each writer is.
async fn forget_taken(hub: &Hub, log: &LogName, at: u64, kept_from: u64) -> Result<u64, Error> {
    if at - kept_from.min(at) < 2 * KEPT_BYTES {
        return Ok(kept_from);
    }
    let keep = at - KEPT_BYTES;
    hub.engine.log().trim(log, keep).await.map_err(engine_error)?;
    Ok(keep)
}

async fn send(writer: &mut StreamWriter, offset: u64, data: Bytes) -> bool {
    writer.send_bytes(Kind::Stdin, offset, data).await.is_ok()
}

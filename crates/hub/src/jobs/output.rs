//! A job's output: pulled from its host into a log of the hub's, and read from there.
//!
//! The log's offsets are the job's: payload bytes of both streams together, discarded ones included. An item of the log
//! is one byte that says what it is, then the bytes; a stretch that is gone is an item with a span and no bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use datacentered_engine::kv::{Durability, Expect};
use datacentered_engine::{Append, Error as EngineError, LogName, LogState, Position};
use datacentered_link::{Link, StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{JobAck, JobOutput};
use datacentered_proto::ops::job::{AckParams, OutputParams};
use datacentered_proto::ops::{EndReason, GapReason};
use datacentered_proto::{Code, Error, HostId, JobId};
use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::report;
use crate::hub::Hub;
use crate::store::{Change, engine_error};

/// Bytes of one log item at most.
const ITEM_BYTES: usize = 64 * 1024;

/// Bytes gathered before they are appended, where more is readable at once.
const GATHER_BYTES: usize = 256 * 1024;

/// Bytes that the host may drop from its spool are told this often, or a quarter of a smaller spool.
const ACK_BYTES: u64 = 4 << 20;

/// Pause before an append that failed is tried again: the spool on the host keeps everything meanwhile.
const RETRY: Duration = Duration::from_secs(1);

const TAG_RETENTION: u8 = 0x80;
const TAG_DISCARDED: u8 = 0x81;
const TAG_LOST: u8 = 0x82;

/// The log that holds a job's output.
pub fn output_log(job: JobId) -> Result<LogName, Error> {
    LogName::from_tokens(["output", &job.to_string()]).map_err(engine_error)
}

/// The jobs whose output is being pulled, and how far it has come.
#[derive(Debug, Default)]
pub struct Outputs {
    pulling: Mutex<HashMap<JobId, Pulling>>,
}

#[derive(Debug)]
struct Pulling {
    link: u64,
    stored: watch::Sender<u64>,
    /// The host has sent all that it has.
    ended: bool,
}

impl Outputs {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Pulling>> {
        // A plain map: whole after any panic.
        self.pulling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the pulling of a job's output over a link; false where that link does it already.
    fn claim(&self, job: JobId, link: &Link) -> bool {
        let mut pulling = self.lock();
        match pulling.get_mut(&job) {
            Some(entry) if entry.link == link.id() => false,
            Some(entry) => {
                entry.link = link.id();
                true
            }
            None => {
                pulling.insert(job, Pulling { link: link.id(), stored: watch::channel(0).0, ended: false });
                true
            }
        }
    }

    fn is_claimed_by(&self, job: JobId, link: &Link) -> bool {
        self.lock().get(&job).is_some_and(|entry| entry.link == link.id())
    }

    fn release_claim(&self, job: JobId, link: &Link) {
        let mut pulling = self.lock();
        if pulling.get(&job).is_some_and(|entry| entry.link == link.id()) {
            pulling.remove(&job);
        }
    }

    fn set_stored(&self, job: JobId, end: u64) {
        if let Some(entry) = self.lock().get(&job) {
            entry.stored.send_replace(end);
        }
    }

    fn set_ended(&self, job: JobId) {
        if let Some(entry) = self.lock().get_mut(&job) {
            entry.ended = true;
        }
    }

    fn has_ended(&self, job: JobId) -> bool {
        self.lock().get(&job).is_some_and(|entry| entry.ended)
    }

    /// How far the output has come that is being pulled.
    pub fn stored(&self, job: JobId) -> Option<u64> {
        self.lock().get(&job).map(|entry| *entry.stored.borrow())
    }

    /// Waits a little for the last bytes. Says whether all are there.
    pub(super) async fn wait_until_complete(&self, job: JobId, total: u64, patience: Duration) -> bool {
        let Some(mut stored) = self.lock().get(&job).map(|entry| entry.stored.subscribe()) else {
            return false;
        };
        tokio::time::timeout(patience, stored.wait_for(|stored| *stored >= total))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Everything is on disk.
    pub(super) fn forget(&self, job: JobId) {
        self.lock().remove(&job);
    }
}

/// Sees to it that a job's output is pulled over this link.
pub(super) fn ensure_pulling(hub: &Arc<Hub>, job: JobId, host: HostId, link: &Link) {
    let complete = hub.store.view(|view| view.jobs.get(&job).is_none_or(|job| job.output_complete));
    if complete || !hub.outputs.claim(job, link) {
        return;
    }
    let (hub, link) = (hub.clone(), link.clone());
    let tasks = hub.tasks.clone();
    tasks.spawn("job output", async move {
        loop {
            let result = tokio::select! {
                result = pull(&hub, job, &link) => result,
                _ = link.closed() => break,
                () = hub.stop.cancelled() => break,
            };
            match result {
                Ok(true) => {
                    hub.outputs.set_ended(job);
                    settle(&hub, job, host, &link).await;
                    break;
                }
                Ok(false) => {}
                Err(error) => tracing::info!(%job, %error, "output cannot be pulled at the moment"),
            }
            // The host had no room for another stream, or broke it off: again, for as long as the link is up.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = link.closed() => break,
                () = hub.stop.cancelled() => break,
            }
        }
        hub.outputs.release_claim(job, &link);
    });
}

/// Pulls until the end; false when the link ended before.
async fn pull(hub: &Arc<Hub>, job: JobId, link: &Link) -> Result<bool, Error> {
    let log = output_log(job)?;
    let (spool, keep) = hub.store.view(|view| {
        let record = view.jobs.get(&job);
        let run = record.and_then(|job| view.runs.get(&job.run));
        let spool = run.map_or(ACK_BYTES * 4, |run| run.exec.spool_bytes);
        (spool, record.and_then(|job| job.recording_bytes))
    });
    let mut pull = Pull { log, job, acked: 0, end: 0, ack_bytes: (spool / 4).clamp(1, ACK_BYTES), keep };
    pull.end = end_of(hub, &pull.log).await?;
    pull.acked = pull.end;
    hub.outputs.set_stored(job, pull.end);
    let from = pull.end;
    let opened = link.open::<JobOutput>(from, |stream| OutputParams { job, from, stream }).await;
    let mut reader = match opened {
        Ok((_, reader)) => reader,
        // The host has forgotten it, or never had it; whoever reconciles decides what that means.
        Err(error) if error.code == Code::NotFound => return Ok(true),
        Err(error) if link.is_closed() => {
            tracing::debug!(%job, %error, "the link was lost");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    loop {
        let Some(first) = reader.next().await else { return Ok(false) };
        let (items, ended) = gather(first, &mut reader);
        if !items.is_empty() {
            pull.append(hub, items).await?;
            hub.outputs.set_stored(job, pull.end);
            pull.acknowledge(hub, link).await;
        }
        match ended {
            None => {}
            Some(EndReason::Done) => return Ok(true),
            Some(_) => return Ok(false),
        }
    }
}

async fn end_of(hub: &Hub, log: &LogName) -> Result<u64, Error> {
    Ok(hub.engine.log().state(log).await.map_err(engine_error)?.map_or(0, |state| state.end))
}

struct Pull {
    log: LogName,
    job: JobId,
    /// Below this the host has been told that it may drop it.
    acked: u64,
    end: u64,
    ack_bytes: u64,
    /// Bytes that are kept; all where absent.
    keep: Option<u64>,
}

impl Pull {
    /// Appends; a hub that cannot write waits and tries again, and the host keeps everything meanwhile.
    async fn append(&mut self, hub: &Hub, items: Vec<Append>) -> Result<(), Error> {
        loop {
            let due = items.last().is_some_and(|item| match item.position {
                Position::At(offset) => offset + item.span - self.acked >= self.ack_bytes,
                _ => false,
            });
            let durability = if due { Durability::Always } else { Durability::Interval };
            match hub.engine.log().append(&self.log, items.clone(), durability).await {
                Ok(state) => {
                    self.end = state.end;
                    self.drop_oldest(hub, state).await;
                    return Ok(());
                }
                Err(EngineError::Hole { end }) => {
                    return Err(Error::internal(format!("the host skipped output: expected offset {end}")));
                }
                Err(error) => {
                    tracing::warn!(job = %self.job, %error, "output cannot be stored; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Keeps a recording within its bounds, with a little slack so that it is not trimmed for every append.
    async fn drop_oldest(&self, hub: &Hub, state: LogState) {
        let Some(keep) = self.keep.filter(|keep| state.end - state.oldest > keep + keep / 8) else { return };
        if let Err(error) = hub.engine.log().trim(&self.log, state.end - keep).await {
            tracing::warn!(job = %self.job, %error, "the oldest of a recording could not be dropped now");
        }
    }

    async fn acknowledge(&mut self, hub: &Hub, link: &Link) {
        if self.end - self.acked < self.ack_bytes {
            return;
        }
        let _ = hub;
        let params = AckParams { job: self.job, upto: self.end };
        // What the append synced may go; a lost acknowledgement is made up for by the next.
        if link.call::<JobAck>(&params).await.is_ok() {
            self.acked = self.end;
        }
    }
}

/// One event and whatever else is readable at once, as log items.
fn gather(first: StreamEvent, reader: &mut StreamReader) -> (Vec<Append>, Option<EndReason>) {
    let mut items: Vec<Append> = Vec::new();
    let mut open: Option<(u8, u64, BytesMut)> = None;
    let mut bytes = 0;
    let mut event = Some(first);
    let mut ended = None;
    while let Some(current) = event.take() {
        match current {
            StreamEvent::Bytes { kind, offset, payload } => {
                bytes += payload.len();
                let tag = kind as u8;
                match &mut open {
                    Some((open_tag, start, data))
                        if *open_tag == tag
                            && *start + data.len() as u64 - 1 == offset
                            && data.len() + payload.len() <= ITEM_BYTES =>
                    {
                        data.extend_from_slice(&payload);
                    }
                    _ => {
                        close_item(&mut items, open.take());
                        let mut data = BytesMut::with_capacity(payload.len() + 1);
                        data.put_u8(tag);
                        data.extend_from_slice(&payload);
                        open = Some((tag, offset, data));
                    }
                }
            }
            StreamEvent::Gap(gap) => {
                close_item(&mut items, open.take());
                if gap.to > gap.from {
                    items.push(gap_item(gap.from, gap.to, gap.reason));
                }
            }
            StreamEvent::End(end) => ended = Some(end.reason),
            StreamEvent::Item { .. } => {}
        }
        if ended.is_none() && bytes < GATHER_BYTES {
            event = reader.next().now_or_never().flatten();
        }
    }
    close_item(&mut items, open.take());
    (items, ended)
}

fn close_item(items: &mut Vec<Append>, open: Option<(u8, u64, BytesMut)>) {
    if let Some((_, offset, data)) = open {
        let span = data.len() as u64 - 1;
        if span > 0 {
            items.push(Append { position: Position::At(offset), span, payload: data.freeze() });
        }
    }
}

fn gap_item(from: u64, to: u64, reason: GapReason) -> Append {
    let tag = match reason {
        GapReason::Retention => TAG_RETENTION,
        GapReason::Discarded => TAG_DISCARDED,
        GapReason::Lost => TAG_LOST,
    };
    Append { position: Position::At(from), span: to - from, payload: Bytes::copy_from_slice(&[tag]) }
}

/// A piece of stored output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes of a stream.
    Bytes(Kind, u64, Bytes),
    /// A stretch that is gone.
    Gap(u64, u64, GapReason),
}

/// Reads stored output from an offset: what one read finds, and the offset behind it.
pub async fn read_output(
    hub: &Hub,
    job: JobId,
    from: u64,
    max_bytes: usize,
) -> Result<(Vec<Chunk>, u64), Error> {
    let log = output_log(job)?;
    let page = match hub.engine.log().read(&log, from, max_bytes).await {
        Ok(page) => page,
        Err(EngineError::NotFound { .. }) => return Ok((Vec::new(), from)),
        Err(EngineError::Gap { oldest }) => {
            return Ok((vec![Chunk::Gap(from, oldest, GapReason::Retention)], oldest));
        }
        Err(error) => return Err(engine_error(error)),
    };
    let mut at = from;
    let mut chunks = Vec::with_capacity(page.items.len());
    for item in page.items {
        let behind = item.offset + item.span;
        if behind <= at {
            continue;
        }
        let skip = at.saturating_sub(item.offset);
        let start = item.offset + skip;
        let reason = match item.payload.first().copied() {
            Some(TAG_RETENTION) => Some(GapReason::Retention),
            Some(TAG_DISCARDED) => Some(GapReason::Discarded),
            Some(TAG_LOST) => Some(GapReason::Lost),
            _ => None,
        };
        let kind = item.payload.first().copied().and_then(|tag| Kind::try_from(tag).ok());
        chunks.push(match (reason, kind) {
            (None, Some(kind)) => Chunk::Bytes(kind, start, item.payload.slice(skip as usize + 1..)),
            (reason, _) => Chunk::Gap(start, behind, reason.unwrap_or(GapReason::Lost)),
        });
        at = behind;
    }
    Ok((chunks, at))
}

/// Waits until everything appended to a job's log is on disk.
pub(super) async fn sync(hub: &Hub, job: JobId) -> Result<(), Error> {
    let log = output_log(job)?;
    hub.engine.log().append(&log, Vec::new(), Durability::Always).await.map(|_| ()).map_err(engine_error)
}

/// An ended job whose output may have come to its end: once the hub holds all of it on disk, the host may forget it.
pub(super) async fn settle(hub: &Arc<Hub>, job: JobId, host: HostId, link: &Link) {
    if let Err(error) = try_settle(hub, job, host, link).await {
        tracing::warn!(%job, %error, "an ended job could not be settled now; the next connect tries again");
    }
}

async fn try_settle(hub: &Arc<Hub>, id: JobId, host: HostId, link: &Link) -> Result<(), Error> {
    let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(()) };
    if job.outcome.is_none() || job.host != host {
        return Ok(());
    }
    let total = job.stdout_bytes + job.stderr_bytes;
    let end = if total == 0 { 0 } else { end_of(hub, &output_log(id)?).await? };
    if end < total && !(job.output_complete && job.ended_by_hub()) {
        if hub.outputs.is_claimed_by(id, link) && hub.outputs.has_ended(id) {
            // The host has sent all that it has, and it is less than it said: the rest is lost.
            give_up_output(hub, id).await?;
            report::release(hub, id, link);
        } else if !hub.outputs.is_claimed_by(id, link) {
            // A record that says complete and a log that is shorter: the machine stopped between the two.
            mark_output(hub, id, false).await?;
            ensure_pulling(hub, id, host, link);
        }
        return Ok(());
    }
    if total > 0 {
        sync(hub, id).await?;
    }
    mark_output(hub, id, true).await?;
    report::release(hub, id, link);
    Ok(())
}

async fn mark_output(hub: &Arc<Hub>, id: JobId, complete: bool) -> Result<(), Error> {
    loop {
        let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(()) };
        if job.output_complete == complete {
            return Ok(());
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        let mut record = (*job.record).clone();
        record.output_complete = complete;
        change.put(&record, Expect::Revision(job.revision));
        match hub.store.commit(change).await {
            Err(error) if error.code == Code::Conflict => {}
            result => return result.map(|_| ()),
        }
    }
}

/// The host has no more of an ended job: what the hub does not hold is marked as lost.
pub(crate) async fn give_up_output(hub: &Arc<Hub>, id: JobId) -> Result<(), Error> {
    let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(()) };
    if job.outcome.is_none() {
        return Ok(());
    }
    let total = job.stdout_bytes + job.stderr_bytes;
    let log = output_log(id)?;
    let end = end_of(hub, &log).await?;
    if end < total {
        let lost = vec![gap_item(end, total, GapReason::Lost)];
        hub.engine.log().append(&log, lost, Durability::Always).await.map_err(engine_error)?;
    }
    hub.outputs.forget(id);
    mark_output(hub, id, true).await
}

//! A job's output: pulled from its host into a log of the hub's, and read from there.
//!
//! The log's offsets are the job's: payload bytes of both streams together, discarded ones included. An item of the log
//! is one byte that says what it is, then the bytes; a stretch that is gone is an item with a span and no bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use datacentered_engine::kv::{Durability, Expect};
use datacentered_engine::{Append, Error as EngineError, LogName, LogState, Position};
use datacentered_link::Link;
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::GapReason;
use datacentered_proto::{Code, Error, HostId, JobId};
use tokio::sync::watch;

use super::{pull, report};
use crate::hub::Hub;
use crate::store::{Change, engine_error};

/// Pause before an append that failed is tried again: the spool on the host keeps everything meanwhile.
pub(super) const RETRY: Duration = Duration::from_secs(1);

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
    /// Bytes kept of it.
    held: u64,
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
                pulling.insert(
                    job,
                    Pulling { link: link.id(), stored: watch::channel(0).0, held: 0, ended: false },
                );
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

    pub(super) fn set_stored(&self, job: JobId, log: &LogState) {
        if let Some(entry) = self.lock().get_mut(&job) {
            entry.held = log.bytes;
            entry.stored.send_replace(log.end);
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

    /// Bytes kept of the output that is being pulled.
    pub(super) fn held(&self, job: JobId) -> Option<u64> {
        self.lock().get(&job).map(|entry| entry.held)
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
                result = pull::pull(&hub, job, &link) => result,
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
        // Whoever wanted it pulled since the last look found it claimed.
        let unfinished = hub.store.view(|view| {
            view.jobs.get(&job).is_some_and(|job| job.outcome.is_some() && !job.output_complete)
        });
        if unfinished && !link.is_closed() && hub.pause(RETRY).await {
            ensure_pulling(&hub, job, host, &link);
        }
    });
}

pub(super) async fn state_of(hub: &Hub, log: &LogName) -> Result<LogState, Error> {
    Ok(hub.engine.log().state(log).await.map_err(engine_error)?.unwrap_or_default())
}

pub(super) fn gap_item(from: u64, to: u64, reason: GapReason) -> Append {
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
    let total = job.record_bytes();
    let log = if total == 0 { LogState::default() } else { state_of(hub, &output_log(id)?).await? };
    if log.end < total && !(job.output_complete && job.ended_by_hub()) {
        if hub.outputs.is_claimed_by(id, link) && hub.outputs.has_ended(id) {
            // The host has sent all that it has, and it is less than it said: the rest is lost.
            give_up_output(hub, id).await?;
            report::release(hub, id, link);
        } else if !hub.outputs.is_claimed_by(id, link) {
            // A record that says complete and a log that is shorter: the machine stopped between the two.
            mark_output(hub, id, None).await?;
            ensure_pulling(hub, id, host, link);
        }
        return Ok(());
    }
    if total > 0 {
        sync(hub, id).await?;
    }
    mark_output(hub, id, Some(log.bytes)).await?;
    report::release(hub, id, link);
    Ok(())
}

/// Writes down that all of a job's output is here, `held` bytes of it; without them, that some is missing.
async fn mark_output(hub: &Arc<Hub>, id: JobId, held: Option<u64>) -> Result<(), Error> {
    let complete = held.is_some();
    loop {
        let Some(job) = hub.store.view(|view| view.jobs.get(&id).cloned()) else { return Ok(()) };
        if job.output_complete == complete {
            return Ok(());
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        let mut record = (*job.record).clone();
        record.output_complete = complete;
        record.held_bytes = held;
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
    let total = job.record_bytes();
    let log = output_log(id)?;
    let state = state_of(hub, &log).await?;
    if state.end < total {
        let lost = vec![gap_item(state.end, total, GapReason::Lost)];
        hub.engine.log().append(&log, lost, Durability::Always).await.map_err(engine_error)?;
    }
    hub.outputs.forget(id);
    mark_output(hub, id, Some(state.bytes)).await
}

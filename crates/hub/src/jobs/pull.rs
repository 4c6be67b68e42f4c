//! Pulling one job's output over one link into the hub's log, and telling the host what it may drop.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use datacentered_engine::kv::Durability;
use datacentered_engine::{Append, Error as EngineError, LogName, LogState, Position};
use datacentered_link::{Link, StreamEvent, StreamReader};
use datacentered_proto::limits::MIN_SPOOL_BYTES;
use datacentered_proto::operations::{JobAck, JobOutput};
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::job::{AckParams, OutputParams};
use datacentered_proto::{Code, Error, JobId};
use futures_util::FutureExt as _;

use super::output::{RETRY, gap_item, output_log, state_of, sync};
use crate::hub::Hub;

/// Bytes of one log item at most.
const ITEM_BYTES: usize = 64 * 1024;

/// Bytes gathered before they are appended, where more is readable at once.
const GATHER_BYTES: usize = 256 * 1024;

/// Bytes that the host may drop from its spool are told this often, or a quarter of a smaller spool.
const ACK_BYTES: u64 = 4 << 20;

/// What lies on disk here for this long without more to come is told to the host: its spool may be full, and smaller than
/// the run asked for.
const IDLE: Duration = Duration::from_secs(1);

/// Pulls until the end; false when the link ended before.
pub(super) async fn pull(hub: &Arc<Hub>, job: JobId, link: &Link) -> Result<bool, Error> {
    let log = output_log(job)?;
    let (spool, keep) = hub.store.view(|view| {
        let record = view.jobs.get(&job);
        let run = record.and_then(|job| view.runs.get(&job.run));
        let spool = run.map_or(ACK_BYTES * 4, |run| run.exec.spool_bytes);
        (spool, record.and_then(|job| job.recording_bytes))
    });
    let mut pull = Pull { log, job, acked: 0, end: 0, ack_bytes: (spool / 4).clamp(1, ACK_BYTES), keep };
    let held = state_of(hub, &pull.log).await?;
    pull.end = held.end;
    hub.outputs.set_stored(job, &held);
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
    if pull.end > 0 {
        // Whether the host was told of what an earlier pull stored, nobody knows.
        pull.acknowledge_all(hub, link).await?;
    }
    loop {
        let next = if pull.unacknowledged() >= MIN_SPOOL_BYTES {
            let Ok(next) = tokio::time::timeout(IDLE, reader.next()).await else {
                pull.acknowledge_all(hub, link).await?;
                continue;
            };
            next
        } else {
            reader.next().await
        };
        let Some(first) = next else { return Ok(false) };
        let (items, ended) = gather(first, &mut reader);
        if !items.is_empty() {
            let held = pull.append(hub, items).await?;
            hub.outputs.set_stored(job, &held);
            if pull.unacknowledged() >= pull.ack_bytes {
                // The append was synced for it.
                pull.acknowledge(link).await;
            }
        }
        match ended {
            None => {}
            Some(EndReason::Done) => return Ok(true),
            Some(_) => return Ok(false),
        }
    }
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
    async fn append(&mut self, hub: &Hub, items: Vec<Append>) -> Result<LogState, Error> {
        loop {
            let due = items.last().is_some_and(|item| match item.position {
                Position::At(offset) => offset + item.span - self.acked >= self.ack_bytes,
                _ => false,
            });
            let durability = if due { Durability::Always } else { Durability::Interval };
            match hub.engine.log().append(&self.log, items.clone(), durability).await {
                Ok(state) => {
                    self.end = state.end;
                    return if self.drop_oldest(hub, &state).await {
                        state_of(hub, &self.log).await
                    } else {
                        Ok(state)
                    };
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

    /// Keeps a recording within its bounds, with a little slack so that it is not trimmed for every append. Says whether
    /// some of it went.
    async fn drop_oldest(&self, hub: &Hub, state: &LogState) -> bool {
        let Some(keep) = self.keep.filter(|keep| state.end - state.oldest > keep + keep / 8) else {
            return false;
        };
        let trimmed = hub.engine.log().trim(&self.log, state.end - keep).await;
        if let Err(error) = &trimmed {
            tracing::warn!(job = %self.job, %error, "the oldest of a recording could not be dropped now");
        }
        trimmed.is_ok()
    }

    fn unacknowledged(&self) -> u64 {
        self.end - self.acked
    }

    /// Tells the host that it may drop what is on disk here; a lost acknowledgement is made up for by the next.
    async fn acknowledge(&mut self, link: &Link) {
        let params = AckParams { job: self.job, upto: self.end };
        if link.call::<JobAck>(&params).await.is_ok() {
            self.acked = self.end;
        }
    }

    /// Makes everything stored durable, then acknowledges it.
    async fn acknowledge_all(&mut self, hub: &Hub, link: &Link) -> Result<(), Error> {
        sync(hub, self.job).await?;
        self.acknowledge(link).await;
        Ok(())
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

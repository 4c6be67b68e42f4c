//! `hostfile.write`: bytes for a file, kept beside its place.
//!
//! A part has one writer at a time. The writer owns the part's [`Slot`], also while a thread still writes for a stream
//! that has gone, so that nobody ever looks at a part which is being written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use datacentered_link::{Answer, Called, Request, StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::file::{FILE_WINDOW, WriteParams};
use datacentered_proto::ops::{EndReason, StreamEnd, StreamOpened};
use datacentered_proto::{Cursor, Error, OperationKey, rpc};
use futures_util::FutureExt as _;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::Files;
use crate::files::{Held, Part, Relative};
use crate::serve::output::EPOCH;

/// Bytes written at a time, where that many have come.
const GATHER: usize = 512 * 1024;

/// Parts that are remembered at once: what is forgotten is looked up on the disk again.
const REMEMBERED: usize = 4096;

/// How long a writer whose stream has gone may need to come to its end.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// How often others are asked to come back while somebody writes, in milliseconds.
const BUSY_MS: u64 = 1000;

/// What is known of a part when nobody writes to it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    transfer: Option<OperationKey>,
    /// It is whole and durable.
    held: Option<Held>,
    /// Why it was thrown away.
    failed: Option<Error>,
}

/// What was found out about a part that nobody writes to, and keeps others away from it.
#[derive(Debug)]
pub(super) struct Settled {
    slot: OwnedMutexGuard<Slot>,
    transfer: OperationKey,
}

impl Settled {
    /// What its writer knew of it.
    pub(super) fn held(&self) -> Option<Held> {
        self.slot.held.filter(|_| self.slot.transfer == Some(self.transfer))
    }

    /// Why its writer gave up.
    pub(super) fn failed(&self) -> Option<Error> {
        self.slot.failed.clone().filter(|_| self.slot.transfer == Some(self.transfer))
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        // It is in its place now, or to be begun again: what was known of it is true no longer.
        *self.slot = Slot::default();
    }
}

type Key = (PathBuf, Vec<u8>, String);

#[derive(Debug, Default)]
struct Known {
    slot: Arc<tokio::sync::Mutex<Slot>>,
    /// Who opened it last, and how to make them stop.
    last: Option<(OperationKey, CancellationToken)>,
    /// The higher, the later it was used.
    used: u64,
}

/// Every part that is being written, and some that were.
#[derive(Debug, Default)]
pub(super) struct Writes {
    known: Mutex<(u64, HashMap<Key, Known>)>,
}

impl Writes {
    /// Looks at a part's entry, which is made where there is none.
    fn entry<T>(&self, key: Key, look: impl FnOnce(&mut Known) -> T) -> T {
        // A plain map: whole after any panic.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, parts) = &mut *known;
        *used += 1;
        let entry = parts.entry(key).or_default();
        entry.used = *used;
        let found = look(entry);
        if parts.len() > REMEMBERED {
            // Those in use have another owner of their slot; they are few, as streams are limited.
            let idle = parts.iter().filter(|(_, known)| Arc::strong_count(&known.slot) == 1);
            let oldest = idle.min_by_key(|(_, known)| known.used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                parts.remove(&oldest);
            }
        }
        found
    }

    /// Waits until nobody writes to a part.
    pub(super) async fn settle(
        &self,
        root: &Path,
        path: &Relative,
        part: &str,
        transfer: OperationKey,
    ) -> Settled {
        let slot = self.entry(key(root, path, part), |known| known.slot.clone());
        Settled { slot: slot.lock_owned().await, transfer }
    }

    /// Becomes the one writer of a part: instead of an earlier stream of the same attempt, which is stopped; while another
    /// attempt writes, not now.
    async fn claim(
        &self,
        key: Key,
        transfer: OperationKey,
        stop: CancellationToken,
    ) -> Result<OwnedMutexGuard<Slot>, Error> {
        let claimed = self.entry(key, |known| {
            let same = known.last.as_ref().is_some_and(|(last, _)| *last == transfer);
            let free = if same { None } else { known.slot.clone().try_lock_owned().ok() };
            if same || free.is_some() {
                let earlier = known.last.replace((transfer, stop));
                if let Some((_, earlier)) = earlier {
                    earlier.cancel();
                }
                Ok((free, known.slot.clone()))
            } else {
                Err(busy())
            }
        });
        let (free, slot) = claimed?;
        let mut slot = match free {
            Some(slot) => slot,
            None => tokio::time::timeout(TAKE_OVER, slot.lock_owned()).await.map_err(|_| busy())?,
        };
        if slot.transfer != Some(transfer) {
            *slot = Slot { transfer: Some(transfer), ..Slot::default() };
        }
        Ok(slot)
    }
}

fn key(root: &Path, path: &Relative, part: &str) -> Key {
    (root.to_owned(), path.as_bytes().to_vec(), part.to_owned())
}

fn busy() -> Error {
    Error::unavailable("another copy writes this file at the moment; it goes on when that has ended")
        .with_retry_after_ms(BUSY_MS)
}

pub(super) fn open(files: &Arc<Files>, request: &Request) -> Called {
    let params: WriteParams = match request.params() {
        Ok(params) => params,
        Err(error) => return Called::Now(Err(error)),
    };
    let permit = match files.slot() {
        Ok(permit) => permit,
        Err(error) => return Called::Now(Err(error)),
    };
    let files = files.clone();
    Called::later(async move {
        let stream = params.stream;
        let stop = CancellationToken::new();
        let writing = begin(&files, params, stop.clone()).await?;
        let held = writing.part.held();
        let opened =
            StreamOpened { cursor: Some(Cursor::new(EPOCH, held)), credit: Some(held + FILE_WINDOW) };
        Ok(Answer::Receive {
            reply: rpc::raw(&opened)?,
            stream,
            from: held,
            body: Box::new(move |mut reader| {
                Box::pin(async move {
                    reader.widen(FILE_WINDOW);
                    take(&files, writing, reader, &stop).await;
                    drop(permit);
                })
            }),
        })
    })
}

/// A part and the right to write to it: they stay together, also on a thread whose caller has gone.
#[derive(Debug)]
struct Writing {
    part: Part,
    slot: OwnedMutexGuard<Slot>,
}

async fn begin(files: &Arc<Files>, params: WriteParams, stop: CancellationToken) -> Result<Writing, Error> {
    let path = Relative::parse(&params.path)?;
    let root = files.admitted(params.root.clone(), path.clone()).await?;
    let key = key(&root, &path, &params.part);
    let mut slot = files.writes.claim(key, params.transfer, stop).await?;
    if let Some(error) = slot.failed.take() {
        // What this attempt met; told once, so that trying again is possible.
        return Err(error);
    }
    slot.held = None;
    files
        .block(move || {
            let part = Part::open(&root, &path, &params.part, params.size, params.fresh)?;
            Ok(Writing { part, slot })
        })
        .await?
}

/// Writes what comes. Taking it gives its credit back, so that a slow disk holds up whoever sends and nobody else.
async fn take(files: &Arc<Files>, mut writing: Writing, mut reader: StreamReader, stop: &CancellationToken) {
    loop {
        let first = tokio::select! {
            first = reader.next() => first,
            () = stop.cancelled() => return,
        };
        let Some(first) = first else { return };
        let (chunks, end) = gather(first, &mut reader);
        let written = files.block(move || {
            let written = write(&mut writing, &chunks, end.as_ref());
            (writing, written)
        });
        match written.await {
            Ok((back, Ok(true))) => writing = back,
            // Whole, or cut off: in both cases the part stays.
            Ok((_, Ok(false))) => return,
            // The reader is dropped, which tells the sender; it asks again and is told why.
            Ok((mut writing, Err(error))) => {
                tracing::info!(code = %error.code, %error, "a file that is copied to this host cannot be written");
                writing.part.remove();
                writing.slot.failed = Some(error);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a file that is copied to this host cannot be written");
                return;
            }
        }
    }
}

/// Writes and says whether more may come.
fn write(
    writing: &mut Writing,
    chunks: &[(u64, Bytes)],
    end: Option<&Result<StreamEnd, Error>>,
) -> Result<bool, Error> {
    for (offset, bytes) in chunks {
        writing.part.write(*offset, bytes)?;
    }
    match end {
        None => Ok(true),
        Some(Err(error)) => Err(error.clone()),
        Some(Ok(end)) => {
            if end.reason == EndReason::Done && writing.part.is_whole() {
                let digest = writing.part.finish()?;
                writing.slot.held = Some(Held { size: writing.part.held(), digest });
            }
            Ok(false)
        }
    }
}

/// Pieces by their offsets, and how it ended where it did.
type Gathered = (Vec<(u64, Bytes)>, Option<Result<StreamEnd, Error>>);

/// One event and whatever else has come, up to the end.
fn gather(first: StreamEvent, reader: &mut StreamReader) -> Gathered {
    let mut chunks = Vec::new();
    let mut bytes = 0;
    let mut event = Some(first);
    while let Some(current) = event.take() {
        match current {
            StreamEvent::Bytes { kind: Kind::File, offset, payload } => {
                bytes += payload.len();
                chunks.push((offset, payload));
            }
            StreamEvent::End(end) => return (chunks, Some(Ok(end))),
            _ => {
                let error = Error::invalid("a file takes bytes of kind file, without gaps");
                return (chunks, Some(Err(error)));
            }
        }
        if bytes < GATHER {
            event = reader.next().now_or_never().flatten();
        }
    }
    (chunks, None)
}

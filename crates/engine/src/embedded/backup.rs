//! Backups: one consistent snapshot of everything as one checked stream.
//!
//! The stream starts with eight bytes of magic, the last of which is the format's version. Then come frames: kind (one
//! byte), length of the content (`u32`), content, CRC-32 of the three. Numbers are big-endian. The frames are one
//! manifest, the caller's extra files, records of the stores, and an end that counts the frames and sums them up.

use bytes::{BufMut, Bytes, BytesMut};
use fjall::Readable;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Inner;
use super::kv::writer::Request as KvRequest;
use super::log::writer::Request as LogRequest;
use super::snapshot::Barrier;
use super::store::{Store, read_error};
use super::util::now_ms;
use crate::engine::{BackupStream, Engine};
use crate::error::{Error, Result};

/// The first seven bytes.
pub(crate) const MAGIC: &[u8; 7] = b"DCENGBK";

/// The version of the format.
pub(crate) const FORMAT: u8 = 1;

/// Most extra files in a backup.
pub const MAX_EXTRAS: usize = 1000;

/// Longest name of an extra file, in bytes.
pub const MAX_EXTRA_NAME: usize = 255;

/// Largest extra file, in bytes.
pub const MAX_EXTRA: usize = 16 * 1024 * 1024;

/// Largest content of a frame, in bytes.
pub(crate) const MAX_FRAME: usize = MAX_EXTRA + 1024;

/// About how much goes into one frame of records.
const FRAME_BYTES: usize = 512 * 1024;

/// Frames made ahead of the writer.
const FRAMES_AHEAD: usize = 4;

/// Frame kinds.
pub(crate) mod kind {
    pub(crate) const MANIFEST: u8 = b'M';
    pub(crate) const EXTRA: u8 = b'X';
    pub(crate) const RECORDS: u8 = b'R';
    pub(crate) const END: u8 = b'E';
}

/// The stores of a backup, by number, and how many keyspaces each has.
pub(crate) const STORES: [(u8, u8); 2] = [(0, 1), (1, 2)];

/// What a backup says about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The format of the data directory.
    pub(crate) format: u32,
    /// The epoch it was taken from.
    pub(crate) epoch: String,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// What ends a backup.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) frames: u64,
    pub(crate) records: u64,
    /// CRC-32 over the CRC-32s of all frames before.
    pub(crate) sum: u32,
}

/// Writes a backup of the open engine to `writer` while it goes on working. The extra files (names and contents: CA,
/// keys, settings) travel with it and come back from [`super::restore()`]. Buckets kept in memory are not in it.
///
/// Errors: [`Error::TooLarge`] and [`Error::Invalid`] for the extra files, [`Error::Io`] of the writer, and the
/// engine's own.
pub async fn backup<W: AsyncWrite + Unpin>(
    engine: &Engine,
    extra: Vec<(String, Bytes)>,
    writer: &mut W,
) -> Result<()> {
    let mut stream = engine.backend().backup(extra).await?;
    while let Some(piece) = stream.recv().await {
        writer.write_all(&piece?).await.map_err(|e| Error::io("writing the backup", e))?;
    }
    writer.flush().await.map_err(|e| Error::io("writing the backup", e))
}

fn check_extra(extra: &[(String, Bytes)]) -> Result<()> {
    if extra.len() > MAX_EXTRAS {
        return Err(Error::TooLarge {
            what: "the number of extra files",
            size: extra.len() as u64,
            max: MAX_EXTRAS as u64,
        });
    }
    for (name, content) in extra {
        if name.is_empty() || name.len() > MAX_EXTRA_NAME {
            return Err(Error::invalid(format!("an extra file's name has 1 to {MAX_EXTRA_NAME} bytes")));
        }
        if content.len() > MAX_EXTRA {
            return Err(Error::TooLarge {
                what: "an extra file",
                size: content.len() as u64,
                max: MAX_EXTRA as u64,
            });
        }
    }
    Ok(())
}

/// Takes the snapshots at one moment and starts to stream them.
pub(super) async fn start(inner: &Inner, extra: Vec<(String, Bytes)>) -> Result<BackupStream> {
    check_extra(&extra)?;
    let kv_store = inner.kv.store.load_full().ok_or(Error::Closed)?;
    let log_store = inner.log.store.load_full().ok_or(Error::Closed)?;
    let (log_barrier, log_snapshot, log_release) = Barrier::new();
    inner.log_queue.send(LogRequest::Barrier(log_barrier), 0).await?;
    let log_snapshot = log_snapshot.await.map_err(|_| Error::Closed)?;
    // The log writer stands still; now the other one too.
    let (kv_barrier, kv_snapshot, kv_release) = Barrier::new();
    inner.kv_queue.send(KvRequest::Barrier(kv_barrier), 0).await?;
    let kv_snapshot = kv_snapshot.await.map_err(|_| Error::Closed)?;
    drop((log_release, kv_release));

    let manifest = Manifest { format: super::dir::FORMAT, epoch: inner.epoch.clone(), at: now_ms() };
    let (sender, stream) = mpsc::channel(FRAMES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut output = Output { sender, frames: 0, records: 0, sum: crc32fast::Hasher::new() };
        let stores = [(&*kv_store, kv_snapshot), (&*log_store, log_snapshot)];
        if let Err(error) = output.all(&manifest, &extra, &stores) {
            // Nobody listens any more, or it is told why it ends.
            let _ = output.sender.blocking_send(Err(error));
        }
    });
    Ok(stream)
}

struct Output {
    sender: mpsc::Sender<Result<Bytes>>,
    frames: u64,
    records: u64,
    sum: crc32fast::Hasher,
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::io("encoding the backup", e.into()))
}

impl Output {
    fn send(&self, piece: Bytes) -> Result<()> {
        self.sender.blocking_send(Ok(piece)).map_err(|_| Error::Closed)
    }

    fn frame(&mut self, kind: u8, content: &[u8]) -> Result<()> {
        let mut frame = BytesMut::with_capacity(content.len() + 9);
        frame.put_u8(kind);
        frame.put_u32(content.len() as u32);
        frame.put_slice(content);
        let crc = crc32fast::hash(&frame);
        frame.put_u32(crc);
        self.frames += 1;
        self.sum.update(&crc.to_be_bytes());
        self.send(frame.freeze())
    }

    fn all(
        &mut self,
        manifest: &Manifest,
        extra: &[(String, Bytes)],
        stores: &[(&Store, fjall::Snapshot); 2],
    ) -> Result<()> {
        let mut magic = MAGIC.to_vec();
        magic.push(FORMAT);
        self.send(magic.into())?;
        self.frame(kind::MANIFEST, &json(manifest)?)?;
        for (name, content) in extra {
            let mut frame = Vec::with_capacity(2 + name.len() + content.len());
            frame.extend_from_slice(&(name.len() as u16).to_be_bytes());
            frame.extend_from_slice(name.as_bytes());
            frame.extend_from_slice(content);
            self.frame(kind::EXTRA, &frame)?;
        }
        for ((number, keyspaces), (store, snapshot)) in STORES.into_iter().zip(stores) {
            for keyspace in 0..keyspaces {
                self.keyspace(number, keyspace, store, snapshot)?;
            }
        }
        let end = End { frames: self.frames, records: self.records, sum: self.sum.clone().finalize() };
        self.frame(kind::END, &json(&end)?)
    }

    fn keyspace(
        &mut self,
        number: u8,
        keyspace: u8,
        store: &Store,
        snapshot: &fjall::Snapshot,
    ) -> Result<()> {
        let mut content = vec![number, keyspace];
        for guard in snapshot.iter(store.keyspace(keyspace)) {
            let (key, value) = guard.into_inner().map_err(read_error)?;
            content.extend_from_slice(&(key.len() as u16).to_be_bytes());
            content.extend_from_slice(&(value.len() as u32).to_be_bytes());
            content.extend_from_slice(&key);
            content.extend_from_slice(&value);
            self.records += 1;
            if content.len() >= FRAME_BYTES {
                self.frame(kind::RECORDS, &content)?;
                content.truncate(2);
            }
        }
        if content.len() > 2 {
            self.frame(kind::RECORDS, &content)?;
        }
        Ok(())
    }
}

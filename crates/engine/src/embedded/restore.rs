//! Restoring a backup into an empty directory.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::backup::{End, FORMAT, MAGIC, MAX_EXTRA, MAX_EXTRAS, MAX_FRAME, Manifest, STORES, kind};
use super::dir::{self, DataDir};
use super::kv::layout;
use super::store::{Failure, Ops, Store};
use super::{EmbeddedConfig, open_kv, open_log};
use crate::error::{Error, Result};
use crate::kv::MAX_REVISION;

/// How far above the backup's every bucket's revisions start: more than any hub writes between a backup and its
/// restore, and few enough for thousands of restores.
pub const RESTORE_JUMP: u64 = 1 << 40;

/// Bytes written to a store at once.
const WRITE_BYTES: u64 = 4 * 1024 * 1024;

/// What a restore found beside the data.
#[derive(Debug)]
pub struct Restored {
    /// The new epoch.
    pub epoch: String,
    /// The epoch that the backup was taken from.
    pub backup_epoch: String,
    /// When the backup was taken, in milliseconds since the Unix epoch.
    pub backup_at: u64,
    /// The extra files, by name.
    pub extra: Vec<(String, Bytes)>,
}

/// Restores a backup into `dir`, which has to be empty or missing. Blocks. The epoch is a new one, and every bucket's
/// revisions start far above the backup's. A restore that failed leaves a directory that does not open.
///
/// Errors: [`Error::Invalid`] when the directory is not empty or the stream is no backup, [`Error::NewerVersion`],
/// [`Error::Damaged`] when the stream is cut or altered, [`Error::Io`].
pub fn restore<R: Read>(mut reader: R, dir: &Path) -> Result<Restored> {
    // Before anything is made: what is no backup leaves no directory.
    read_magic(&mut reader)?;
    let mut data_dir = DataDir::begin_restore(dir)?;
    let config = EmbeddedConfig { min_free_bytes: 0, ..EmbeddedConfig::default() };
    let failure = Failure::default();
    let stores = [open_kv(&data_dir, &config, &failure)?, open_log(&data_dir, &config, &failure)?];
    let mut pending = [Ops::default(), Ops::default()];
    let found = read_all(reader, &mut pending, &mut |pending| {
        for (store, ops) in stores.iter().zip(pending) {
            if ops.bytes() >= WRITE_BYTES {
                write(store, ops)?;
            }
        }
        Ok(())
    })?;
    for (store, ops) in stores.iter().zip(&mut pending) {
        write(store, ops)?;
        store.sync().map_err(|fault| fault.error())?;
    }
    drop(stores);
    data_dir.set_ready()?;
    data_dir.note_clean_end()?;
    Ok(Restored {
        epoch: data_dir.epoch().to_owned(),
        backup_epoch: found.manifest.epoch,
        backup_at: found.manifest.at,
        extra: found.extra,
    })
}

/// What a backup holds beside its records.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) extra: Vec<(String, Bytes)>,
}

/// Reads a backup behind its magic to its end. Records gather in `pending`, which `each` may empty after every frame.
pub(super) fn read_all<R: Read>(
    reader: R,
    pending: &mut [Ops; 2],
    each: &mut dyn FnMut(&mut [Ops; 2]) -> Result<()>,
) -> Result<Found> {
    let mut input = Input { reader, frames: 0, sum: crc32fast::Hasher::new() };
    let mut manifest: Option<Manifest> = None;
    let mut extra = Vec::new();
    let mut records = 0;
    loop {
        let (frames, sum) = (input.frames, input.sum.clone().finalize());
        let (kind, content) = input.frame()?;
        match kind {
            kind::MANIFEST if manifest.is_none() => {
                let found: Manifest = json(&content)?;
                if found.format > dir::FORMAT {
                    return Err(Error::NewerVersion {
                        what: "the backup".into(),
                        found: found.format,
                        supported: dir::FORMAT,
                    });
                }
                manifest = Some(found);
            }
            kind::EXTRA if extra.len() < MAX_EXTRAS => extra.push(decode_extra(content)?),
            kind::RECORDS => {
                records += decode_records(&content, pending)?;
                each(pending)?;
            }
            kind::END => {
                let end: End = json(&content)?;
                if end.frames != frames || end.records != records || end.sum != sum {
                    return Err(damaged("the backup's end does not agree with what came before it"));
                }
                break;
            }
            _ => return Err(damaged("the backup has a frame of an unknown kind")),
        }
    }
    let manifest = manifest.ok_or_else(|| damaged("the backup has no manifest"))?;
    Ok(Found { manifest, extra })
}

fn damaged(what: &str) -> Error {
    Error::Damaged { what: what.into(), path: PathBuf::from("(the backup)"), source: None }
}

fn json<T: serde::de::DeserializeOwned>(content: &[u8]) -> Result<T> {
    serde_json::from_slice(content).map_err(|e| Error::Damaged {
        what: "a frame of the backup".into(),
        path: PathBuf::from("(the backup)"),
        source: Some(Box::new(e)),
    })
}

fn write(store: &Store, ops: &mut Ops) -> Result<()> {
    store.commit(std::mem::take(ops), false).map_err(|fault| fault.error())
}

fn read_exact(reader: &mut impl Read, into: &mut [u8]) -> Result<()> {
    reader.read_exact(into).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged("the backup is cut off"),
        _ => Error::io("reading the backup", e),
    })
}

pub(super) fn read_magic(reader: &mut impl Read) -> Result<()> {
    let mut magic = [0; MAGIC.len() + 1];
    read_exact(reader, &mut magic)?;
    let [name @ .., version] = magic;
    if &name != MAGIC {
        return Err(Error::invalid("this is not a backup"));
    }
    if version > FORMAT {
        return Err(Error::NewerVersion {
            what: "the backup".into(),
            found: u32::from(version),
            supported: u32::from(FORMAT),
        });
    }
    Ok(())
}

struct Input<R> {
    reader: R,
    frames: u64,
    sum: crc32fast::Hasher,
}

impl<R: Read> Input<R> {
    fn frame(&mut self) -> Result<(u8, Bytes)> {
        let mut head = [0; 5];
        read_exact(&mut self.reader, &mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(damaged("a frame of the backup is too long"));
        }
        // Room grows with what comes: a length is believed only as far as there are bytes for it.
        let mut content = Vec::new();
        let read = (&mut self.reader).take(length as u64).read_to_end(&mut content);
        if read.map_err(|e| Error::io("reading the backup", e))? < length {
            return Err(damaged("the backup is cut off"));
        }
        let mut stored = [0; 4];
        read_exact(&mut self.reader, &mut stored)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(&content);
        if crc.finalize() != u32::from_be_bytes(stored) {
            return Err(damaged("a frame of the backup has a wrong checksum"));
        }
        self.frames += 1;
        self.sum.update(&stored);
        Ok((kind, content.into()))
    }
}

fn decode_extra(content: Bytes) -> Result<(String, Bytes)> {
    let decode = || {
        let length = usize::from(u16::from_be_bytes(*content.first_chunk::<2>()?));
        let name = std::str::from_utf8(content.get(2..2 + length)?).ok()?;
        (content.len() - 2 - length <= MAX_EXTRA).then(|| (name.to_owned(), content.slice(2 + length..)))
    };
    decode().ok_or_else(|| damaged("an extra file of the backup"))
}

/// Adds the records of a frame to what is written to their store. Returns how many.
fn decode_records(content: &[u8], pending: &mut [Ops; 2]) -> Result<u64> {
    let bad = || damaged("records of the backup");
    let [number, keyspace, rest @ ..] = content else { return Err(bad()) };
    let known = STORES.iter().any(|(store, keyspaces)| store == number && keyspace < keyspaces);
    let ops = pending.get_mut(usize::from(*number)).filter(|_| known).ok_or_else(bad)?;
    let mut rest = rest;
    let mut records = 0;
    while !rest.is_empty() {
        let head = rest.first_chunk::<6>().ok_or_else(bad)?;
        let [k1, k2, v1, v2, v3, v4] = *head;
        let key_length = usize::from(u16::from_be_bytes([k1, k2]));
        let value_length = u32::from_be_bytes([v1, v2, v3, v4]) as usize;
        let key = rest.get(6..6 + key_length).filter(|key| !key.is_empty()).ok_or_else(bad)?;
        let value = rest.get(6 + key_length..6 + key_length + value_length).ok_or_else(bad)?;
        rest = &rest[6 + key_length + value_length..];
        records += 1;
        if *number == 0 && layout::bucket_keys().contains(&key.to_vec()) {
            let (_, mut record) = layout::decode_bucket(key, value)?;
            record.reserved = record
                .reserved
                .checked_add(RESTORE_JUMP)
                .filter(|reserved| *reserved < MAX_REVISION)
                .ok_or(Error::Limited { what: "revisions" })?;
            ops.put(*keyspace, key.to_vec(), layout::encode_bucket(&record));
        } else {
            ops.put(*keyspace, key.to_vec(), value);
        }
    }
    Ok(records)
}

//! Looking at files and reading them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use datacentered_proto::ops::file::{Entry, EntryKind, ReadNote, fault as word};
use datacentered_proto::{ByteString, Code, Error};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use super::attributes::{entry, kind, version};
use super::beneath::Root;
use super::fault::{self, fault};
use super::hash::{Hasher, hex};
use super::path::Relative;

/// What is at a place; none where there is nothing. The root is followed where it is a symbolic link, what is below is not.
pub fn stat(root: &Path, path: &Relative) -> Result<Option<Entry>, Error> {
    let shown = shown(root, path);
    let looked = if path.is_root() {
        rustix::fs::stat(root).map_err(io::Error::from)
    } else {
        Root::open(root).and_then(|root| root.stat(path))
    };
    match looked {
        Ok(stat) => {
            let mut entry = entry(path.to_wire(), &stat);
            if entry.kind == EntryKind::Symlink {
                entry.target = Root::open(root).and_then(|root| link_target(&root, path)).ok();
            }
            Ok(Some(entry))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault::io("look at", &shown, &error)),
    }
}

/// Where a symbolic link leads.
pub(super) fn link_target(root: &Root, path: &Relative) -> io::Result<ByteString> {
    let (directory, name) = root.parent(path)?;
    Ok(ByteString(rustix::fs::readlinkat(&directory, name, Vec::new())?.into_bytes()))
}

/// A path as it is told to people.
pub(super) fn shown(root: &Path, path: &Relative) -> Vec<u8> {
    let mut shown = root.as_os_str().as_encoded_bytes().to_vec();
    if !path.is_root() {
        if !shown.ends_with(b"/") {
            shown.push(b'/');
        }
        shown.extend_from_slice(path.as_bytes());
    }
    shown
}

/// A file that is read.
#[derive(Debug)]
pub struct Source {
    file: File,
    shown: Vec<u8>,
    size: u64,
    at: u64,
    /// Of everything before `at`, where a note is wanted.
    hash: Option<Hasher>,
    version: String,
}

impl Source {
    /// Opens a file to be read up to `size`, or up to its size as it is now.
    pub fn open(root: &Path, path: &Relative, size: Option<u64>, hashed: bool) -> Result<Self, Error> {
        let shown = shown(root, path);
        let cannot = |error: io::Error| fault::io("read", &shown, &error);
        // Looked at first: opening a device may do something.
        let found = stat(root, path)?.ok_or_else(|| cannot(io::ErrorKind::NotFound.into()))?;
        let regular = |kind| match kind {
            EntryKind::File => Ok(()),
            EntryKind::Directory => Err(cannot(io::ErrorKind::IsADirectory.into())),
            EntryKind::Symlink => Err(cannot(rustix::io::Errno::LOOP.into())),
            EntryKind::Other => Err(not_regular(&shown)),
        };
        regular(found.kind)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = if path.is_root() {
            openat(CWD, root, flags, Mode::empty()).map_err(io::Error::from)
        } else {
            Root::open(root).and_then(|root| root.open_at(path, flags))
        };
        let file = file.map_err(cannot)?;
        let stat = fstat(&file).map_err(|error| cannot(error.into()))?;
        regular(kind(&stat))?;
        let now = u64::try_from(stat.st_size).unwrap_or(0);
        let size = size.unwrap_or(now);
        let hash = hashed.then(Hasher::new);
        let this = Self { file: file.into(), shown, size, at: 0, hash, version: version(&stat) };
        if now < size { Err(this.shrank(now)) } else { Ok(this) }
    }

    /// Which file it is; fit to be a cursor's epoch.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Bytes that will have been read at the end.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it stands.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Goes on towards `to`, at most `most` bytes at a time, for its hash only.
    pub fn skip(&mut self, to: u64, most: u64) -> Result<(), Error> {
        let to = to.min(self.size).min(self.at.saturating_add(most));
        let Some(hash) = &mut self.hash else {
            self.at = to;
            return Ok(());
        };
        let stopped =
            hash.read(&self.file, self.at, to).map_err(|error| fault::io("read", &self.shown, &error))?;
        self.at = stopped;
        if stopped < to { Err(self.shrank(stopped)) } else { Ok(()) }
    }

    /// Goes back to an earlier place, such as where the other side left off; what lies between is not hashed again.
    pub fn read_again(&self, from: u64, most: usize) -> Result<Bytes, Error> {
        let to = self.at.min(from.saturating_add(most as u64));
        self.bytes(from, usize::try_from(to.saturating_sub(from)).unwrap_or(0))
    }

    /// The next bytes, at most `most`; none at the end.
    pub fn read(&mut self, most: usize) -> Result<Option<Bytes>, Error> {
        let want = usize::try_from(self.size - self.at).unwrap_or(most).min(most);
        if want == 0 {
            return Ok(None);
        }
        let bytes = self.bytes(self.at, want)?;
        if bytes.is_empty() {
            return Err(self.shrank(self.at));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes);
        }
        self.at += bytes.len() as u64;
        Ok(Some(bytes))
    }

    fn bytes(&self, from: u64, want: usize) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::zeroed(want);
        let mut have = 0;
        while let Some(room) = bytes.get_mut(have..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, from + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault::io("read", &self.shown, &error)),
            }
        }
        bytes.truncate(have);
        Ok(bytes.freeze())
    }

    /// What is to be said behind the last byte.
    pub fn note(&self) -> Result<ReadNote, Error> {
        let stat = fstat(&self.file).map_err(|error| fault::io("read", &self.shown, &error.into()))?;
        let sha256 = self.hash.as_ref().map(|hash| hex(&hash.finish())).unwrap_or_default();
        Ok(ReadNote { sha256, size_now: u64::try_from(stat.st_size).unwrap_or(0) })
    }

    fn shrank(&self, now: u64) -> Error {
        let shown = String::from_utf8_lossy(&self.shown);
        fault(
            Code::Conflict,
            word::SHRANK,
            format!(
                "{shown} became shorter while it was copied: it had {} bytes and ends at {now}",
                self.size
            ),
        )
    }
}

fn not_regular(shown: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(shown);
    fault(Code::Conflict, word::KIND, format!("cannot read {shown}: it is a device, a socket or a pipe"))
}

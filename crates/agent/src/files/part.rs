//! A file in the making, beside its place and under another name.
//!
//! It survives whoever writes it: what it holds when it is opened again is where the copy goes on.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use datacentered_proto::ops::file::{EntryKind, fault as word};
use datacentered_proto::{Code, Error};
use rustix::fs::{
    Access, AtFlags, FallocateFlags, Mode, OFlags, accessat, fallocate, fstat, ftruncate, openat, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::attributes::kind;
use super::beneath::Root;
use super::fault::{self, fault};
use super::hash::{Digest, Hasher};
use super::path::Relative;
use super::read::shown;

/// How much of the place's name the name of the part shows, in bytes.
const SHOWN_NAME: usize = 160;

/// Permissions of everybody but the owner: a part has none of them.
const OTHERS: u32 = 0o077;

/// Checks the name that a client gives to a part.
pub fn check_name(part: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if (8..=64).contains(&part.len()) && part.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::invalid("'part' has 8 to 64 characters of a-z and 0-9"))
}

/// The name of a part beside the place `name`.
pub(super) fn part_name(name: &[u8], part: &str) -> Vec<u8> {
    let mut made = b".".to_vec();
    made.extend_from_slice(name.get(..SHOWN_NAME).unwrap_or(name));
    made.extend_from_slice(format!(".{part}.part").as_bytes());
    made
}

/// A file in the making.
#[derive(Debug)]
pub struct Part {
    file: File,
    directory: OwnedFd,
    name: Vec<u8>,
    shown: Vec<u8>,
    size: u64,
    held: u64,
    hash: Hasher,
}

impl Part {
    /// Opens the part of a place, or makes it. The place itself is looked at, so that what cannot be replaced is known
    /// before the first byte is sent; so is room on the disk, where the file system can set it aside.
    pub fn open(root: &Path, path: &Relative, part: &str, size: u64, fresh: bool) -> Result<Self, Error> {
        check_name(part)?;
        let shown = shown(root, path);
        let cannot = |error: io::Error| fault::io("write", &shown, &error);
        let (directory, name) = Root::open(root)
            .and_then(|root| root.parent(path).map(|(directory, name)| (directory, name.to_vec())))
            .map_err(cannot)?;
        check_place(&directory, &name, &shown)?;
        let name = part_name(&name, part);
        let kept = if fresh { None } else { reopen(&directory, &name) };
        let (file, held) = match kept {
            Some((file, held)) if held <= size => (file, held),
            _ => (create(&directory, &name).map_err(cannot)?, 0),
        };
        let mut this = Self { file, directory, name, shown, size, held, hash: Hasher::new() };
        let stopped = this.hash.read(&this.file, 0, held).map_err(|error| this.cannot(&error))?;
        if stopped != held {
            return Err(this.cannot(&io::ErrorKind::UnexpectedEof.into()));
        }
        this.set_aside()?;
        Ok(this)
    }

    fn set_aside(&mut self) -> Result<(), Error> {
        if self.size <= self.held {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.held, self.size - self.held) {
            // Only what says that there is no room counts: many file systems cannot do this at all.
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                self.remove();
                Err(self.cannot(&error.into()))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that are there: the next one has this offset.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        self.held == self.size
    }

    /// Adds bytes. After an error the part is to be removed.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        let Some(end) = end.filter(|_| offset == self.held) else {
            return Err(Error::invalid(format!(
                "{} bytes came for offset {offset}; {} are there of {}",
                bytes.len(),
                self.held,
                self.size
            )));
        };
        self.file.write_all_at(bytes, offset).map_err(|error| self.cannot(&error))?;
        self.hash.update(bytes);
        self.held = end;
        Ok(())
    }

    /// Makes what is there durable, and tells its hash.
    pub fn finish(&self) -> Result<Digest, Error> {
        self.file.sync_data().map_err(|error| self.cannot(&error))?;
        Ok(self.hash.finish())
    }

    /// Throws it away.
    pub fn remove(&self) {
        if let Err(error) = unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            tracing::debug!(%error, "a part of a file could not be removed");
        }
    }

    fn cannot(&self, error: &io::Error) -> Error {
        fault::io("write", &self.shown, error)
    }
}

/// Whether a file may take this place.
pub(super) fn check_place(directory: &OwnedFd, name: &[u8], shown: &[u8]) -> Result<(), Error> {
    let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
    match kind(&stat) {
        EntryKind::Directory => Err(fault::io("write", shown, &io::ErrorKind::IsADirectory.into())),
        EntryKind::Other => Err(fault(
            Code::Conflict,
            word::KIND,
            format!("cannot write {}: it is a device, a socket or a pipe", String::from_utf8_lossy(shown)),
        )),
        EntryKind::Symlink => Ok(()),
        // A new file would take its place also where nobody may write to the old one.
        EntryKind::File => match accessat(directory, name, Access::WRITE_OK, AtFlags::EACCESS) {
            Err(error @ (Errno::ACCESS | Errno::ROFS | Errno::PERM)) => {
                Err(fault::io("write", shown, &error.into()))
            }
            _ => Ok(()),
        },
    }
}

/// A part from before; none where it is not certainly ours.
pub(super) fn reopen(directory: &OwnedFd, name: &[u8]) -> Option<(File, u64)> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let ours = kind(&stat) == EntryKind::File
        && stat.st_nlink == 1
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & OTHERS == 0;
    ours.then(|| (file.into(), u64::try_from(stat.st_size).unwrap_or(0)))
}

fn create(directory: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // What has this name is a part that is not wanted any more, or was planted.
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    ftruncate(&file, 0)?;
    Ok(file.into())
}

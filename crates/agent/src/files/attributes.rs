//! Permissions, times and owners: read from what is there, and given to what is made.

use std::io;
use std::os::fd::AsFd;

use datacentered_proto::ByteString;
use datacentered_proto::ops::file::{Attributes, Entry, EntryKind, FileTime, Owner};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_NOW, Uid, chownat, fchmod, fchown,
    futimens, utimensat,
};
use rustix::io::Errno;

use super::hash::{Hasher, hex};

/// Permission bits with set-user-id, set-group-id and sticky.
pub(super) const MODE_BITS: u32 = 0o7777;

/// Set-user-id and set-group-id: they go with the owner that they were given under.
const SET_ID: u32 = 0o6000;

/// What is at a path.
pub(super) fn entry(path: ByteString, stat: &Stat) -> Entry {
    Entry {
        path,
        kind: kind(stat),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & MODE_BITS,
        owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
        mtime: FileTime { s: stat.st_mtime, ns: stat.st_mtime_nsec as u32 },
        atime: FileTime { s: stat.st_atime, ns: stat.st_atime_nsec as u32 },
        version: version(stat),
        target: None,
        error: None,
    }
}

/// What kind of thing it is.
pub(super) fn kind(stat: &Stat) -> EntryKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    }
}

/// Names a file for as long as it exists; fit to be a cursor's epoch.
pub(super) fn version(stat: &Stat) -> String {
    let mut hash = Hasher::new();
    hash.update(&stat.st_dev.to_be_bytes());
    hash.update(&stat.st_ino.to_be_bytes());
    hex(&hash.finish()).chars().take(16).collect()
}

fn timespec(time: Option<FileTime>) -> Timespec {
    match time {
        Some(time) => Timespec { tv_sec: time.s, tv_nsec: time.ns.min(999_999_999).into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    }
}

fn timestamps(attributes: &Attributes) -> Timestamps {
    Timestamps { last_access: timespec(attributes.atime), last_modification: timespec(attributes.mtime) }
}

/// Gives a file or directory its owner, permissions and times, in the order in which they hold.
pub(super) fn give(file: impl AsFd, attributes: &Attributes) -> io::Result<()> {
    let file = file.as_fd();
    let stat = rustix::fs::fstat(file)?;
    let mut mode = attributes.mode & MODE_BITS;
    if let Some(owner) = attributes.owner {
        let now = Owner { uid: stat.st_uid, gid: stat.st_gid };
        if now != owner {
            match fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))) {
                Ok(()) => {}
                // Somebody else's program must not run as us.
                Err(Errno::PERM) => mode &= !SET_ID,
                Err(error) => return Err(error.into()),
            }
        }
    } else {
        mode &= !SET_ID;
    }
    fchmod(file, Mode::from_raw_mode(mode))?;
    if attributes.mtime.is_some() || attributes.atime.is_some() {
        futimens(file, &timestamps(attributes))?;
    }
    Ok(())
}

/// Gives a symbolic link its owner and times; its permissions mean nothing.
pub(super) fn give_link(directory: impl AsFd, name: &[u8], attributes: &Attributes) -> io::Result<()> {
    let directory = directory.as_fd();
    if let Some(owner) = attributes.owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        match chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if attributes.mtime.is_some() || attributes.atime.is_some() {
        utimensat(directory, name, &timestamps(attributes), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

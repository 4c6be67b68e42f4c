//! Everything below a directory, page by page.
//!
//! The order is that of the names' bytes, each directory before what is in it, so that a page can begin behind any path
//! without anything being kept between pages.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use datacentered_proto::ops::file::{Entry, EntryKind, ListReply};
use datacentered_proto::{Error, Result};
use rustix::fs::{AtFlags, Dir, OFlags, statat};

use super::attributes::entry;
use super::beneath::Root;
use super::fault;
use super::path::Relative;
use super::read::shown;

/// Most names in one directory: all of them are sorted in memory.
const MAX_NAMES: usize = 1 << 20;

/// How many directories deep a tree may be: each is held open while what is in it is listed.
const MAX_DEPTH: usize = 200;

/// Entries of a page are at most this many bytes of JSON, so that a page fits a message.
const PAGE_BYTES: usize = 128 * 1024;

/// A directory and the names in it that are still to come, the next one last.
struct Open {
    path: Relative,
    directory: OwnedFd,
    names: Vec<Vec<u8>>,
}

/// One page, behind `after`, of at most `limit` entries.
pub fn list(root_path: &Path, after: Option<&Relative>, limit: usize) -> Result<ListReply> {
    let cannot = |error: &io::Error| fault::io("list", &shown(root_path, &Relative::default()), error);
    let root = Root::open(root_path).map_err(|error| cannot(&error))?;
    let mut stack = begin(&root, after).map_err(|error| cannot(&error))?;
    let mut reply = ListReply::default();
    let mut bytes = 0;
    while let Some(open) = stack.last_mut() {
        let Some(name) = open.names.pop() else {
            stack.pop();
            continue;
        };
        let path = open.path.join(&name);
        let Some(mut found) = look(&open.directory, &name, &path) else { continue };
        if found.kind == EntryKind::Directory {
            let opened =
                if stack.len() >= MAX_DEPTH { Err(too_deep(&path)) } else { enter(&root, root_path, &path) };
            match opened {
                Ok(opened) => stack.push(opened),
                Err(error) => found.error = Some(error),
            }
        }
        bytes += serde_json::to_vec(&found).map_or(0, |json| json.len());
        reply.entries.push(found);
        if reply.entries.len() >= limit || bytes >= PAGE_BYTES {
            if stack.iter().any(|open| !open.names.is_empty()) {
                reply.next = Some(path.to_wire());
            }
            return Ok(reply);
        }
    }
    Ok(reply)
}

fn too_deep(path: &Relative) -> Error {
    let path = String::from_utf8_lossy(path.as_bytes());
    Error::limited(format!("{path}: more than {MAX_DEPTH} directories deep; copy it on its own"))
}

/// What a name in a directory is; none where it has gone meanwhile.
fn look(directory: &OwnedFd, name: &[u8], path: &Relative) -> Option<Entry> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let mut found = entry(path.to_wire(), &stat);
    if found.kind == EntryKind::Symlink {
        let target = rustix::fs::readlinkat(directory, name, Vec::new()).ok()?;
        found.target = Some(datacentered_proto::ByteString(target.into_bytes()));
    }
    Some(found)
}

/// The directories that are still to be gone through behind a path.
fn begin(root: &Root, after: Option<&Relative>) -> io::Result<Vec<Open>> {
    let mut path = Relative::default();
    let mut stack = Vec::new();
    let mut directory = open(root, &path)?;
    for name in after.iter().flat_map(|after| after.names()) {
        let mut names = names(&directory)?;
        names.retain(|other| other.as_slice() > name);
        let below = path.join(name);
        stack.push(Open { path, directory, names });
        // Gone, or no directory (any more): there is nothing below it.
        let Ok(next) = open(root, &below) else { return Ok(stack) };
        (path, directory) = (below, next);
    }
    let names = names(&directory)?;
    stack.push(Open { path, directory, names });
    Ok(stack)
}

fn open(root: &Root, path: &Relative) -> io::Result<OwnedFd> {
    root.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn enter(root: &Root, root_path: &Path, path: &Relative) -> Result<Open> {
    let entered = open(root, path).and_then(|directory| Ok((names(&directory)?, directory)));
    match entered {
        Ok((names, directory)) => Ok(Open { path: path.clone(), directory, names }),
        Err(error) => Err(fault::io("list", &shown(root_path, path), &error)),
    }
}

/// The names in a directory, sorted, the first one last.
fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if names.len() >= MAX_NAMES {
            return Err(io::Error::other(format!("more than {MAX_NAMES} names in one directory")));
        }
        names.push(name.to_vec());
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

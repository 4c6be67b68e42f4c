//! Putting things in their place: each in one step, with everything checked before.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use datacentered_proto::ops::file::{Attributes, EntryKind, Owner, Placed, Placing, fault as word};
use datacentered_proto::{ByteString, Code, Error};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, mkdirat, renameat, statat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::attributes::{MODE_BITS, give, give_link, kind};
use super::beneath::Root;
use super::fault::{self, fault};
use super::hash::{Digest, Hasher, hex};
use super::part::{check_name, check_place, part_name, reopen};
use super::path::Relative;
use super::read::shown;

/// What whoever wrote a part knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Bytes in it.
    pub size: u64,
    /// Their hash.
    pub digest: Digest,
}

/// Puts things in their places below a root.
#[derive(Debug)]
pub struct Placer {
    root: Root,
    path: PathBuf,
    /// Directories in which a name has changed.
    touched: BTreeSet<Vec<u8>>,
}

impl Placer {
    /// Below this directory.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let opened = Root::open(root)
            .map_err(|error| fault::io("open", root.as_os_str().as_encoded_bytes(), &error))?;
        Ok(Self { root: opened, path: root.to_owned(), touched: BTreeSet::new() })
    }

    /// Puts one thing in its place. `held` is what is known of a file's part, where it was written just now.
    pub fn place(&mut self, path: &Relative, placing: &Placing, held: Option<Held>) -> Placed {
        let placed = match placing {
            Placing::Directory { mode } => self.directory(path, *mode),
            Placing::Attributes { attributes } => self.attributes(path, attributes),
            Placing::Symlink { target, attributes } => self.symlink(path, target, attributes),
            Placing::File { part, size, sha256, attributes, .. } => {
                self.file(path, part, (*size, sha256), attributes, held)
            }
            Placing::Discard { part, .. } => self.discard(path, part),
        };
        match placed {
            Ok(made) => Placed { made, error: None },
            Err(error) => Placed { made: false, error: Some(error) },
        }
    }

    /// Makes every name durable that has changed.
    pub fn finish(self) -> Result<(), Error> {
        for directory in &self.touched {
            // It was valid when its file was put there.
            let Ok(directory) = Relative::parse(&ByteString(directory.clone())) else { continue };
            match self.root.sync(&directory) {
                // What may be written to but not read cannot be synced; it is as durable as any other program makes it.
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fault::io("sync", &shown(&self.path, &directory), &error)),
            }
        }
        Ok(())
    }

    fn touch(&mut self, path: &Relative) {
        if let Some((parent, _)) = path.split() {
            self.touched.insert(parent.as_bytes().to_vec());
        }
    }

    fn cannot<'a>(&'a self, action: &'static str, path: &'a Relative) -> impl Fn(io::Error) -> Error + 'a {
        move |error| fault::io(action, &shown(&self.path, path), &error)
    }

    fn directory(&mut self, path: &Relative, mode: u32) -> Result<bool, Error> {
        if path.is_root() {
            return Ok(false);
        }
        let (directory, name) = self.root.parent(path).map_err(self.cannot("make the directory", path))?;
        let mode = Mode::from_raw_mode(mode & 0o777 | 0o700);
        match mkdirat(&directory, name, mode) {
            Ok(()) => {
                self.touch(path);
                Ok(true)
            }
            Err(Errno::EXIST) => {
                let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| self.cannot("look at", path)(error.into()))?;
                match kind(&stat) {
                    EntryKind::Directory => Ok(false),
                    EntryKind::Symlink => Err(self.cannot("go into", path)(Errno::LOOP.into())),
                    _ => Err(self.cannot("make the directory", path)(io::ErrorKind::NotADirectory.into())),
                }
            }
            Err(error) => Err(self.cannot("make the directory", path)(error.into())),
        }
    }

    fn attributes(&self, path: &Relative, attributes: &Attributes) -> Result<bool, Error> {
        let directory = self
            .root
            .open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(self.cannot("give permissions to", path))?;
        give(&directory, attributes).map_err(self.cannot("give permissions to", path))?;
        Ok(false)
    }

    fn symlink(
        &mut self,
        path: &Relative,
        target: &ByteString,
        attributes: &Attributes,
    ) -> Result<bool, Error> {
        if target.as_bytes().contains(&0) || target.as_bytes().is_empty() {
            return Err(Error::invalid(
                "a symbolic link leads to a path of at least one byte, none of them zero",
            ));
        }
        let cannot = "make the symbolic link";
        let (directory, name) = self.root.parent(path).map_err(self.cannot(cannot, path))?;
        let before = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        if before.as_ref().is_some_and(|stat| kind(stat) == EntryKind::Directory) {
            return Err(self.cannot(cannot, path)(io::ErrorKind::IsADirectory.into()));
        }
        let io = |error: Errno| self.cannot(cannot, path)(error.into());
        let beside = part_name(name, &random());
        symlinkat(target.as_bytes(), &directory, beside.as_slice()).map_err(io)?;
        let placed = give_link(&directory, &beside, attributes)
            .and_then(|()| Ok(renameat(&directory, beside.as_slice(), &directory, name)?));
        if let Err(error) = placed {
            remove(&directory, &beside);
            return Err(self.cannot(cannot, path)(error));
        }
        self.touch(path);
        Ok(before.is_none())
    }

    fn file(
        &mut self,
        path: &Relative,
        part: &str,
        (size, sha256): (u64, &str),
        attributes: &Attributes,
        held: Option<Held>,
    ) -> Result<bool, Error> {
        check_name(part)?;
        let (directory, name) = self.root.parent(path).map_err(self.cannot("write", path))?;
        check_place(&directory, name, &shown(&self.path, path))?;
        let beside = part_name(name, part);
        let before = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let Some((file, there)) = reopen(&directory, &beside) else {
            // The reply of an earlier placing may have been lost; what counts is what is there.
            let done = before.as_ref().is_some_and(|stat| is_file_of(stat, size))
                && matches!(self.hash_of(path), Ok(hash) if hex(&hash) == sha256);
            return if done { Ok(false) } else { Err(self.incomplete(path, 0, size)) };
        };
        if there != size {
            return Err(self.incomplete(path, there, size));
        }
        let io = |error: io::Error| self.cannot("write", path)(error);
        let digest = match held.filter(|held| held.size == size) {
            Some(held) => held.digest,
            None => hash_file(&file, size).map_err(io)?,
        };
        if hex(&digest) != sha256 {
            remove(&directory, &beside);
            return Err(fault(
                Code::Conflict,
                word::CHECKSUM,
                format!(
                    "what arrived for {} is not what was sent: its SHA-256 is {}, that of the source {sha256}; the file \
                     was not put in place",
                    String::from_utf8_lossy(&shown(&self.path, path)),
                    hex(&digest)
                ),
            ));
        }
        let attributes = match before.as_ref().filter(|_| attributes.keep_existing) {
            Some(stat) if kind(stat) == EntryKind::File => of_existing(stat, attributes),
            _ => *attributes,
        };
        give(&file, &attributes).map_err(io)?;
        file.sync_all().map_err(io)?;
        renameat(&directory, beside.as_slice(), &directory, name).map_err(|error| io(error.into()))?;
        self.touch(path);
        Ok(before.is_none())
    }

    fn discard(&self, path: &Relative, part: &str) -> Result<bool, Error> {
        check_name(part)?;
        let (directory, name) = self.root.parent(path).map_err(self.cannot("write", path))?;
        remove(&directory, &part_name(name, part));
        Ok(false)
    }

    fn hash_of(&self, path: &Relative) -> io::Result<Digest> {
        let file: File = self.root.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?.into();
        let size = file.metadata()?.len();
        hash_file(&file, size)
    }

    fn incomplete(&self, path: &Relative, held: u64, size: u64) -> Error {
        let shown = shown(&self.path, path);
        let shown = String::from_utf8_lossy(&shown);
        let told = format!("{held} of the {size} bytes of {shown} are there; send the rest with file.write");
        fault(Code::Conflict, word::INCOMPLETE, told)
    }
}

fn is_file_of(stat: &Stat, size: u64) -> bool {
    kind(stat) == EntryKind::File && u64::try_from(stat.st_size) == Ok(size)
}

/// What a file that is replaced leaves to the new one: without it, replacing a secret would show it to everybody.
fn of_existing(stat: &Stat, attributes: &Attributes) -> Attributes {
    let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
    Attributes { mode: stat.st_mode & MODE_BITS, owner: Some(owner), ..*attributes }
}

fn hash_file(file: &File, size: u64) -> io::Result<Digest> {
    let mut hash = Hasher::new();
    hash.read(file, 0, size)?;
    Ok(hash.finish())
}

fn remove(directory: &OwnedFd, name: &[u8]) {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => tracing::debug!(%error, "what was kept beside a place could not be removed"),
    }
}

/// A name that nobody can know before.
fn random() -> String {
    let mut bytes = [0; 32];
    // Where there is no randomness, a name that is taken only fails the one link.
    let _ = getrandom::fill(&mut bytes[..8]);
    hex(&bytes).chars().take(16).collect()
}

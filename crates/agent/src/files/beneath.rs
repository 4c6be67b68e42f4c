//! Opening what lies below a directory, without ever leaving it and without following a symbolic link.
//!
//! The kernel does it in one step where it can (`openat2`); elsewhere one name after the other is opened, each relative to
//! the directory before it and none through a link. Either way there is no moment between a check and its use.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat};
use rustix::io::Errno;

use super::path::Relative;

/// How often the kernel is asked again when a rename elsewhere made it unsure.
const TRIES: u32 = 16;

/// The kernel has no `openat2`, or something forbids it.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// A directory that nothing below it leads out of.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Opens a directory; symbolic links on the way to it are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: openat(CWD, path, flags, Mode::empty())? })
    }

    /// Opens what is there; `flags` as for `open`.
    pub fn open_at(&self, path: &Relative, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if path.is_root() {
            return Ok(openat(&self.directory, ".", flags, Mode::empty())?);
        }
        if !NO_OPENAT2.load(Ordering::Relaxed) {
            match self.in_one_step(path, flags) {
                // EPERM is how some containers' filters say that there is no such call; by steps shows whether it is.
                Err(Errno::NOSYS) => NO_OPENAT2.store(true, Ordering::Relaxed),
                Err(Errno::PERM | Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
        Ok(self.by_steps(path, flags)?)
    }

    fn in_one_step(&self, path: &Relative, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut left = TRIES;
        loop {
            match openat2(&self.directory, path.as_bytes(), flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if left > 0 => left -= 1,
                result => return result,
            }
        }
    }

    pub(super) fn by_steps(&self, path: &Relative, flags: OFlags) -> Result<OwnedFd, Errno> {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            let flags = if names.peek().is_some() { step } else { flags };
            let directory = at.as_ref().map_or(self.directory.as_fd(), AsFd::as_fd);
            at = Some(openat(directory, name, flags, Mode::empty())?);
        }
        at.ok_or(Errno::INVAL)
    }

    /// The directory that a path lies in, for calls that take a directory and a name.
    pub fn parent<'a>(&self, path: &'a Relative) -> io::Result<(OwnedFd, &'a [u8])> {
        let (parent, name) = path.split().ok_or(io::ErrorKind::IsADirectory)?;
        Ok((self.open_at(&parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    /// What is there, without following a link.
    pub fn stat(&self, path: &Relative) -> io::Result<Stat> {
        if path.is_root() {
            return Ok(rustix::fs::fstat(&self.directory)?);
        }
        let (directory, name) = self.parent(path)?;
        Ok(statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes the names in a directory durable.
    pub fn sync(&self, directory: &Relative) -> io::Result<()> {
        let directory = self.open_at(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(&directory)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn both_ways_of_opening_stay_below_the_root() {
        let outside = tempfile::tempdir().expect("a directory");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("f"), "outside").expect("written");
        fs::create_dir_all(directory.path().join("a/b")).expect("made");
        fs::write(directory.path().join("a/b/f"), "inside").expect("written");
        symlink(outside.path(), directory.path().join("a/out")).expect("made");
        symlink("b", directory.path().join("a/in")).expect("made");
        symlink("f", directory.path().join("a/b/l")).expect("made");
        let root = Root::open(directory.path()).expect("opens");
        let path = |text: &str| Relative::parse(&text.into()).expect("a path");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (name, opens) in
            [("a/b/f", true), ("a/out/f", false), ("a/in/f", false), ("a/b/l", false), ("a/b/none", false)]
        {
            assert_eq!(root.by_steps(&path(name), flags).is_ok(), opens, "{name} by steps");
            assert_eq!(root.open_at(&path(name), OFlags::RDONLY).is_ok(), opens, "{name}");
            match root.in_one_step(&path(name), flags) {
                // A kernel without it is what the other way is for.
                Err(Errno::NOSYS | Errno::PERM) => {}
                result => assert_eq!(result.is_ok(), opens, "{name} in one step"),
            }
        }
    }
}

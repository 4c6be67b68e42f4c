//! From a fresh process to the owner of a job: descriptors, session, the word to begin, the lock.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection::{Connection, Listener};
use super::launch::{Launch, MAX_LAUNCH, VERSION, files};
use super::wire::ToShim;
use crate::journal::slots::Slot;
use crate::process::child::SCRIPT_FD;
use crate::sys;

/// A shim that was told to begin.
#[derive(Debug)]
pub(super) struct Begin {
    launch: Launch,
    slot: u32,
    connection: Connection,
    signals: OwnedFd,
    reserved: Vec<OwnedFd>,
}

/// A shim that owns its job.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) launch: Launch,
    pub(super) slot: Slot,
    pub(super) listener: Listener,
    /// Readable when a child has ended.
    pub(super) signals: OwnedFd,
    _lock: File,
    /// Keeps the low numbers occupied, so that none of them is in the way of the child's.
    _reserved: Vec<OwnedFd>,
}

/// Takes over what the agent passed, leaves its session, and waits for the word to begin. `None` where it never comes.
pub(super) fn begin() -> io::Result<Option<Begin>> {
    sys::close_from(3);
    let raise = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(&fd, SCRIPT_FD + 1);
    let socket = raise(sys::take_inherited(0)?)?;
    let document = raise(sys::take_inherited(1)?)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let null = raise(null)?;
    sys::duplicate_to(std::os::fd::AsFd::as_fd(&null), 0)?;
    sys::duplicate_to(std::os::fd::AsFd::as_fd(&null), 1)?;
    let mut reserved = vec![null];
    loop {
        let fd = rustix::io::fcntl_dupfd_cloexec(&reserved[0], 3)?;
        let number = fd.as_raw_fd();
        reserved.push(fd);
        if number >= SCRIPT_FD {
            break;
        }
    }

    // A process that already leads a session (started by hand, say) is as independent as it needs to be.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let signals = sys::child_signals()?;

    let mut text = Vec::new();
    File::from(document).take(MAX_LAUNCH).read_to_end(&mut text)?;
    let launch: Launch = serde_json::from_slice(&text)?;
    if launch.version > VERSION {
        return Err(io::Error::other(
            "the agent speaks a newer version than this shim; update the program on disk",
        ));
    }
    drop(text);
    if let Some(soft) = launch.command_files {
        // A shim needs few itself, so that it lowers its own and the command inherits it.
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })?;
    }

    let mut connection = Connection::new(socket);
    loop {
        match connection.receive_blocking()? {
            Some(ToShim::Go { slot }) => {
                return Ok(Some(Begin { launch, slot, connection, signals, reserved }));
            }
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

/// Takes the lock and makes sure that nobody started the job before. `None` where somebody did.
pub(super) fn own(begin: Begin) -> io::Result<Option<(Owned, Connection)>> {
    let Begin { launch, slot, connection, signals, reserved } = begin;
    // Everything inside the directory is named relative to it from here on; socket paths are short that way.
    rustix::process::chdir(launch.dir())?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(files::LOCK)?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let slot = Slot::open(&launch.slots(), slot, launch.job)?;
    let contents = slot.read()?;
    if contents.starting.is_some() || contents.end.is_some() {
        return Ok(None);
    }
    let listener = Listener::bind(files::SOCKET)?;
    Ok(Some((Owned { launch, slot, listener, signals, _lock: lock, _reserved: reserved }, connection)))
}

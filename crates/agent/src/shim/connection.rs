//! The shim's end of its socket: at most one agent at a time, the latest one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, send, socket_with,
};

use super::wire::{self, FromShim, MAX_PACKET, ToShim};

/// Messages waiting for an agent that does not read; with more the connection is dropped, and the agent starts afresh.
const MAX_OUTBOX: usize = 64;

/// How long the last messages may wait for an agent that does not read.
const LAST_WORDS: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Where agents connect to.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl Listener {
    /// Listens at a path, in place of whatever is there.
    pub(super) fn bind(path: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, 4)?;
        Ok(Self(socket))
    }

    /// The next agent, if one is waiting.
    pub(super) fn accept(&self) -> Option<Connection> {
        accept_with(&self.0, SocketFlags::CLOEXEC).ok().map(Connection::new)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One agent.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    outbox: VecDeque<Vec<u8>>,
}

/// What a look into the socket found.
#[derive(Debug)]
pub(super) enum Received {
    /// A message.
    Message(ToShim),
    /// Nothing for now.
    Nothing,
    /// The agent is gone.
    Gone,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, outbox: VecDeque::new() }
    }

    /// Waits for a message; `None` where the agent is gone.
    pub(super) fn receive_blocking(&mut self) -> io::Result<Option<ToShim>> {
        loop {
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
            match self.receive() {
                Received::Message(message) => return Ok(Some(message)),
                Received::Nothing => {}
                Received::Gone => return Ok(None),
            }
        }
    }

    /// Takes a message that has arrived.
    pub(super) fn receive(&mut self) -> Received {
        let mut packet = [0u8; MAX_PACKET];
        match recv(&self.socket, &mut packet, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Received::Gone,
            Ok((length, _)) => {
                // What cannot be read is of no use; the agent that sent it will notice.
                let message = serde_json::from_slice(&packet[..length.min(MAX_PACKET)]);
                Received::Message(message.unwrap_or(ToShim::Unknown))
            }
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => Received::Gone,
        }
    }

    /// Sends now or as soon as there is room. False where the agent reads nothing or is gone: drop the connection.
    pub(super) fn send(&mut self, message: &FromShim) -> bool {
        match wire::encode(message) {
            Ok(packet) => self.outbox.push_back(packet),
            Err(_) => return true,
        }
        self.outbox.len() <= MAX_OUTBOX && self.flush()
    }

    /// Sends what waits, as far as there is room. False where the agent is gone.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(packet) = self.outbox.front() {
            match send(&self.socket, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => drop(self.outbox.pop_front()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether something waits for room.
    pub(super) fn is_waiting(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends a message before the shim leaves, waiting a little for room.
    pub(super) fn send_last(&mut self, message: &FromShim) {
        if !self.send(message) {
            return;
        }
        while self.is_waiting() {
            let mut ready = [PollFd::new(&self.socket, PollFlags::OUT)];
            match poll(&mut ready, Some(&LAST_WORDS)) {
                Ok(1..) if self.flush() => {}
                _ => return,
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

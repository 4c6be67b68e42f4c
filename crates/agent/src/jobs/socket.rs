//! The agent's end of a shim's socket.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with, socketpair,
};
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::shim::launch::files;
use crate::shim::wire::{self, FromShim, MAX_PACKET};
use crate::sys;

/// A connection to a shim.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// A connected pair: ours, and the one that a new shim is started with.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Connects to the shim that listens in a job's directory.
    pub(super) fn connect(dir: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        // Socket addresses are short and data directories may be long: the way through /proc is always short.
        let handle = std::fs::File::open(dir)?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), files::SOCKET))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &address)?;
        Self::new(socket)
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(sys::wait_on(socket)?))
    }

    /// Sends one message. Cancelling the future sends it wholly or not.
    pub(super) async fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let packet = wire::encode(message)?;
        self.0
            .async_io(Interest::WRITABLE, |socket| {
                Ok(send(socket, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
            })
            .await?;
        Ok(())
    }

    /// Sends one message if there is room for it now, which there is on a fresh connection.
    pub(super) fn send_now(&self, message: &impl Serialize) -> io::Result<()> {
        let packet = wire::encode(message)?;
        send(self.0.get_ref(), &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message; `None` where the shim is gone. Cancelling the future loses nothing.
    pub(super) async fn receive(&self) -> io::Result<Option<FromShim>> {
        let received = self.0.async_io(Interest::READABLE, |socket| {
            // In here, so that the waiting future does not carry the buffer.
            let mut packet = [0u8; MAX_PACKET];
            let mut received = recv(socket, &mut packet[..], RecvFlags::DONTWAIT);
            if received == Err(Errno::CONNRESET) {
                // The shim left without reading all that it was sent. That is told once, before what it had said last.
                received = recv(socket, &mut packet[..], RecvFlags::DONTWAIT);
            }
            let (length, _) = received?;
            let message = packet.get(..length).filter(|message| !message.is_empty());
            Ok(message.map(serde_json::from_slice).transpose()?)
        });
        received.await
    }
}

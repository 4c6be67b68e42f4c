//! Sockets under a link: their options, and one type for all that a link runs over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// Bytes that may wait unsent in the kernel before the socket counts as full. Small, so that what matters now does not wait
/// behind what was written long ago.
pub const NOTSENT_LOWAT: u32 = 16 * 1024;

/// Bytes that TLS keeps encrypted and unsent, for the same reason: about one record.
pub const TLS_BUFFER: usize = 16 * 1024;

/// Sets what every TCP connection under a link needs: no delay for small messages, and a short unsent queue.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    Ok(())
}

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Connects to `HOST:PORT`. Where the name has several addresses, each gets its share of `patience`, so that one that
/// swallows everything does not hide those that answer.
pub(crate) async fn connect(authority: &str, patience: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host(authority).await?.take(MAX_ADDRESSES).collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let share = patience / (addresses.len() as u32 + 1);
    for (index, address) in addresses.iter().enumerate() {
        let attempt = TcpStream::connect(address);
        // The last one may take all that is left; the caller's own timeout bounds it.
        let connected = if index + 1 == addresses.len() {
            attempt.await
        } else {
            timeout(share, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What a dialled link runs over.
#[derive(Debug)]
pub enum Socket {
    /// TCP without TLS, on this machine only.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// A local socket.
    Unix(UnixStream),
}

macro_rules! each {
    ($self:ident, $socket:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Plain($socket) => $call,
            Socket::Tls($socket) => $call,
            Socket::Unix($socket) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(socket) => socket.is_write_vectored(),
            Self::Unix(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}

//! Binding TCP ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use super::ServerError;

/// Connections that the kernel keeps waiting: a fleet that comes back comes at once.
const BACKLOG: u32 = 4096;

/// Listens on an address. Where `[::]` is asked for and the machine has no IPv6, `0.0.0.0` is taken.
pub(super) fn tcp(address: SocketAddr) -> Result<TcpListener, ServerError> {
    match bind(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6(&error) => {
            let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            bind(fallback).map_err(|source| failed(fallback, source))
        }
        result => result.map_err(|source| failed(address, source)),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A hub that is started again must not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn no_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|known| errno == Some(known.raw_os_error()))
}

fn failed(address: SocketAddr, source: io::Error) -> ServerError {
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => "another program has this port: stop it, or choose another with --listen",
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have this address: choose another with --listen"
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not take this port: choose one above 1023 with --listen"
        }
        _ => "choose another address with --listen",
    };
    ServerError::Listen { address, hint, source }
}

/// The address that was taken, where port 0 was asked for.
pub(super) fn local_address(listener: &TcpListener) -> Result<SocketAddr, ServerError> {
    listener.local_addr().map_err(|source| ServerError::Listen {
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        hint: "try again",
        source,
    })
}

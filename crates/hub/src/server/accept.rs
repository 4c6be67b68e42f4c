//! The accept loops of the TCP ports, and the TLS handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use datacentered_link::socket::tune;
use datacentered_proto::ALPN_AGENT;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor as TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{Admission, Admitted};
use super::connection::Connection;
use super::serve::serve;
use crate::hub::Hub;
use crate::identity::HostKey;
use crate::metrics::{Door, TurnedAway};
use crate::sessions::Peer;

/// Pause after a failure to accept, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a browser without TLS is told.
const TLS_NEEDED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    connection: close\r\ncontent-length: 59\r\n\r\nThis port speaks TLS only; begin the address with https://\n";

/// What the accept loops share.
pub(super) struct Acceptor {
    pub(super) hub: Arc<Hub>,
    pub(super) admission: Admission,
    pub(super) connections: Arc<Semaphore>,
    pub(super) agents: Router,
    pub(super) web: Router,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// TLS.
    Tls,
    /// Plain HTTP, from this machine only.
    Plain,
}

/// Accepts until the hub stops.
pub(super) async fn run(acceptor: Arc<Acceptor>, listener: TcpListener, transport: Transport) {
    let hub = &acceptor.hub;
    loop {
        // The permit comes first: at the limit, connections wait in the kernel instead of in our memory.
        let permit = tokio::select! {
            () = hub.stop.cancelled() => return,
            permit = acceptor.connections.clone().acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_closed) => return,
            },
        };
        let (stream, address) = tokio::select! {
            () = hub.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let admitted = match acceptor.admission.admit(address.ip()) {
            Ok(admitted) => admitted,
            Err(why) => {
                hub.metrics.turned_away(why);
                tracing::debug!(%address, ?why, "a connection was turned away");
                continue;
            }
        };
        let acceptor = acceptor.clone();
        hub.tasks.spawn("connection", async move {
            connection(&acceptor, stream, address, transport, admitted, permit).await;
        });
    }
}

async fn connection(
    acceptor: &Acceptor,
    stream: TcpStream,
    address: SocketAddr,
    transport: Transport,
    admitted: Admitted,
    permit: OwnedSemaphorePermit,
) {
    let hub = &acceptor.hub;
    let limits = &hub.config.limits;
    if let Err(error) = tune(&stream) {
        tracing::debug!(%address, %error, "the options of a connection could not be set");
    }
    // A peer that is gone, or takes nothing, holds what was sent to it only for so long.
    let write_timeout = u32::try_from(limits.write_timeout_ms).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, write_timeout) {
        tracing::debug!(%address, %error, "the write timeout of a connection could not be set");
    }
    let new = |door, host_key| {
        let counted = hub.metrics.connection(door);
        Connection::new(door, Peer::Tcp(address), host_key, Some(admitted), permit, counted)
    };
    match transport {
        Transport::Plain => {
            let connection = new(Door::Plain, None);
            serve(hub, acceptor.web.clone(), connection, stream).await;
        }
        Transport::Tls => {
            let handshake = Duration::from_millis(limits.handshake_timeout_ms);
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(handshake, shake_hands(hub, stream)) => shaken,
                () = hub.stop.cancelled() => return,
            };
            match shaken {
                Ok(Some((Door::Agent, host_key, stream))) => {
                    serve(hub, acceptor.agents.clone(), new(Door::Agent, host_key), stream).await;
                }
                Ok(Some((door, host_key, stream))) => {
                    serve(hub, acceptor.web.clone(), new(door, host_key), stream).await;
                }
                Ok(None) | Err(_) => {
                    hub.metrics.turned_away(TurnedAway::Handshake);
                    tracing::debug!(%address, "no TLS handshake");
                }
            }
        }
    }
}

/// The TLS handshake: the ClientHello decides on which side of the port the peer is.
async fn shake_hands(
    hub: &Hub,
    mut stream: TcpStream,
) -> Option<(Door, Option<HostKey>, Box<TlsStream<TcpStream>>)> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first[0].is_ascii_uppercase() {
        // The method of an HTTP request. The answer is a courtesy: whether it arrives does not matter.
        let _ = stream.write_all(TLS_NEEDED).await;
        let _ = stream.shutdown().await;
        return None;
    }
    let start = LazyConfigAcceptor::new(TlsAcceptor::default(), stream).await.ok()?;
    let agent = start
        .client_hello()
        .alpn()
        .is_some_and(|mut protocols| protocols.any(|protocol| protocol == ALPN_AGENT.as_bytes()));
    let (door, config) =
        if agent { (Door::Agent, hub.identity.agent_tls()) } else { (Door::Web, hub.identity.web_tls()) };
    let mut stream = start.into_stream(config).await.ok()?;
    stream.get_mut().1.set_buffer_limit(Some(datacentered_link::socket::TLS_BUFFER));
    let host_key = if agent {
        let (_, tls) = stream.get_ref();
        Some(HostKey::of_certificate(tls.peer_certificates()?.first()?)?)
    } else {
        None
    };
    Some((door, host_key, Box::new(stream)))
}

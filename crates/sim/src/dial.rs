//! One connection of a simulated host: from an address of its own where the hub is on this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use datacentered_link::dial::{self, DialError, DialOptions};
use datacentered_link::socket::{self, Socket};
use datacentered_link::url::HubUrl;
use datacentered_link::{CloseReason, Handler, Limits, Link, Side};
use datacentered_proto::operations::SessionHello;
use datacentered_proto::ops::session::{AgentHello, HelloParams, HelloReply};
use datacentered_proto::{CAPABILITIES, Error, PROTOCOL, Timestamp};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_util::task::AbortOnDropHandle;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody is there.
    #[error("{0}")]
    Unreachable(String),
    /// The hub is there and did not complete the connection.
    #[error("{0}")]
    Refused(String),
    /// The hub did not greet back.
    #[error("the hub does not greet this host: {0}")]
    Hello(#[from] Error),
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text = format!("{text} ({source})");
        }
        match &error {
            DialError::Unreachable { .. } => Self::Unreachable(text),
            // A hub that ends while hosts connect leaves them with half a handshake; it refused nothing.
            DialError::Tls { source, .. } if is_cut(source) => Self::Unreachable(text),
            _ => Self::Refused(text),
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
    )
}

/// A link that is up, and the hub's greeting.
pub(crate) struct Connected {
    pub(crate) link: Link,
    pub(crate) hello: HelloReply,
    /// Runs the connection; without it the connection breaks.
    pub(crate) driver: AbortOnDropHandle<CloseReason>,
}

impl Connected {
    /// Ends the link in good order.
    pub(crate) async fn part(self, reason: &str) {
        self.link.close(reason);
        // Why it ended is known: this side wanted it to.
        let _ = self.driver.await;
    }
}

/// How a host's connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Dialler {
    pub(crate) hub: HubUrl,
    pub(crate) limits: Limits,
    /// The address to come from.
    pub(crate) source: Option<Ipv4Addr>,
}

impl Dialler {
    /// Dials and greets.
    pub(crate) async fn connect(
        &self,
        tls: Arc<ClientConfig>,
        handler: Arc<dyn Handler>,
        agent: AgentHello,
        now: Timestamp,
    ) -> Result<Connected, ConnectError> {
        let options =
            DialOptions { tls: Some(tls.clone()), limits: self.limits.clone(), ..DialOptions::default() };
        let socket = match (self.source, loopback(&self.hub)) {
            (Some(source), Some(hub)) => self.from(source, hub, tls, &options).await?,
            _ => dial::connect(&self.hub, &options).await?,
        };
        let (link, driver) = Link::start(socket, Side::Dialled, handler, self.limits.clone());
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let params = HelloParams {
            protocol: PROTOCOL,
            capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
            client: concat!("datacentered-sim ", env!("CARGO_PKG_VERSION")).to_owned(),
            token: None,
            agent: Some(agent),
            now: Some(now),
        };
        match link.call::<SessionHello>(&params).await {
            Ok(hello) => Ok(Connected { link, hello, driver }),
            Err(error) => {
                link.close("the greeting failed");
                // The greeting says what went wrong; how the connection ended adds nothing.
                let _ = driver.await;
                Err(error.into())
            }
        }
    }

    async fn from(
        &self,
        source: Ipv4Addr,
        hub: SocketAddr,
        tls: Arc<ClientConfig>,
        options: &DialOptions,
    ) -> Result<WebSocketStream<Socket>, ConnectError> {
        let unreachable = |error: io::Error| {
            ConnectError::Unreachable(format!("cannot reach {} from {source}: {error}", self.hub))
        };
        let secured = async {
            let socket = TcpSocket::new_v4().map_err(unreachable)?;
            socket.bind(SocketAddr::new(IpAddr::V4(source), 0)).map_err(unreachable)?;
            let stream = socket.connect(hub).await.map_err(unreachable)?;
            socket::tune(&stream).map_err(unreachable)?;
            let name = ServerName::from(hub.ip());
            let mut stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|source| {
                if is_cut(&source) || source.kind() == io::ErrorKind::UnexpectedEof {
                    return unreachable(source);
                }
                ConnectError::Refused(format!("TLS with {} failed: {source}", self.hub))
            })?;
            stream.get_mut().1.set_buffer_limit(Some(socket::TLS_BUFFER));
            Ok::<_, ConnectError>(Socket::Tls(Box::new(stream)))
        };
        let Ok(secured) = timeout(self.limits.handshake_timeout(), secured).await else {
            return Err(ConnectError::Refused(format!(
                "{} did not complete the handshake in time",
                self.hub
            )));
        };
        Ok(dial::over(&self.hub, options, secured?).await?)
    }
}

/// The hub's address, where it is one of this machine's own.
pub(crate) fn loopback(hub: &HubUrl) -> Option<SocketAddr> {
    let HubUrl::Tls { host, port } = hub else { return None };
    let address: Ipv4Addr = host.parse().ok()?;
    address.is_loopback().then(|| SocketAddr::new(IpAddr::V4(address), *port))
}

/// The loopback address that a host comes from: as a real fleet, each has one of its own.
pub(crate) fn source_of(index: usize) -> Ipv4Addr {
    // 127.1.0.1 and on; 127.0.0.1 is everybody else's. It wraps around after 16 million hosts.
    let number = (index as u32).wrapping_add(1) % ((1 << 24) - (1 << 16)) + (1 << 16);
    Ipv4Addr::from((127 << 24) | number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_a_loopback_address_of_its_own() {
        assert_eq!(source_of(0), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(source_of(255), Ipv4Addr::new(127, 1, 1, 0));
        let all: std::collections::HashSet<_> = (0..20_000).map(source_of).collect();
        assert_eq!(all.len(), 20_000);
        assert!(source_of(usize::MAX).is_loopback() && source_of(1 << 24).is_loopback());
    }

    #[test]
    fn only_a_hub_on_this_machine_is_dialled_from_such_an_address() {
        let is_local = |url: &str| loopback(&url.parse().expect("a URL")).is_some();
        assert!(is_local("wss://127.0.0.1:7272"));
        assert!(!is_local("wss://hub.example.net:7272") && !is_local("wss://192.0.2.1:7272"));
    }
}

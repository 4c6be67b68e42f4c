//! The side that dials: TCP or a local socket, TLS, the WebSocket.

use std::io;
use std::sync::Arc;

use datacentered_proto::LINK_PATH;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::limits::{Limits, websocket_config};
use crate::proxy::Proxy;
use crate::socket::{self, Socket, tune};
use crate::tls::{self, Fingerprint, Pin, PinMismatch, TlsError};
use crate::url::HubUrl;

/// How to dial.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// Whom to trust and who we are; see [`tls::client_config`]. Needed for every URL with TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The HTTP proxy to go through; never for local sockets and loopback without TLS.
    pub proxy: Option<Proxy>,
    /// The path of the WebSocket.
    pub path: String,
    /// Headers of the upgrade request, such as a cookie.
    pub headers: Vec<(String, String)>,
    /// Limits; here the handshake's timeout and the message size.
    pub limits: Limits,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            tls: None,
            proxy: None,
            path: LINK_PATH.into(),
            headers: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answers there.
    #[error("cannot reach {url}; is the hub running, and is the address right?")]
    Unreachable {
        /// Where.
        url: HubUrl,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The proxy does not get us there.
    #[error("the proxy {proxy} does not connect to {url}; is it the right one, and does it allow this port?")]
    Proxy {
        /// Where.
        url: HubUrl,
        /// Through what.
        proxy: Proxy,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Somebody is there and does not get on.
    #[error(
        "{url} did not complete the handshake within {ms} ms{}; is it overloaded, or something else than a hub?",
        .proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default()
    )]
    Timeout {
        /// Where.
        url: HubUrl,
        /// The limit.
        ms: u64,
        /// Through what, which may be what does not answer.
        proxy: Option<Proxy>,
    },
    /// The server has another key than expected.
    #[error(
        "{url} has the key {}, but {} is pinned: this is another hub, a hub with a new key, or someone in between; compare with what the hub itself shows",
        .mismatch.presented, .mismatch.expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    )]
    Pin {
        /// Where.
        url: HubUrl,
        /// Both keys.
        mismatch: PinMismatch,
    },
    /// TLS failed otherwise.
    #[error("TLS with {url} failed; the server may have refused our certificate")]
    Tls {
        /// Where.
        url: HubUrl,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The server answered with another HTTP status.
    #[error("{url} refused the connection with HTTP status {status}")]
    Status {
        /// Where.
        url: HubUrl,
        /// The status.
        status: u16,
    },
    /// Something answers there that is not a hub.
    #[error("what answers at {url} is not a hub ({detail})")]
    NotAHub {
        /// Where.
        url: HubUrl,
        /// What it did; untrusted text is left out.
        detail: String,
    },
    /// The options do not fit the URL.
    #[error("cannot dial {url}: {detail}")]
    Options {
        /// Where.
        url: HubUrl,
        /// What does not fit.
        detail: String,
    },
}

/// Connects, shakes hands and upgrades, all within [`Limits::handshake_timeout_ms`].
pub async fn connect(url: &HubUrl, options: &DialOptions) -> Result<WebSocketStream<Socket>, DialError> {
    within(url, options, async {
        let socket = match url {
            HubUrl::Tls { host, .. } => {
                let Some(config) = &options.tls else {
                    let detail = "no key is pinned, so the server cannot be known".into();
                    return Err(DialError::Options { url: url.clone(), detail });
                };
                Socket::Tls(Box::new(
                    secure(
                        url,
                        host,
                        config.clone(),
                        tcp(url, options.proxy.as_ref(), &options.limits).await?,
                    )
                    .await?,
                ))
            }
            HubUrl::Plain { .. } => Socket::Plain(tcp(url, None, &options.limits).await?),
            HubUrl::Unix { path } => Socket::Unix(
                UnixStream::connect(path)
                    .await
                    .map_err(|source| DialError::Unreachable { url: url.clone(), source })?,
            ),
        };
        handshake(url, options, socket).await
    })
    .await
}

/// The fingerprint of the server's key, to show and ask before it is pinned. Nothing is sent to a server so asked.
pub async fn fingerprint(url: &HubUrl, options: &DialOptions) -> Result<Fingerprint, DialError> {
    let HubUrl::Tls { host, .. } = url else {
        let detail = "only a URL with TLS has a key".into();
        return Err(DialError::Options { url: url.clone(), detail });
    };
    within(url, options, async {
        // No key matches an empty list of pins: the handshake ends where the server has shown its certificate.
        let config = tls::client_config(&[] as &[Pin], None, &[]).map_err(|error| set_up(url, &error))?;
        match secure(url, host, config, tcp(url, options.proxy.as_ref(), &options.limits).await?).await {
            Err(DialError::Pin { mismatch, .. }) => Ok(mismatch.presented),
            Err(other) => Err(other),
            Ok(_) => Err(DialError::NotAHub { url: url.clone(), detail: "it showed no key".into() }),
        }
    })
    .await
}

/// Upgrades a connection that stands already, such as a simulated one.
pub async fn over<S>(url: &HubUrl, options: &DialOptions, stream: S) -> Result<WebSocketStream<S>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(url, options, handshake(url, options, stream)).await
}

async fn within<T>(
    url: &HubUrl,
    options: &DialOptions,
    work: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    let ms = options.limits.handshake_timeout_ms;
    timeout(options.limits.handshake_timeout(), work)
        .await
        .unwrap_or_else(|_| Err(DialError::Timeout { url: url.clone(), ms, proxy: options.proxy.clone() }))
}

fn set_up(url: &HubUrl, error: &TlsError) -> DialError {
    DialError::Options { url: url.clone(), detail: error.to_string() }
}

async fn tcp(url: &HubUrl, proxy: Option<&Proxy>, limits: &Limits) -> Result<TcpStream, DialError> {
    let unreachable = |source| DialError::Unreachable { url: url.clone(), source };
    let patience = limits.handshake_timeout();
    let stream = match proxy {
        Some(proxy) => proxy
            .connect(&url.authority(), patience)
            .await
            .map_err(|source| DialError::Proxy { url: url.clone(), proxy: proxy.clone(), source })?,
        None => socket::connect(&url.authority(), patience).await.map_err(unreachable)?,
    };
    tune(&stream).map_err(unreachable)?;
    Ok(stream)
}

async fn secure(
    url: &HubUrl,
    host: &str,
    config: Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, DialError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| DialError::Options { url: url.clone(), detail: "the host has no valid name".into() })?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    let mut stream = connected.map_err(|error| tls_error(url, error))?;
    stream.get_mut().1.set_buffer_limit(Some(socket::TLS_BUFFER));
    Ok(stream)
}

fn tls_error(url: &HubUrl, error: io::Error) -> DialError {
    let url = url.clone();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            match other.0.downcast_ref::<PinMismatch>() {
                Some(mismatch) => DialError::Pin { url, mismatch: mismatch.clone() },
                None => DialError::Tls { url, source: error },
            }
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            DialError::NotAHub { url, detail: "it does not speak TLS".into() }
        }
        Some(_) => DialError::Tls { url, source: error },
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            DialError::NotAHub { url, detail: "it hung up during the TLS handshake".into() }
        }
        None => DialError::Unreachable { url, source: error },
    }
}

async fn handshake<S>(url: &HubUrl, options: &DialOptions, stream: S) -> Result<WebSocketStream<S>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let authority = url.authority();
    let mut request = Request::builder()
        // The library wants a whole URL; only the path goes out.
        .uri(format!("ws://{authority}{}", options.path))
        .header("Host", &authority)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key());
    for (name, value) in &options.headers {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(|error| DialError::Options {
        url: url.clone(),
        detail: format!("the upgrade request cannot be made: {error}"),
    })?;
    match client_async_with_config(request, stream, Some(websocket_config(&options.limits))).await {
        Ok((ws, _)) => Ok(ws),
        Err(error) => Err(handshake_error(url.clone(), error)),
    }
}

fn handshake_error(url: HubUrl, error: WsError) -> DialError {
    match error {
        WsError::Http(response) => DialError::Status { url, status: response.status().as_u16() },
        WsError::Io(source) => DialError::Tls { url, source },
        WsError::Protocol(_) | WsError::HttpFormat(_) | WsError::Capacity(_) | WsError::AttackAttempt => {
            DialError::NotAHub { url, detail: "it does not answer as a WebSocket server does".into() }
        }
        other => DialError::Options { url, detail: other.to_string() },
    }
}

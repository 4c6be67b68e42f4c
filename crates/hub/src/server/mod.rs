//! The hub's doors: the one TLS port, the port without TLS for this machine, and the local socket.
//!
//! Every connection has a task of its own, in which also its handshake runs, so that a slow peer delays nobody. On the TLS
//! port the ClientHello decides: ALPN `datacentered/1` is an agent (or something that wants to be one) and gets the hub's
//! own identity, everything else gets the web certificate.

mod accept;
mod admission;
mod connection;
mod listen;
mod local;
mod serve;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datacentered_proto::Error;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::access::{self, SetupSecret};
use crate::hub::Hub;
use crate::identity::machine_name;
use crate::web;

pub(crate) use admission::Admission;
pub(crate) use connection::Connection;

use accept::{Acceptor, Transport};

/// How long the machine's name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(1);

/// Why the hub cannot open its doors, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}; {hint}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What to do.
        hint: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The local socket cannot be made.
    #[error("cannot make the local socket `{path}`: {why}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
}

/// What the hub listens on.
#[derive(Debug)]
pub(crate) struct Listening {
    /// The address for people and agents, such as `https://hub.example.net:7272`.
    pub url: String,
    /// The address of the TLS port.
    pub address: SocketAddr,
    /// The address of the port without TLS.
    pub plain: Option<SocketAddr>,
    /// The local socket.
    pub socket: PathBuf,
    /// The web certificate's fingerprint, for the first login.
    pub web_fingerprint: String,
    /// The secret of the first account, while there is none.
    pub setup: Option<SetupSecret>,
}

impl Listening {
    /// The link that makes the first account. The secret is behind `#`, so that it is never sent or logged by accident.
    pub(crate) fn setup_link(&self) -> Option<String> {
        self.setup.as_ref().map(|secret| format!("{}/setup#{}", self.url, secret.expose()))
    }

    /// What to print at the start: for programs one JSON object a line, for people a few sentences.
    pub(crate) fn announcement(&self, as_json: bool) -> String {
        let mut lines = Vec::new();
        if as_json {
            let listening = json!({
                "event": "listening",
                "url": self.url,
                "address": self.address.to_string(),
                "plain": self.plain.map(|plain| format!("http://{plain}")),
                "socket": self.socket,
                "web_fingerprint": self.web_fingerprint,
            });
            lines.push(listening.to_string());
            lines.extend(self.setup_link().map(|link| json!({"event": "setup", "link": link}).to_string()));
        } else {
            lines.push(format!("Listening on {} (certificate {})", self.url, self.web_fingerprint));
            let plain = self
                .plain
                .map(|plain| format!("Listening on http://{plain} without TLS, for this machine only"));
            lines.extend(plain);
            lines.push(format!("Local administration: --hub unix:{}", self.socket.display()));
            if let Some(link) = self.setup_link() {
                lines.push("No account yet. This link makes the first one, once:".into());
                lines.push(format!("  {link}"));
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// The open doors of a hub, before anybody is let in.
pub(crate) struct Server {
    tls: TcpListener,
    address: SocketAddr,
    plain: Option<(TcpListener, SocketAddr)>,
    local: local::LocalSocket,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes every port and socket of the settings.
    pub(crate) async fn bind(hub: &Arc<Hub>) -> Result<Self, ServerError> {
        raise_file_limit();
        let tls = listen::tcp(hub.config.listen_address()?)?;
        let address = listen::local_address(&tls)?;
        let plain = match hub.config.plain_address()? {
            Some(address) => {
                let listener = listen::tcp(address)?;
                let address = listen::local_address(&listener)?;
                Some((listener, address))
            }
            None => None,
        };
        let local = local::bind(&hub.config.socket_path())?;
        Ok(Self { tls, address, plain, local })
    }

    /// What it listens on. While there is no account, this makes a new setup secret, and earlier ones end.
    pub(crate) async fn listening(&self, hub: &Arc<Hub>) -> Result<Listening, Error> {
        let url = match &hub.config.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{}", public_authority(self.address).await),
        };
        Ok(Listening {
            url,
            address: self.address,
            plain: self.plain.as_ref().map(|(_, address)| *address),
            socket: hub.config.socket_path(),
            web_fingerprint: hub.identity.web_fingerprint(),
            setup: access::prepare_setup(hub).await?,
        })
    }

    /// Prints what it listens on, and the setup link while there is no account, on standard output.
    pub(crate) async fn announce(&self, hub: &Arc<Hub>) -> Result<(), Error> {
        let listening = self.listening(hub).await?;
        tracing::info!(url = listening.url, address = %listening.address, plain = ?listening.plain, "listening");
        let text = listening.announcement(hub.config.json_events);
        let print = || {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        // Nobody may be reading it any more, as after `| head -1`; the hub works all the same.
        if let Err(error) = print() {
            tracing::warn!(%error, "what the hub listens on could not be printed");
        }
        Ok(())
    }

    /// Lets everybody in, until the hub stops.
    pub(crate) fn serve(self, hub: &Arc<Hub>) {
        let limits = &hub.config.limits;
        let face = web::Face::new(hub);
        let acceptor = Arc::new(Acceptor {
            hub: hub.clone(),
            admission: Admission::new(
                limits.connections_unauthenticated,
                limits.connections_per_address_unauthenticated,
            ),
            connections: Arc::new(Semaphore::new(limits.connections)),
            agents: web::agent_router(&face),
            web: web::router(&face),
        });
        hub.tasks.spawn_vital("accept TLS", accept::run(acceptor.clone(), self.tls, Transport::Tls));
        if let Some((plain, _)) = self.plain {
            hub.tasks.spawn_vital("accept plain", accept::run(acceptor.clone(), plain, Transport::Plain));
        }
        hub.tasks.spawn_vital("accept local", local::run(acceptor, self.local));
        hub.tasks.spawn("reload", reload_on_hangup(hub.clone()));
    }
}

/// Waits for the signal to go down: SIGTERM or SIGINT.
pub(crate) async fn stop_signal(hub: &Arc<Hub>) {
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    match signals {
        Ok((mut terminate, mut interrupt)) => tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        },
        Err(error) => {
            tracing::warn!(%error, "signals cannot be waited for; the hub goes down only with SIGKILL");
            hub.stop.cancelled().await;
        }
    }
}

/// The host and port that others reach this address by: the machine's name where it can be looked up.
async fn public_authority(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let port = address.port();
    if let Some(name) = machine_name() {
        let lookup = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name.as_str(), port))).await;
        if lookup.is_ok_and(|found| found.is_ok_and(|mut addresses| addresses.next().is_some())) {
            return format!("{name}:{port}");
        }
    }
    format!("127.0.0.1:{port}")
}

/// Reads the web certificate again, as when it was renewed.
pub(crate) async fn reload(hub: &Arc<Hub>) {
    let identity = hub.identity.clone();
    match tokio::task::spawn_blocking(move || identity.reload_web()).await {
        Ok(Ok(())) => {
            tracing::info!(
                fingerprint = hub.identity.web_fingerprint(),
                "the web certificate was read again"
            );
        }
        Ok(Err(error)) => tracing::error!(%error, "the web certificate was not changed"),
        Err(error) => tracing::error!(%error, "the web certificate was not changed"),
    }
}

async fn reload_on_hangup(hub: Arc<Hub>) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP will not reload the web certificate");
            return;
        }
    };
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            received = hangup.recv() => match received {
                Some(()) => reload(&hub).await,
                None => return,
            },
        }
    }
}

/// A hub of thousands of hosts needs as many open files as it may have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
}

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod tests;

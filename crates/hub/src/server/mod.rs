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

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::access::{self, SetupSecret};
use crate::hub::Hub;
use crate::identity::machine_name;
use crate::{metrics, web};

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
    /// The store cannot be written.
    #[error("the setup link cannot be prepared; see the log of the store")]
    Store(#[source] datacentered_proto::Error),
}

/// What the hub listens on.
#[derive(Debug)]
pub struct Listening {
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
    pub fn setup_link(&self) -> Option<String> {
        self.setup.as_ref().map(|secret| format!("{}/setup#{}", self.url, secret.expose()))
    }

    /// What to print at the start: for programs one JSON object a line, for people a few sentences.
    pub fn announcement(&self, as_json: bool) -> String {
        if as_json {
            let mut text = json!({
                "event": "listening",
                "url": self.url,
                "address": self.address.to_string(),
                "plain": self.plain.map(|plain| format!("http://{plain}")),
                "socket": self.socket,
                "web_fingerprint": self.web_fingerprint,
            })
            .to_string();
            text.push('\n');
            if let Some(link) = self.setup_link() {
                text.push_str(&json!({"event": "setup", "link": link}).to_string());
                text.push('\n');
            }
            return text;
        }
        let mut text = format!("Listening on {} (certificate {})\n", self.url, self.web_fingerprint);
        if let Some(plain) = self.plain {
            text.push_str(&format!("Listening on http://{plain} without TLS, for this machine only\n"));
        }
        text.push_str(&format!("Local administration: --hub unix:{}\n", self.socket.display()));
        if let Some(link) = self.setup_link() {
            text.push_str(&format!("No account yet. Make the first one with this link, good for one use:\n  {link}\n"));
        }
        text
    }

    /// Prints it on standard output.
    pub fn announce(&self, as_json: bool) -> std::io::Result<()> {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        out.write_all(self.announcement(as_json).as_bytes())?;
        out.flush()
    }
}

/// Opens every door and starts what belongs to them. Everything ends with the hub's stop token.
pub async fn start(hub: &Arc<Hub>) -> Result<Listening, ServerError> {
    raise_file_limit();
    let limits = &hub.config.limits;
    let tls = listen::tcp(hub.config.listen_address()?)?;
    let address = listen::local_address(&tls)?;
    let plain = match hub.config.plain_address()? {
        Some(address) => Some(listen::tcp(address)?),
        None => None,
    };
    let plain_address = plain.as_ref().map(listen::local_address).transpose()?;
    let socket = local::bind(&hub.config.socket_path())?;
    let setup = access::prepare_setup(hub).await.map_err(ServerError::Store)?;

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
    hub.tasks.spawn("accept-tls", accept::run(acceptor.clone(), tls, Transport::Tls));
    if let Some(plain) = plain {
        hub.tasks.spawn("accept-plain", accept::run(acceptor.clone(), plain, Transport::Plain));
    }
    hub.tasks.spawn("accept-local", local::run(acceptor, socket));
    hub.tasks.spawn("access", access::maintain(hub.clone()));
    hub.tasks.spawn("metrics", metrics::upkeep(hub.clone()));
    hub.tasks.spawn("reload", reload_on_hangup(hub.clone()));

    let url = match &hub.config.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("https://{}", public_authority(address).await),
    };
    tracing::info!(%address, plain = ?plain_address, url, "listening");
    Ok(Listening {
        url,
        address,
        plain: plain_address,
        socket: hub.config.socket_path(),
        web_fingerprint: hub.identity.web_fingerprint(),
        setup,
    })
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
pub async fn reload(hub: &Arc<Hub>) {
    let identity = hub.identity.clone();
    match tokio::task::spawn_blocking(move || identity.reload_web()).await {
        Ok(Ok(())) => {
            tracing::info!(fingerprint = hub.identity.web_fingerprint(), "the web certificate was read again");
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
mod tests;

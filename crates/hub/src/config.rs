//! The hub's settings: defaults, then `DATA_DIR/hub.toml`, then the environment, then the command line.

mod limits;
mod source;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use datacentered_engine::EmbeddedConfig;
use serde::{Deserialize, Serialize};

pub use limits::{Limits, Retention, TerminalsConfig};

/// The name of the settings file in the data directory.
pub const CONFIG_FILE: &str = "hub.toml";

/// The name of the local socket in the data directory.
pub const SOCKET_FILE: &str = "hub.sock";

/// The engine's directory in the data directory.
pub const ENGINE_DIR: &str = "engine";

/// Largest settings file that is read, in bytes.
const MAX_CONFIG_FILE: u64 = 1024 * 1024;

/// What the program was started with; `None` leaves a setting to the environment, the file and the defaults.
#[derive(Clone, Debug, Default)]
pub struct HubOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--listen-plain`.
    pub listen_plain: Option<String>,
    /// `--engine`.
    pub engine: Option<String>,
    /// `--tls-cert`.
    pub tls_cert: Option<PathBuf>,
    /// `--tls-key`.
    pub tls_key: Option<PathBuf>,
    /// `-o json`: what happens at the start is printed as one JSON object a line.
    pub json_events: bool,
}

/// The web certificate of the administrator's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and its chain (PEM). Absent: the hub's own CA makes one.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
}

/// Every setting of a hub, as `hub.toml` holds it. The environment has `DATACENTERED_LISTEN`, `DATACENTERED_LISTEN_PLAIN`,
/// `DATACENTERED_ENGINE`, `DATACENTERED_TLS_CERT` and `DATACENTERED_TLS_KEY`; the command line has an option for each of
/// these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The one TLS port, as `ADDRESS:PORT`. Port 0 takes any free one. Where `[::]` has no IPv6, `0.0.0.0` is taken.
    pub listen: String,
    /// A port without TLS, for reverse proxies and measurements. Loopback addresses only.
    pub listen_plain: Option<String>,
    /// The address that links shown to people begin with, such as `https://hub.example.net:7272`. Absent: this
    /// machine's name, or the address of `listen`.
    pub public_url: Option<String>,
    /// Names and addresses that the hub's own web certificate is also good for.
    pub names: Vec<String>,
    /// Origins (`https://HOST[:PORT]`) of web pages that may call the hub, beside its own.
    pub origins: Vec<String>,
    /// `embedded`, or the NATS servers.
    pub engine: String,
    /// The administrator's own web certificate.
    pub tls: TlsConfig,
    /// Limits.
    pub limits: Limits,
    /// How long what happened is kept.
    pub retention: Retention,
    /// Terminals.
    pub terminals: TerminalsConfig,
    /// Settings of the embedded engine.
    pub embedded: EmbeddedConfig,
    /// Where everything is kept. Never in the file: the file is in it.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// Whether what happens at the start is printed as JSON.
    #[serde(skip)]
    pub json_events: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: format!("[::]:{}", datacentered_proto::DEFAULT_PORT),
            listen_plain: None,
            public_url: None,
            names: Vec::new(),
            origins: Vec::new(),
            engine: "embedded".into(),
            tls: TlsConfig::default(),
            limits: Limits::default(),
            retention: Retention::default(),
            terminals: TerminalsConfig::default(),
            embedded: EmbeddedConfig::default(),
            data_dir: PathBuf::new(),
            json_events: false,
        }
    }
}

/// Why the settings cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`; check that this user may read it, or remove it to run with the defaults")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}:{line}: {message}; correct this line, or remove it to keep the default")]
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A setting from the environment or the command line is wrong.
    #[error("{from}: {message}")]
    Setting {
        /// The option or variable.
        from: String,
        /// What is wrong with it, and what it should be.
        message: String,
    },
}

/// Where a setting came from last, so that an error names the place that has to change.
#[derive(Clone, Debug)]
enum Origin {
    File,
    Given(String),
}

impl Config {
    /// The settings of a hub started with `options`.
    pub fn load(options: &HubOptions) -> Result<Self, ConfigError> {
        Self::load_with(options, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The same with another environment.
    pub fn load_with(
        options: &HubOptions,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let path = options.data_dir.join(CONFIG_FILE);
        let text = source::read(&path, MAX_CONFIG_FILE)?;
        let mut config: Self = source::parse(&path, &text)?;
        config.data_dir.clone_from(&options.data_dir);
        config.json_events = options.json_events;

        // Later wins: environment over file, command line over environment.
        let pick = |flag: &str, option: Option<String>, variable: &str| {
            option
                .map(|value| (value, Origin::Given(format!("--{flag}"))))
                .or_else(|| environment(variable).map(|value| (value, Origin::Given(variable.to_owned()))))
        };
        let text_of = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let mut origins = Origins::default();
        if let Some((value, origin)) = pick("listen", options.listen.clone(), "DATACENTERED_LISTEN") {
            (config.listen, origins.listen) = (value, origin);
        }
        if let Some((value, origin)) =
            pick("listen-plain", options.listen_plain.clone(), "DATACENTERED_LISTEN_PLAIN")
        {
            (config.listen_plain, origins.listen_plain) = (Some(value), origin);
        }
        if let Some((value, origin)) = pick("engine", options.engine.clone(), "DATACENTERED_ENGINE") {
            (config.engine, origins.engine) = (value, origin);
        }
        if let Some((value, origin)) = pick("tls-cert", text_of(&options.tls_cert), "DATACENTERED_TLS_CERT") {
            (config.tls.cert, origins.tls) = (Some(value.into()), origin);
        }
        if let Some((value, origin)) = pick("tls-key", text_of(&options.tls_key), "DATACENTERED_TLS_KEY") {
            (config.tls.key, origins.tls) = (Some(value.into()), origin);
        }
        config.validate(&path, &text, &origins)?;
        Ok(config)
    }

    /// The address of the TLS port.
    pub fn listen_address(&self) -> Result<SocketAddr, ConfigError> {
        parse_address(&self.listen).map_err(|message| ConfigError::Setting { from: "listen".into(), message })
    }

    /// The address of the port without TLS, which is a loopback address.
    pub fn plain_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let error = |message| ConfigError::Setting { from: "listen_plain".into(), message };
        let Some(text) = &self.listen_plain else { return Ok(None) };
        let address = parse_address(text).map_err(error)?;
        require_loopback(address).map_err(error)?;
        Ok(Some(address))
    }

    /// The embedded engine's directory.
    pub fn engine_dir(&self) -> PathBuf {
        self.data_dir.join(ENGINE_DIR)
    }

    /// The path of the local socket.
    pub fn socket_path(&self) -> PathBuf {
        self.data_dir.join(SOCKET_FILE)
    }

    fn validate(&self, path: &Path, text: &str, origins: &Origins) -> Result<(), ConfigError> {
        let wrong = |origin: &Origin, key: &str, message: String| match origin {
            Origin::File => {
                ConfigError::File { path: path.to_owned(), line: source::line_of(text, key), message }
            }
            Origin::Given(from) => ConfigError::Setting { from: from.clone(), message },
        };
        parse_address(&self.listen).map_err(|message| wrong(&origins.listen, "listen", message))?;
        if let Some(plain) = &self.listen_plain {
            parse_address(plain)
                .and_then(require_loopback)
                .map_err(|message| wrong(&origins.listen_plain, "listen_plain", message))?;
        }
        if self.engine != "embedded" && !self.engine.starts_with("nats://") {
            let message =
                format!("the engine `{}` is not known: use `embedded` or `nats://SERVER`", self.engine);
            return Err(wrong(&origins.engine, "engine", message));
        }
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => {
                let message = "a certificate needs its key: give --tls-key (or tls.key) too".into();
                return Err(wrong(&origins.tls, "tls.cert", message));
            }
            (None, Some(_)) => {
                let message = "a key needs its certificate: give --tls-cert (or tls.cert) too".into();
                return Err(wrong(&origins.tls, "tls.key", message));
            }
            _ => {}
        }
        if let Some(url) = &self.public_url
            && !(url.starts_with("https://") && url.len() > 8 && !url.contains(['#', '?', ' ']))
        {
            let message = format!("`{url}` is not an address such as https://hub.example.net:7272");
            return Err(wrong(&Origin::File, "public_url", message));
        }
        if let Some(origin) = self.origins.iter().find(|origin| !is_origin(origin)) {
            let message = format!("`{origin}` is not an origin such as https://dash.example.net");
            return Err(wrong(&Origin::File, "origins", message));
        }
        let ranges = self.limits.ranges().into_iter().chain(self.retention.ranges());
        for (key, value, least, most) in ranges.chain(self.terminals.ranges()) {
            if value < least || value > most {
                let message = format!("`{key}` is {value}, it must be between {least} and {most}");
                return Err(wrong(&Origin::File, key, message));
            }
        }
        self.embedded
            .validate()
            .map_err(|error| wrong(&Origin::File, "embedded", format!("in [embedded]: {error}")))
    }
}

/// Where the settings that have options came from.
#[derive(Debug)]
struct Origins {
    listen: Origin,
    listen_plain: Origin,
    engine: Origin,
    tls: Origin,
}

impl Default for Origins {
    fn default() -> Self {
        Self { listen: Origin::File, listen_plain: Origin::File, engine: Origin::File, tls: Origin::File }
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse::<u16>().map_err(|_| format!("`{port}` in `{text}` is not a port number"))?;
        return Ok(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port));
    }
    if let Some(port) = text.strip_prefix("*:").or_else(|| text.strip_prefix(':')) {
        let port = port.parse::<u16>().map_err(|_| format!("`{port}` in `{text}` is not a port number"))?;
        return Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
    }
    text.parse().map_err(|_| {
        format!(
            "`{text}` is not an address to listen on; write ADDRESS:PORT, such as 0.0.0.0:7272 or [::]:7272"
        )
    })
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']))
}

fn require_loopback(address: SocketAddr) -> Result<(), String> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "`{address}` is not a loopback address: without TLS the hub listens on 127.0.0.1 or [::1] only; put a reverse \
         proxy in front, or use the TLS port"
    ))
}

#[cfg(test)]
mod tests;

//! How a hub is named: `wss://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT`, `ws://` on this machine, or `unix:PATH`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use datacentered_proto::DEFAULT_PORT;
use serde::{Deserialize, Serialize};

/// Most hubs in one list.
pub const MAX_HUBS: usize = 16;

/// Longest name of a hub, in bytes.
const MAX_LEN: usize = 1024;

/// Where a hub is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HubUrl {
    /// Over TLS.
    Tls {
        /// Name or address, without brackets, lower case.
        host: String,
        /// Port.
        port: u16,
    },
    /// Without TLS; only to this machine itself.
    Plain {
        /// `localhost` or a loopback address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// The hub's local socket.
    Unix {
        /// Its absolute path.
        path: PathBuf,
    },
}

/// Why a text does not name a hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing there.
    #[error("no hub is named; give HOST:PORT, wss://HOST:PORT or unix:PATH")]
    Empty,
    /// A scheme that is not spoken.
    #[error("a hub is not reached by '{0}'; use wss://HOST:PORT, HOST:PORT or unix:PATH")]
    Scheme(String),
    /// No TLS across a network.
    #[error("'{0}' would go over the network unprotected; use wss://, ws:// is for this machine only")]
    PlainRemote(String),
    /// Credentials, a path, a query or a fragment.
    #[error("'{0}' has more than host and port; leave out names, paths and queries (tokens go to --token)")]
    Extra(String),
    /// Not a host.
    #[error(
        "'{0}' is not a host name or address; IPv6 addresses need brackets when a port follows, as in [::1]:7272"
    )]
    Host(String),
    /// Not a port.
    #[error("'{0}' is not a port; ports are 1 to 65535")]
    Port(String),
    /// Not an absolute path.
    #[error("'{0}' is not an absolute path; give unix:/PATH")]
    Path(String),
    /// Too many.
    #[error("more than {MAX_HUBS} hubs are named; leave some out")]
    TooMany,
    /// Too long.
    #[error("a hub's name has more than {MAX_LEN} bytes")]
    TooLong,
}

impl HubUrl {
    /// Reads a comma list of hubs, at least one and at most [`MAX_HUBS`], in the order in which they are to be tried.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut hubs = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if hubs.len() == MAX_HUBS {
                return Err(UrlError::TooMany);
            }
            let hub = part.parse()?;
            if !hubs.contains(&hub) {
                hubs.push(hub);
            }
        }
        if hubs.is_empty() { Err(UrlError::Empty) } else { Ok(hubs) }
    }

    /// `HOST:PORT` as it stands in an HTTP `Host` header and in a TCP address; `localhost` for a local socket.
    pub fn authority(&self) -> String {
        match self {
            Self::Tls { host, port } | Self::Plain { host, port } => authority_of(host, *port),
            Self::Unix { .. } => "localhost".into(),
        }
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls { .. })
    }
}

impl FromStr for HubUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(UrlError::TooLong);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            // unix:///path is how some programs write the same.
            let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
            if !path.starts_with('/') || path.contains('\0') {
                return Err(UrlError::Path(path.into()));
            }
            return Ok(Self::Unix { path: path.into() });
        }
        let (tls, rest) = match text.split_once("://") {
            None => (true, text),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "wss" | "https" => (true, rest),
                "ws" | "http" => (false, rest),
                other => return Err(UrlError::Scheme(other.chars().take(32).collect())),
            },
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            // What stands before an @ may be a secret, so it is not repeated.
            let shown = rest.rsplit('@').next().unwrap_or_default();
            return Err(UrlError::Extra(shown.split(['?', '#']).next().unwrap_or_default().into()));
        }
        let (host, port) = host_and_port(rest, DEFAULT_PORT)?;
        if tls {
            Ok(Self::Tls { host, port })
        } else if is_loopback(&host) {
            Ok(Self::Plain { host, port })
        } else {
            Err(UrlError::PlainRemote(text.into()))
        }
    }
}

/// Reads `HOST[:PORT]`; IPv6 addresses stand in brackets where a port follows.
pub(crate) fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), UrlError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(|| UrlError::Host(text.into()))?;
        let address: Ipv6Addr = host.parse().map_err(|_| UrlError::Host(text.into()))?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or_else(|| UrlError::Host(text.into()))?),
        };
        (address.to_string(), port)
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        (address.to_string(), None)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if !is_host_name(host) {
            return Err(UrlError::Host(text.into()));
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port {
        None => default_port,
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number != 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => return Err(UrlError::Port(port.into())),
        },
    };
    Ok((host, port))
}

fn is_host_name(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    let labels = host.strip_suffix('.').unwrap_or(host);
    labels.len() <= 253 && labels.split('.').all(label)
}

pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `HOST:PORT`, with brackets where the host is an IPv6 address.
pub(crate) fn authority_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { host, port } => write!(f, "wss://{}", authority_of(host, *port)),
            Self::Plain { host, port } => write!(f, "ws://{}", authority_of(host, *port)),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for HubUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<HubUrl> for String {
    fn from(url: HubUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<HubUrl>() {
            Ok(url) => url.to_string(),
            Err(error) => format!("{error:?}"),
        };
        assert!(shown.starts_with(expected), "{text}: {shown}");
    }

    #[test]
    fn spellings_of_the_same() {
        for text in ["hub", "hub:7272", "wss://HUB", "https://hub:7272/", "WSS://hub.:7272"] {
            let url: HubUrl = text.parse().expect(text);
            assert_eq!(url.authority().replace("hub.:", "hub:"), "hub:7272");
        }
        check("10.0.0.1:443", "wss://10.0.0.1:443");
        check("[2001:DB8::1]:1", "wss://[2001:db8::1]:1");
        check("::1", "wss://[::1]:7272");
        check("ws://localhost:80", "ws://localhost:80");
        check("http://127.0.0.9", "ws://127.0.0.9:7272");
        check("ws://[::1]:5", "ws://[::1]:5");
        check("unix:/run/hub.sock", "unix:/run/hub.sock");
        check("unix:///run/hub.sock", "unix:/run/hub.sock");
    }

    #[test]
    fn what_is_refused_and_why() {
        check("", "Empty");
        check("ftp://hub", "Scheme");
        check("ws://hub", "PlainRemote");
        check("ws://localhost.evil.example", "PlainRemote");
        check("https://hub/path", "Extra");
        check("hub?x=1", "Extra");
        check("hub:0", "Port");
        check("hub:+1", "Port");
        check("hub:65536", "Port");
        check("hub:", "Port");
        check("[::1", "Host");
        check("[::1]x", "Host");
        check("a b", "Host");
        check("..", "Host");
        check("unix:run/hub.sock", "Path");
    }

    #[test]
    fn a_secret_before_the_at_is_not_repeated() {
        let error = "https://user:secret@hub".parse::<HubUrl>().expect_err("refused");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn lists() {
        let list = HubUrl::parse_list("a:1, b ,a:1,unix:/x").expect("parses");
        let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["wss://a:1", "wss://b:7272", "unix:/x"]);
        assert_eq!(HubUrl::parse_list(" , "), Err(UrlError::Empty));
        let many: Vec<String> = (0..=MAX_HUBS).map(|i| format!("h{i}")).collect();
        assert_eq!(HubUrl::parse_list(&many.join(",")), Err(UrlError::TooMany));
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = HubUrl::parse_list(&text);
        }

        #[test]
        fn what_is_written_reads_back(host in "[a-z][a-z0-9-]{0,20}(\\.[a-z]{1,9}){0,3}", port in 1u16.., v6: u128) {
            for url in [
                HubUrl::Tls { host, port },
                HubUrl::Tls { host: Ipv6Addr::from_bits(v6).to_string(), port },
                HubUrl::Plain { host: "::1".into(), port },
            ] {
                prop_assert_eq!(url.to_string().parse::<HubUrl>(), Ok(url));
            }
        }
    }
}

//! Dialling through an HTTP proxy: `CONNECT`, then TLS with the hub inside, which the proxy cannot read.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::socket::connect;
use crate::url::{UrlError, authority_of, host_and_port};

/// The port of a proxy that names none.
const DEFAULT_PROXY_PORT: u16 = 3128;

/// Longest head of a proxy's answer, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// An HTTP proxy: `http://[USER:PASSWORD@]HOST[:PORT]` or `HOST[:PORT]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    authorization: Option<String>,
}

impl FromStr for Proxy {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(UrlError::Scheme(scheme.chars().take(32).collect())),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, rest),
        };
        if host.is_empty() {
            return Err(UrlError::Empty);
        }
        let (host, port) = host_and_port(host, DEFAULT_PROXY_PORT)?;
        let authorization = credentials.map(|credentials| STANDARD.encode(unescaped(credentials)));
        Ok(Self { host, port, authorization })
    }
}

/// Resolves `%XX`; what is no such escape stays as it is.
fn unescaped(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        out.push(byte);
        if let (b'%', Some(high), Some(low)) = (byte, digit(after.first()), digit(after.get(1))) {
            out.pop();
            out.push((high * 16 + low) as u8);
            rest = &after[2..];
        }
    }
    out
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority_of(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Proxy {
    /// A connection to `authority` (`HOST:PORT`) through the proxy.
    pub(crate) async fn connect(&self, authority: &str, patience: Duration) -> io::Result<TcpStream> {
        let mut stream = connect(&authority_of(&self.host, self.port), patience).await?;
        let authorization = match &self.authorization {
            Some(basic) => format!("Proxy-Authorization: Basic {basic}\r\n"),
            None => String::new(),
        };
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await?;
        // The hub says nothing before we do, so nothing beyond the head is read here.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_HEAD {
                return Err(io::Error::other("its answer is not that of an HTTP proxy"));
            }
            head.push(stream.read_u8().await?);
        }
        match status(&head) {
            Some(200..=299) => Ok(stream),
            Some(status) => Err(io::Error::other(format!("it refused with HTTP status {status}"))),
            None => Err(io::Error::other("its answer is not that of an HTTP proxy")),
        }
    }
}

/// The status in the first line of an HTTP/1 answer.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(line.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings() {
        for (text, shown, basic) in [
            ("proxy", "http://proxy:3128", None),
            ("http://proxy:80/", "http://proxy:80", None),
            ("http://[::1]:80", "http://[::1]:80", None),
            ("http://user:p%40ss@proxy", "http://proxy:3128", Some("dXNlcjpwQHNz")),
        ] {
            let proxy: Proxy = text.parse().expect(text);
            assert_eq!((proxy.to_string().as_str(), proxy.authorization.as_deref()), (shown, basic));
            assert!(!format!("{proxy:?}").contains("ss@"));
        }
        for bad in ["", "https://proxy", "socks5://proxy", "http://a b", "proxy:0"] {
            assert!(bad.parse::<Proxy>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String, head: Vec<u8>) {
            let _ = text.parse::<Proxy>();
            let _ = status(&head);
        }
    }
}

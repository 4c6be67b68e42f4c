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

/// Most characters of a proxy's own words that are shown.
const MAX_PHRASE: usize = 80;

/// An HTTP proxy: `http://[USER:PASSWORD@]HOST[:PORT]` or `HOST[:PORT]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    authorization: Option<String>,
}

/// Why a text does not name a proxy. What may be a secret in it is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Nothing there.
    #[error("no proxy is named; give http://HOST:PORT")]
    Empty,
    /// A scheme that is not spoken.
    #[error("a proxy is not spoken to by '{0}'; give http://[USER:PASSWORD@]HOST[:PORT]")]
    Scheme(String),
    /// Not a host with a port.
    #[error("it is not http://[USER:PASSWORD@]HOST[:PORT] ({0})")]
    Address(UrlError),
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(ProxyError::Scheme(scheme.chars().take(32).collect())),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, rest),
        };
        if host.is_empty() {
            return Err(ProxyError::Empty);
        }
        let (host, port) = host_and_port(host, DEFAULT_PROXY_PORT).map_err(ProxyError::Address)?;
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
        let at = authority_of(&self.host, self.port);
        let mut stream = connect(&at, patience).await.map_err(|error| {
            io::Error::new(error.kind(), format!("the proxy itself cannot be reached: {error}"))
        })?;
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
            let byte = stream.read_u8().await.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it hung up without an answer"),
                _ => error,
            })?;
            head.push(byte);
        }
        match status(&head) {
            Some((200..=299, _)) => Ok(stream),
            Some((status, phrase)) => Err(io::Error::other(self.refusal(status, &phrase))),
            None => Err(io::Error::other("its answer is not that of an HTTP proxy")),
        }
    }

    /// What the proxy answered and what can be done about it.
    fn refusal(&self, status: u16, phrase: &str) -> String {
        let advice = match (status, &self.authorization) {
            // Some, tinyproxy for one, answer a wrong password with 401.
            (401 | 407, None) => {
                "it wants a user and a password, give them as http://USER:PASSWORD@HOST:PORT"
            }
            (401 | 407, Some(_)) => "it does not take this user and password",
            (403, _) => "it does not allow this address or port",
            (405 | 501, _) => "it does not allow CONNECT",
            (500.., _) => "it cannot get there itself",
            _ => "it refused",
        };
        let space = if phrase.is_empty() { "" } else { " " };
        format!("{advice}; it answered HTTP {status}{space}{phrase}")
    }
}

/// The status in the first line of an HTTP/1 answer, and the words behind it as far as they are fit to be shown.
fn status(head: &[u8]) -> Option<(u16, String)> {
    let line = head.strip_prefix(b"HTTP/1.")?.split(|byte| *byte == b'\r').next()?;
    let status = std::str::from_utf8(line.get(2..5)?).ok()?.parse().ok()?;
    let words = String::from_utf8_lossy(line.get(5..)?);
    let words = words.trim().chars().filter(|c| !c.is_control()).take(MAX_PHRASE).collect();
    Some((status, words))
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

    #[test]
    fn what_the_proxy_answered_is_said_and_what_to_do() {
        let told = |proxy: &str, head: &str| {
            let (number, phrase) = status(head.as_bytes()).expect(head);
            proxy.parse::<Proxy>().expect(proxy).refusal(number, &phrase)
        };
        let asked = told("p:1", "HTTP/1.0 407 Proxy Authentication Required\r\nX: y\r\n\r\n");
        assert!(
            asked.contains("USER:PASSWORD@") && asked.ends_with("HTTP 407 Proxy Authentication Required"),
            "{asked}"
        );
        let wrong = told("u:secret@p:1", "HTTP/1.1 407\r\n\r\n");
        assert_eq!(wrong, "it does not take this user and password; it answered HTTP 407");
        assert!(
            told("u:secret@p:1", "HTTP/1.0 401 Unauthorized\r\n\r\n")
                .starts_with("it does not take this user")
        );
        assert!(told("p:1", "HTTP/1.1 403 \x1b[2JFiltered\r\n\r\n").ends_with("HTTP 403 [2JFiltered"));
        assert_eq!(status(b"SSH-2.0-x\r\n"), None);
    }

    #[test]
    fn secrets_are_not_repeated() {
        for bad in ["http://u:secret@a b", "socks5://u:secret@p", "http://u:secret@", "u:secret@p:0"] {
            let error = bad.parse::<Proxy>().expect_err(bad);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
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

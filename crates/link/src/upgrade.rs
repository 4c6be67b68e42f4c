//! The side that is dialled: from an HTTP/1.1 request to a WebSocket. The caller has chosen the path already.

use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::limits::{Limits, websocket_config};

/// The WebSocket of an upgraded connection.
pub type ServerWebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Which web pages may open a link.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Origins beside the hub's own, as a browser sends them: `https://HOST[:PORT]`.
    pub allowed: Vec<String>,
}

impl Origins {
    /// Whether a request with these headers may change anything or open a link. Programs send no `Origin`; a browser always
    /// does, and then its host and port must be those of `Host`, or the origin allowed by name.
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if origins.next().is_some() {
            return false;
        }
        let Ok(origin) = origin.to_str() else { return false };
        if self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let (Some(host), Some((scheme, from))) =
            (headers.get(HOST).and_then(|host| host.to_str().ok()), origin.split_once("://"))
        else {
            return false;
        };
        let port = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return false,
        };
        let plain = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
        !from.is_empty() && plain(from) == plain(host)
    }
}

/// Why a request is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not `GET`.
    #[error("a link is opened with GET")]
    Method,
    /// Not HTTP/1.1 with `Connection: upgrade` and `Upgrade: websocket`.
    #[error("this is the path of a WebSocket; ask for an upgrade over HTTP/1.1")]
    NotAnUpgrade,
    /// Another version than 13.
    #[error("only WebSocket version 13 is spoken")]
    Version,
    /// No key, or one that is none.
    #[error("the header Sec-WebSocket-Key is missing or wrong")]
    Key,
    /// A web page from elsewhere.
    #[error("web pages of this origin may not open a link; name it among the allowed origins")]
    Origin,
}

impl Refused {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAnUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Key => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    /// The whole answer, its body the text of the error. A caller with a format of its own takes status and headers.
    pub fn response(self) -> Response<String> {
        let mut response = Response::new(format!("{self}\n"));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Self::Method => {
                headers.insert(hyper::header::ALLOW, HeaderValue::from_static("GET"));
            }
            Self::NotAnUpgrade | Self::Version => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::Key | Self::Origin => {}
        }
        response
    }
}

/// An upgrade that is under way: it is done when the 101 response has been sent.
#[derive(Debug)]
pub struct Upgrading {
    on: OnUpgrade,
    limits: Limits,
}

impl Upgrading {
    /// The WebSocket. Fails where the connection ended before the response was out; bounded by
    /// [`Limits::handshake_timeout_ms`].
    pub async fn websocket(self) -> Result<ServerWebSocket, UpgradeError> {
        let upgraded = tokio::time::timeout(self.limits.handshake_timeout(), self.on)
            .await
            .map_err(|_| UpgradeError::Timeout)?
            .map_err(UpgradeError::Connection)?;
        let config = websocket_config(&self.limits);
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
    }
}

/// Why an upgrade that was granted did not happen.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The response was not sent in time.
    #[error("the client did not take the answer to its upgrade in time")]
    Timeout,
    /// The connection ended, or was served without upgrades.
    #[error("the connection ended before it was upgraded")]
    Connection(#[source] hyper::Error),
}

/// Checks an upgrade request. Gives the 101 response, to be sent by the caller's server (with upgrades enabled), and the
/// upgrade, whose WebSocket comes after that; or why not.
///
/// The origin is checked on every request, with no exception. Take [`Limits`] as they are for the link.
pub fn upgrade<B>(
    request: &mut Request<B>,
    origins: &Origins,
    limits: &Limits,
) -> Result<(Response<()>, Upgrading), Refused> {
    let accept = check(request, origins)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, Upgrading { on: hyper::upgrade::on(request), limits: limits.clone().workable() }))
}

fn check<B>(request: &Request<B>, origins: &Origins) -> Result<HeaderValue, Refused> {
    let headers = request.headers();
    if !origins.allow(headers) {
        return Err(Refused::Origin);
    }
    if request.method() != Method::GET {
        return Err(Refused::Method);
    }
    let upgrade = request.version() == Version::HTTP_11
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket");
    if !upgrade {
        return Err(Refused::NotAnUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refused::Version);
    }
    // Sixteen random bytes in base64 (RFC 6455, 4.2.1).
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        key.as_bytes().strip_suffix(b"==").is_some_and(|key| key.len() == 22 && key.iter().all(plain))
    });
    let accept = key.map(|key| derive_accept_key(key.as_bytes()));
    accept.and_then(|accept| HeaderValue::from_str(&accept).ok()).ok_or(Refused::Key)
}

/// Whether a comma-separated header holds a word.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(changes: &[(&str, &str)]) -> Request<()> {
        let mut headers = vec![
            ("host", "hub.example:7272"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        headers.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        headers.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).expect("request")
    }

    fn check_with(changes: &[(&str, &str)]) -> Result<(), Refused> {
        let origins = Origins { allowed: vec!["https://dash.example".into()] };
        upgrade(&mut request(changes), &origins, &Limits::default()).map(|_| ())
    }

    #[test]
    fn the_accept_key_is_that_of_the_standard() {
        let (response, _) =
            upgrade(&mut request(&[]), &Origins::default(), &Limits::default()).expect("upgrades");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_a_proper_upgrade_is_granted() {
        assert_eq!(check_with(&[]), Ok(()));
        assert_eq!(check_with(&[("upgrade", "")]), Err(Refused::NotAnUpgrade));
        assert_eq!(check_with(&[("connection", "close")]), Err(Refused::NotAnUpgrade));
        assert_eq!(check_with(&[("sec-websocket-version", "8")]), Err(Refused::Version));
        assert_eq!(check_with(&[("sec-websocket-key", "")]), Err(Refused::Key));
        assert_eq!(check_with(&[("sec-websocket-key", "short==")]), Err(Refused::Key));
        let mut post = request(&[]);
        *post.method_mut() = Method::POST;
        assert_eq!(check(&post, &Origins::default()), Err(Refused::Method));
        assert_eq!(Refused::Origin.response().status(), 403);
        assert_eq!(Refused::Version.response().headers()["sec-websocket-version"], "13");
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        for (origin, allowed) in [
            ("https://hub.example:7272", true),
            ("https://HUB.example:7272", true),
            ("https://dash.example", true),
            ("https://hub.example", false),
            ("https://hub.example:7273", false),
            ("https://evil.example", false),
            ("https://hub.example:7272.evil.example", false),
            ("https://dash.example.evil", false),
            ("ftp://hub.example:7272", false),
            ("null", false),
            ("https://", false),
        ] {
            assert_eq!(check_with(&[("origin", origin)]).is_ok(), allowed, "{origin}");
        }
        assert!(check_with(&[("host", "hub.example"), ("origin", "https://hub.example")]).is_ok());
        assert!(check_with(&[("host", "hub.example:443"), ("origin", "https://hub.example")]).is_ok());
        assert!(check_with(&[("host", ""), ("origin", "https://hub.example:7272")]).is_err());
    }
}

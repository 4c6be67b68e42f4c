//! A whole hub on free ports of this machine, and an HTTP client small enough to misbehave with. For tests only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datacentered_engine::outbox::Mover;
use datacentered_link::clock::Clock;
use datacentered_link::tls;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Listening, Server};
use crate::config::Config;
use crate::hub::Hub;

/// A running hub.
pub(crate) struct TestHub {
    pub(crate) hub: Arc<Hub>,
    pub(crate) listening: Listening,
    mover: Mover,
    pub(crate) data: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The reply, where all went well.
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The stable code, where it failed.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        self.json()["code"].as_str().expect("code").to_owned()
    }
}

impl TestHub {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(tempfile::tempdir().expect("tempdir"), change).await
    }

    pub(crate) async fn on(data: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            data_dir: data.path().to_owned(),
            listen: "127.0.0.1:0".into(),
            listen_plain: Some("127.0.0.1:0".into()),
            ..Config::default()
        };
        change(&mut config);
        let (hub, mover) = Hub::open(config, Clock::system()).await.expect("opens");
        let server = Server::bind(&hub).await.expect("binds");
        let listening = server.listening(&hub).await.expect("is announced");
        server.serve(&hub);
        Self { hub, listening, mover, data }
    }

    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.hub.close(self.mover).await;
        self.data
    }

    pub(crate) fn setup_secret(&self) -> String {
        self.listening.setup.as_ref().expect("not set up").expose().to_owned()
    }

    pub(crate) async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.listening.plain.expect("plain")).await.expect("connects")
    }

    pub(crate) async fn unix(&self) -> UnixStream {
        UnixStream::connect(&self.listening.socket).await.expect("connects")
    }

    pub(crate) async fn tls(
        &self,
        pins: &[tls::Pin],
        identity: Option<tls::Identity>,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = tls::client_config(pins, identity, alpn).expect("configures");
        let stream = TcpStream::connect(self.listening.address).await.expect("connects");
        TlsConnector::from(config).connect("localhost".try_into().expect("name"), stream).await
    }

    /// The web side, its key pinned.
    pub(crate) async fn web(&self) -> TlsStream<TcpStream> {
        let pin = tls::Pin::Key(self.hub.identity.web_fingerprint().parse().expect("fingerprint"));
        self.tls(&[pin], None, &[]).await.expect("shakes hands")
    }

    /// Over the plain port.
    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        exchange(self.plain().await, method, path, headers, body).await
    }

    /// An operation as the local administrator.
    pub(crate) async fn local(&self, operation: &str, params: &Value) -> Answer {
        let path = format!("/api/v1/{operation}");
        let json = [("content-type", "application/json")];
        exchange(self.unix().await, "POST", &path, &json, &params.to_string()).await
    }

    /// An operation with a token; none where it is empty.
    pub(crate) async fn call(&self, token: &str, operation: &str, params: &Value) -> Answer {
        let path = format!("/api/v1/{operation}");
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("content-type", "application/json")];
        if !token.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        self.http("POST", &path, &headers, &params.to_string()).await
    }

    pub(crate) fn key(&self) -> String {
        self.hub.clock.key().to_string()
    }

    /// A new API token of this role.
    pub(crate) async fn token(&self, role: &str) -> String {
        let params = json!({"key": self.key(), "kind": "api", "name": role, "role": role});
        let reply = self.local("token.create", &params).await.ok();
        reply["token"].as_str().expect("token").to_owned()
    }

    /// A new account.
    pub(crate) async fn user(&self, name: &str, role: &str) {
        let params = json!({"key": self.key(), "name": name, "password": password_of(name), "role": role});
        self.local("user.create", &params).await.ok();
    }

    /// A login with the account's password.
    pub(crate) async fn login(&self, name: &str) -> String {
        let params = json!({"key": self.key(), "name": name, "password": password_of(name)});
        let reply = self.call("", "session.login", &params).await.ok();
        reply["token"].as_str().expect("token").to_owned()
    }

    /// Opens a stream of events and leaves it open.
    pub(crate) async fn events(&self, token: &str, path: &str, headers: &[(&str, &str)]) -> Events {
        let bearer = format!("Bearer {token}");
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend(headers);
        let response = send(self.plain().await, "GET", path, &all, "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }
}

pub(crate) fn password_of(name: &str) -> String {
    format!("pass phrase {name:>12} !")
}

/// Server-sent events as they come.
pub(crate) struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    /// The next event, comments left out; none at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                if event.starts_with(':') {
                    continue;
                }
                return Some(event);
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await.expect("in time")?;
            if let Ok(data) = frame.expect("frame").into_data() {
                self.text.push_str(&String::from_utf8_lossy(&data));
            }
        }
    }
}

pub(crate) async fn send<S>(
    stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Incoming>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "hub.test:7272");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("request");
    tokio::time::timeout(Duration::from_secs(30), sender.send_request(request))
        .await
        .expect("in time")
        .expect("answer")
}

pub(crate) async fn exchange<S>(
    stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (parts, body) = send(stream, method, path, headers, body).await.into_parts();
    let body = body.collect().await.expect("body").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

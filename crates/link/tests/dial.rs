//! Dialling and being dialled, over real sockets.

#[path = "support/server.rs"]
mod server;
mod support;

use datacentered_link::dial::{self, DialError, DialOptions};
use datacentered_link::tls::{Fingerprint, Identity, Pin, client_config};
use datacentered_link::url::HubUrl;
use datacentered_link::{Limits, Link, Side};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use server::{Certificates, serve};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::protocol::Role;

fn options(pins: &[Pin]) -> DialOptions {
    DialOptions {
        tls: Some(client_config(pins, None, &["http/1.1"]).expect("config")),
        path: "/link".into(),
        ..DialOptions::default()
    }
}

fn url(address: std::net::SocketAddr) -> HubUrl {
    address.to_string().parse().expect("url")
}

#[tokio::test]
async fn a_link_over_tls_with_either_pin() {
    let certificates = Certificates::new();
    let mut server = serve(&certificates, false, Limits::default(), echo()).await;
    for pin in [Pin::Key(certificates.fingerprint()), Pin::Authority(certificates.authority())] {
        let ws = dial::connect(&url(server.address), &options(&[pin])).await.expect("connects");
        let (link, driver) = Link::start(ws, Side::Dialled, echo(), Limits::default());
        let mut drivers = JoinSet::new();
        drivers.spawn(driver);
        assert_eq!(call(&link, "test.echo", json!({"a": 1})).await, Ok(json!({"a": 1})));
        let (back, _) = within(5, server.links.recv()).await.expect("a link");
        assert_eq!(call(&back, "test.echo", json!(2)).await, Ok(json!(2)));
        link.close("done");
        within(5, back.closed()).await;
        within(5, drivers.join_next()).await.expect("a driver").expect("no panic");
    }
    drop(server.tasks);
}

#[tokio::test]
async fn another_key_is_refused_with_both_fingerprints() {
    let (certificates, other) = (Certificates::new(), Certificates::new());
    let server = serve(&certificates, false, Limits::default(), echo()).await;
    for pin in [Pin::Key(other.fingerprint()), Pin::Authority(other.authority())] {
        let error = dial::connect(&url(server.address), &options(&[pin])).await.expect_err("refused");
        let text = error.to_string();
        let DialError::Pin { mismatch, .. } = error else { panic!("{error:?}") };
        assert_eq!(mismatch.presented, certificates.fingerprint());
        assert_eq!(mismatch.expected.len(), 1);
        assert!(text.contains(&mismatch.presented.to_string()), "{text}");
        assert!(text.contains(&mismatch.expected[0].to_string()), "{text}");
    }
    let seen = dial::fingerprint(&url(server.address), &options(&[])).await.expect("fingerprint");
    assert_eq!(seen, certificates.fingerprint());
}

#[tokio::test]
async fn a_client_certificate_and_its_protocol_are_seen() {
    let certificates = Certificates::new();
    let mut server = serve(&certificates, true, Limits::default(), echo()).await;
    let key = KeyPair::generate().expect("key");
    let certificate = CertificateParams::default().self_signed(&key).expect("certificate");
    let print = Fingerprint::of_certificate(certificate.der());
    let identity = Identity {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).expect("key"),
    };
    let pins = [Pin::Authority(certificates.authority())];
    let tls = client_config(&pins, Some(identity), &["datacentered/1"]).expect("config");
    let with = DialOptions { tls: Some(tls), path: "/link".into(), ..DialOptions::default() };
    let ws = dial::connect(&url(server.address), &with).await.expect("connects");
    let (_, seen) = within(5, server.links.recv()).await.expect("a link");
    assert_eq!(seen, (print, Some(b"datacentered/1".to_vec())));
    drop(ws);
    let without = dial::connect(&url(server.address), &options(&pins)).await.expect_err("no certificate");
    assert!(matches!(without, DialError::Tls { .. } | DialError::Unreachable { .. }), "{without:?}");
}

#[tokio::test]
async fn foreign_origins_and_other_paths_are_told_by_their_status() {
    let certificates = Certificates::new();
    let server = serve(&certificates, false, Limits::default(), echo()).await;
    let pins = [Pin::Key(certificates.fingerprint())];
    let at = url(server.address);
    for (origin, path, expected) in [
        ("https://evil.example", "/link", Some(403)),
        ("null", "/link", Some(403)),
        ("https://evil.example", "/", Some(404)),
        (&format!("https://{}", server.address), "/link", None),
    ] {
        let headers = vec![("Origin".to_owned(), origin.to_owned())];
        let options = DialOptions { path: path.into(), headers, ..options(&pins) };
        match dial::connect(&at, &options).await {
            Ok(_) => assert_eq!(expected, None, "{origin} {path}"),
            Err(DialError::Status { status, .. }) => assert_eq!(Some(status), expected, "{origin} {path}"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_a_hub_is_said_to_be_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let at = listener.local_addr().expect("address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let error = dial::connect(&url(at), &options(&[])).await.expect_err("no hub");
    assert!(matches!(error, DialError::NotAHub { .. }), "{error:?}");
    let plain: HubUrl = format!("ws://{at}").parse().expect("url");
    let error = dial::connect(&plain, &DialOptions::default()).await.expect_err("no hub");
    assert!(matches!(error, DialError::NotAHub { .. }), "{error:?}");
    let error = dial::connect(&url(at), &DialOptions::default()).await.expect_err("no pin");
    assert!(matches!(error, DialError::Options { .. }), "{error:?}");
}

#[tokio::test]
async fn through_a_proxy() {
    let certificates = Certificates::new();
    let mut server = serve(&certificates, false, Limits::default(), echo()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let proxy = listener.local_addr().expect("address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut tunnels = JoinSet::new();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            tunnels.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let head = String::from_utf8(head).expect("text");
                let target = head.split(' ').nth(1).expect("a target").to_owned();
                if !head.contains("\r\nProxy-Authorization: Basic dTpw\r\n") {
                    let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                    stream.write_all(refusal).await.expect("answers");
                    return;
                }
                let mut onward = tokio::net::TcpStream::connect(target).await.expect("connects");
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("answers");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    let pins = [Pin::Key(certificates.fingerprint())];
    let through = |text: String| DialOptions { proxy: Some(text.parse().expect("proxy")), ..options(&pins) };
    let ws = dial::connect(&url(server.address), &through(format!("http://u:p@{proxy}"))).await;
    within(5, server.links.recv()).await.expect("a link");
    drop(ws.expect("connects"));
    let error = dial::connect(&url(server.address), &through(format!("http://{proxy}"))).await;
    let error = error.expect_err("refused");
    assert!(
        matches!(&error, DialError::Proxy { source, .. } if source.to_string().contains("407")),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_there_and_nobody_answering() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let at = listener.local_addr().expect("address");
    let limits = Limits { handshake_timeout_ms: 100, ..Limits::default() };
    let impatient = DialOptions { limits, ..options(&[]) };
    let error = dial::connect(&url(at), &impatient).await.expect_err("no answer");
    assert!(matches!(error, DialError::Timeout { ms: 100, .. }), "{error:?}");
    drop(listener);
    let error = dial::connect(&url(at), &impatient).await.expect_err("nobody");
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    let error =
        dial::connect(&"unix:/nowhere/hub.sock".parse().expect("url"), &impatient).await.expect_err("nobody");
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_local_socket_needs_no_tls() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("hub.sock");
    let listener = UnixListener::bind(&path).expect("binds");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        let ws = tokio_tungstenite::accept_async(stream).await.expect("upgrades");
        Link::start(ws, Side::Accepted, echo(), Limits::default()).1.await
    });
    let url: HubUrl = format!("unix:{}", path.display()).parse().expect("url");
    let ws = dial::connect(&url, &DialOptions::default()).await.expect("connects");
    let (link, driver) = Link::start(ws, Side::Dialled, nothing(), Limits::default());
    tasks.spawn(driver);
    assert_eq!(call(&link, "test.echo", json!(1)).await, Ok(json!(1)));
    // Many at once, in both directions, over a socket that fills up.
    let calls = (0..200).map(|_| call(&link, "test.echo", json!("x".repeat(50_000))));
    for reply in within(20, futures_util::future::join_all(calls)).await {
        assert_eq!(reply.expect("reply").as_str().map(str::len), Some(50_000));
    }
}

#[tokio::test]
async fn an_existing_connection_is_upgraded() {
    let (a, b) = tokio::io::duplex(4096);
    let url: HubUrl = "ws://localhost".parse().expect("url");
    let options = DialOptions::default();
    let (client, server) = tokio::join!(dial::over(&url, &options, a), tokio_tungstenite::accept_async(b));
    let server = server.expect("upgrades").into_inner();
    let mut drivers = JoinSet::new();
    let (link, driver) = Link::start(client.expect("upgrades"), Side::Dialled, nothing(), Limits::default());
    drivers.spawn(driver);
    let (_, driver) = Link::start(ws(server, Role::Server).await, Side::Accepted, echo(), Limits::default());
    drivers.spawn(driver);
    assert_eq!(within(5, call(&link, "test.echo", json!(1))).await, Ok(json!(1)));
}

//! The doors, tried with honest and with hostile peers.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use datacentered_link::tls::{Fingerprint, Identity, Pin};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{TestHub, exchange, send};
use super::*;

const UPGRADE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn host_identity() -> Identity {
    let key = KeyPair::generate().expect("key");
    let certificate = CertificateParams::default().self_signed(&key).expect("signs");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Identity { chain: vec![certificate.into()], key }
}

fn authority(hub: &TestHub) -> Pin {
    Pin::Authority(hub.hub.identity.ca_fingerprint().parse().expect("fingerprint"))
}

/// Reads until the other side closes; how long that took, and what came.
async fn until_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> (Duration, Vec<u8>) {
    let started = Instant::now();
    let mut all = Vec::new();
    // A reset is a close, too.
    let _ =
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.expect("closes");
    (started.elapsed(), all)
}

async fn still_serves(hub: &TestHub) {
    let answer = exchange(hub.web().await, "GET", "/healthz", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn agents_get_the_hubs_own_identity_and_only_the_link() {
    let hub = TestHub::start().await;
    let dial = || async {
        hub.tls(&[authority(&hub)], Some(host_identity()), &["datacentered/1"]).await.expect("shakes hands")
    };
    let stream = dial().await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"datacentered/1"[..]));
    for path in ["/", "/setup", "/metrics", "/healthz", "/api/v1/host.list", "/api/openapi.json"] {
        let answer = exchange(dial().await, "GET", path, &[], "").await;
        assert_eq!(answer.status, 404, "{path}");
    }
    let response = send(dial().await, "GET", "/api/v1/link", &UPGRADE, "").await;
    assert_eq!(response.status(), 101);
    hub.stop().await;
}

#[tokio::test]
async fn agents_must_show_a_key() {
    let hub = TestHub::start().await;
    let Ok(mut stream) = hub.tls(&[authority(&hub)], None, &["datacentered/1"]).await else { return };
    // In TLS 1.3 the client learns it only when it reads.
    let request = stream.write_all(b"GET /api/v1/link HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut first = [0];
    assert!(request.is_err() || stream.read_exact(&mut first).await.is_err());
    still_serves(&hub).await;
    hub.stop().await;
}

#[tokio::test]
async fn everyone_else_gets_the_web_certificate() {
    let hub = TestHub::start().await;
    let web = Pin::Key(hub.hub.identity.web_fingerprint().parse().expect("fingerprint"));
    for alpn in [&[][..], &["http/1.1"][..]] {
        let stream = hub.tls(&[web], None, alpn).await.expect("shakes hands");
        let leaf = &stream.get_ref().1.peer_certificates().expect("certificates")[0];
        let presented = Fingerprint::of_certificate(leaf).expect("certificate").to_string();
        assert_eq!(presented, hub.listening.web_fingerprint);
        let answer = exchange(stream, "GET", "/", &[], "").await;
        assert_eq!(answer.status, 200);
    }
    // The web certificate is not the hub's own key, and a client's certificate counts for nothing there.
    let stream = hub.tls(&[web], Some(host_identity()), &[]).await.expect("shakes hands");
    assert_eq!(exchange(stream, "POST", "/api/v1/host.list", &[], "").await.code(), "unauthenticated");
    hub.stop().await;
}

#[tokio::test]
async fn garbage_and_silence_cost_nothing_but_their_own_connection() {
    let hub = TestHub::with(|config| {
        config.limits.handshake_timeout_ms = 300;
        config.limits.header_timeout_ms = 300;
    })
    .await;
    let address = hub.listening.address;
    let dial = || async move { TcpStream::connect(address).await.expect("connects") };

    let mut silent = dial().await;
    let mut half = dial().await;
    half.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("writes");
    let mut noise = dial().await;
    noise.write_all(&[0xff; 4096]).await.expect("writes");
    let mut plain = dial().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");

    let (took, _) = until_closed(&mut silent).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    until_closed(&mut half).await;
    until_closed(&mut noise).await;
    let (_, told) = until_closed(&mut plain).await;
    let told = String::from_utf8_lossy(&told).into_owned();
    let (head, body) = told.split_once("\r\n\r\n").expect("an answer");
    assert!(
        head.starts_with("HTTP/1.1 400") && head.contains(&format!("content-length: {}", body.len())),
        "{told}"
    );
    assert!(body.contains("https://"));

    // The slow loris: a head that never ends, one byte at a time.
    let mut loris = hub.plain().await;
    let started = Instant::now();
    loop {
        if loris.write_all(b"G").await.is_err() || started.elapsed() > Duration::from_secs(10) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    // A connection that idles after a request goes the same way.
    let mut idle = hub.plain().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    let (took, answer) = until_closed(&mut idle).await;
    assert!(answer.starts_with(b"HTTP/1.1 200") && took < Duration::from_secs(5));
    // A head over the limit.
    let mut large = hub.plain().await;
    let line = format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "y".repeat(64 * 1024));
    let _ = large.write_all(line.as_bytes()).await;
    let (_, answer) = until_closed(&mut large).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    still_serves(&hub).await;
    hub.stop().await;
}

#[tokio::test]
async fn strangers_of_one_address_are_limited_and_known_peers_are_not() {
    let hub = TestHub::with(|config| config.limits.connections_per_address_unauthenticated = 3).await;
    let token = hub.token("viewer").await;
    let bearer =
        format!("GET /api/v1/host.watch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let mut known = Vec::new();
    for _ in 0..8 {
        // Each of them proves who it is and stays.
        let mut stream = hub.plain().await;
        stream.write_all(bearer.as_bytes()).await.expect("writes");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("answers");
        assert_eq!(&first, b"HTTP/1.1 200");
        known.push(stream);
    }
    let mut strangers = Vec::new();
    for _ in 0..3 {
        let mut stream = hub.plain().await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("writes");
        strangers.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut one_more = hub.plain().await;
    let (took, told) = until_closed(&mut one_more).await;
    assert!(told.is_empty() && took < Duration::from_secs(5));
    let metrics = exchange(hub.unix().await, "GET", "/metrics", &[], "").await.text();
    let line = "datacentered_connections_turned_away_total{reason=\"address_limit\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    drop(strangers);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(hub.http("GET", "/healthz", &[], "").await.status, 200);
    hub.stop().await;
}

#[tokio::test]
async fn a_link_that_proves_nothing_is_closed() {
    let hub = TestHub::with(|config| config.limits.hello_timeout_ms = 300).await;
    let response = send(hub.plain().await, "GET", "/api/v1/link", &UPGRADE, "").await;
    assert_eq!(response.status(), 101);
    let upgraded = hyper::upgrade::on(response).await.expect("upgrades");
    let mut stream = hyper_util::rt::TokioIo::new(upgraded);
    let (took, _) = until_closed(&mut stream).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    hub.stop().await;
}

#[tokio::test]
async fn the_local_socket_is_private_and_replaced() {
    let hub = TestHub::start().await;
    let path = hub.listening.socket.clone();
    let mode = std::fs::metadata(&path).expect("stat").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let error = local::bind(&path).err().expect("in use").to_string();
    assert!(error.contains("another hub"), "{error}");
    let who = hub.local("session.whoami", &serde_json::json!({})).await.ok();
    assert_eq!(who["subject"]["kind"], "local");
    assert_eq!(who["subject"]["pid"], std::process::id());
    hub.stop().await;
    assert!(!path.exists());

    let data = tempfile::tempdir().expect("tempdir");
    let stale = data.path().join("hub.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("binds"));
    assert!(stale.exists());
    drop(local::bind(&stale).expect("replaces"));
    let file = data.path().join("file");
    std::fs::write(&file, "x").expect("writes");
    assert!(local::bind(&file).err().expect("refused").to_string().contains("something else"));
    let long = data.path().join("x".repeat(120));
    assert!(local::bind(&long).err().expect("refused").to_string().contains("--data-dir"));
}

#[tokio::test]
async fn a_port_in_use_is_explained() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let error = listen::tcp(taken.local_addr().expect("address")).expect_err("in use").to_string();
    assert!(error.contains("another program") && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn the_announcement_is_for_people_or_for_programs() {
    let hub = TestHub::start().await;
    let text = hub.listening.announcement(true);
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events[0]["event"], "listening");
    assert_eq!(events[0]["url"], format!("https://{}", hub.listening.address));
    let link = events[1]["link"].as_str().expect("link");
    assert!(link.ends_with(&format!("/setup#{}", hub.setup_secret())), "{link}");
    assert!(hub.listening.announcement(false).contains(link));
    assert!(!format!("{:?}", hub.listening).contains(&hub.setup_secret()));
    hub.stop().await;
}

#[tokio::test]
async fn stopping_closes_what_is_open() {
    let hub = TestHub::start().await;
    let token = hub.token("viewer").await;
    let mut events = hub.events(&token, "/api/v1/event.watch", &[]).await;
    assert!(events.next().await.expect("opening").contains("event: opened"));
    let mut idle = hub.plain().await;
    let started = Instant::now();
    hub.stop().await;
    while let Some(event) = events.next().await {
        // A stream that just breaks off is taken up again; one that ends is not.
        assert!(!event.contains("event: end"), "{event}");
    }
    until_closed(&mut idle).await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

/// Opens a link on the agents' side of the port.
async fn agent_link(hub: &TestHub, identity: Identity) -> datacentered_link::Link {
    use datacentered_link::{Called, Handler, Limits, Link, Request, Side, dial, tls};

    /// An agent without jobs.
    struct Idle;
    impl Handler for Idle {
        fn call(&self, request: Request) -> Called {
            match request.method.as_str() {
                "job.list" => Called::reply(&datacentered_proto::ops::job::ListReply::default()),
                _ => Called::NoSuchMethod,
            }
        }
    }

    let config =
        tls::client_config(&[authority(hub)], Some(identity), &["datacentered/1"]).expect("configures");
    let options = dial::DialOptions { tls: Some(config), ..dial::DialOptions::default() };
    let url = format!("https://{}", hub.listening.address).parse().expect("parses");
    let socket = dial::connect(&url, &options).await.expect("connects");
    let (link, driver) = Link::start(socket, Side::Dialled, std::sync::Arc::new(Idle), Limits::default());
    tokio::spawn(driver);
    link
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_enrols_with_the_key_of_its_handshake_and_is_known_by_it() {
    use datacentered_proto::operations::{HostEnrol, HostList, SessionHello};
    use datacentered_proto::ops::host::{EnrolParams, Facts, ListParams};
    use datacentered_proto::ops::session::{AgentHello, HelloParams, Subject};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    let hub = TestHub::start().await;
    let params = serde_json::json!({"key": hub.key(), "kind": "join"});
    let token = hub.local("token.create", &params).await.ok()["token"].as_str().expect("token").to_owned();
    let hello = |incarnation: Option<&str>| HelloParams {
        protocol: datacentered_proto::PROTOCOL,
        capabilities: Vec::new(),
        client: "test".into(),
        token: None,
        agent: incarnation.map(|incarnation| AgentHello {
            incarnation: incarnation.into(),
            high_water: 0,
            boot_id: "b".into(),
            version: "0".into(),
        }),
        now: None,
    };
    let first = host_identity();
    let (key, shown) = (first.key.clone_key(), first.chain[0].clone());
    let link = agent_link(&hub, first).await;
    let reply = link.call::<SessionHello>(&hello(None)).await.expect("greeted");
    assert_eq!(reply.subject, Subject::UnknownHost);
    assert!(link.call::<HostList>(&ListParams::default()).await.is_err(), "a key alone reads nothing");
    let enrol = EnrolParams {
        token,
        name: "web-1".into(),
        labels: std::collections::BTreeMap::new(),
        facts: Facts::default(),
    };
    let enrolled = link.call::<HostEnrol>(&enrol).await.expect("enrols");
    link.close("done");
    let certificate = CertificateDer::from_pem_slice(enrolled.certificate.as_bytes()).expect("PEM");
    assert_eq!(Fingerprint::of_certificate(&certificate), Fingerprint::of_certificate(&shown));

    let issued = || Identity { chain: vec![certificate.clone()], key: key.clone_key() };
    let link = agent_link(&hub, issued()).await;
    let reply = link.call::<SessionHello>(&hello(Some("j1"))).await.expect("greeted");
    assert_eq!(reply.subject, Subject::Host { id: enrolled.host, name: "web-1".into() });
    // Revoked: the open link ends within seconds, and the key is refused for good, with a reason.
    let revoke = serde_json::json!({"key": hub.key(), "host": "web-1"});
    let started = Instant::now();
    hub.local("host.revoke", &revoke).await.ok();
    tokio::time::timeout(Duration::from_secs(5), link.closed()).await.expect("closes");
    assert!(started.elapsed() < Duration::from_secs(5));
    let link = agent_link(&hub, issued()).await;
    let error = link.call::<SessionHello>(&hello(Some("j1"))).await.expect_err("revoked");
    assert_eq!(error.code, datacentered_proto::Code::Forbidden);
    hub.stop().await;
}

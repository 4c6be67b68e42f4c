//! A hub in a directory of its own, and links into it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datacentered_engine::outbox::Mover;
use datacentered_link::clock::Clock;
use datacentered_link::{Called, Handler, Limits, Link, Request, Side, StreamEvent, websocket_config};
use datacentered_proto::operations::{HostEnrol, HubBackup, RoleCreate, SessionHello, TokenCreate};
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::access::{TokenCreateParams, TokenKind};
use datacentered_proto::ops::host::{EnrolParams, EnrolReply, Facts};
use datacentered_proto::ops::hub::BackupParams;
use datacentered_proto::ops::role::{RoleCreateParams, RoleName};
use datacentered_proto::ops::session::{AgentHello, HelloParams, HelloReply};
use datacentered_proto::{Error, OperationKey, PROTOCOL};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as SocketRole;

use crate::config::Config;
use crate::hub::Hub;
use crate::identity::HostKey;
use crate::sessions::{Peer, Session, Who, serve_link};

/// Longest that anything in these tests may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct World {
    pub(super) hub: Arc<Hub>,
    mover: Option<Mover>,
    pub(super) dir: tempfile::TempDir,
}

/// A host's key, and what enrolled it.
#[derive(Clone)]
pub(super) struct Key(pub(super) HostKey);

impl Key {
    pub(super) fn new() -> Self {
        let pair = rcgen::KeyPair::generate().expect("key");
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        Self(HostKey { fingerprint: crate::identity::sha256_hex(&spki), spki: spki.into() })
    }
}

/// Answers nothing.
pub(super) struct Deaf;

impl Handler for Deaf {
    fn call(&self, _: Request) -> Called {
        Called::NoSuchMethod
    }
}

fn config(dir: &std::path::Path) -> Config {
    Config { data_dir: dir.to_owned(), ..Config::default() }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(edit: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let mut config = config(dir.path());
        edit(&mut config);
        let (hub, mover) = Hub::open(config, Clock::system()).await.expect("hub");
        Self { hub, mover: Some(mover), dir }
    }

    /// Stops the hub and starts it again on the same directory.
    pub(super) async fn restart(mut self) -> Self {
        let config = self.hub.config.clone();
        let mover = self.mover.take().expect("running");
        self.hub.close(mover).await;
        let (hub, mover) = Hub::open(config, Clock::system()).await.expect("hub again");
        Self { hub, mover: Some(mover), dir: self.dir }
    }

    /// A backup of the hub as it stands.
    pub(super) async fn backup(&self) -> Vec<u8> {
        let admin = self.admin().await;
        let (_, mut reader) =
            admin.open::<HubBackup>(0, |stream| BackupParams { stream }).await.expect("a backup");
        let mut all = Vec::new();
        loop {
            match reader.next().await.expect("an end") {
                StreamEvent::Bytes { payload, .. } => all.extend_from_slice(&payload),
                StreamEvent::End(end) => {
                    assert_eq!(end.reason, EndReason::Done, "{end:?}");
                    return all;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Stops the hub and starts one from a backup.
    pub(super) async fn restored(mut self, backup: &[u8]) -> Self {
        let mover = self.mover.take().expect("running");
        self.hub.close(mover).await;
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("backup");
        std::fs::write(&file, backup).expect("written");
        let data_dir = dir.path().join("hub");
        let into = data_dir.clone();
        tokio::task::block_in_place(move || crate::restore(&into, &file)).expect("restored");
        let (hub, mover) = Hub::open(config(&data_dir), Clock::system()).await.expect("hub");
        Self { hub, mover: Some(mover), dir }
    }

    pub(super) fn key(&self) -> OperationKey {
        OperationKey::from_uuid(self.hub.clock.uuid())
    }

    /// A link of somebody who is already known, as the local socket's peers are.
    pub(super) fn link_as(&self, who: Who, handler: Arc<dyn Handler>) -> (Link, Arc<Session>) {
        self.link(who, None, handler)
    }

    pub(super) fn link(
        &self,
        who: Who,
        host_key: Option<HostKey>,
        handler: Arc<dyn Handler>,
    ) -> (Link, Arc<Session>) {
        let peer = Peer::Tcp("127.0.0.1:1".parse().expect("address"));
        let session = Session::open(&self.hub, peer, host_key, who).expect("session");
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (hub, served) = (self.hub.clone(), session.clone());
        self.hub.tasks.spawn("test link", async move {
            let limits = Limits::default();
            let socket =
                WebSocketStream::from_raw_socket(far, SocketRole::Server, Some(websocket_config(&limits)))
                    .await;
            serve_link(hub, served, socket).await;
        });
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let limits = Limits::default();
        self.hub.tasks.spawn("test link far end", async move {
            let socket =
                WebSocketStream::from_raw_socket(near, SocketRole::Client, Some(websocket_config(&limits)))
                    .await;
            let (link, driver) = Link::start(socket, Side::Dialled, handler, limits);
            let _ = sender.send(link);
            driver.await;
        });
        let link = tokio::task::block_in_place(|| receiver.recv().expect("link"));
        (link, session)
    }

    /// A link of somebody who has said hello.
    pub(super) async fn greeted(&self, who: Who) -> Link {
        let (link, _) = self.link_as(who, Arc::new(Deaf));
        hello(&link, None, None).await.expect("hello");
        link
    }

    /// A link of the local administrator.
    pub(super) async fn admin(&self) -> Link {
        self.greeted(Who::local(0, 1)).await
    }

    /// An API token's secret.
    pub(super) async fn token(&self, role: impl Into<RoleName>) -> (datacentered_proto::TokenId, String) {
        let role = role.into();
        let params = TokenCreateParams {
            key: self.key(),
            kind: TokenKind::Api,
            name: role.to_string(),
            role: Some(role),
            ttl_ms: None,
            uses: None,
            labels: BTreeMap::new(),
        };
        let reply = self.admin().await.call::<TokenCreate>(&params).await.expect("token");
        (reply.id, reply.token)
    }

    /// A link that proved itself with a token.
    pub(super) async fn client(&self, role: impl Into<RoleName>) -> Link {
        let (_, token) = self.token(role).await;
        let (link, _) = self.link_as(Who::anonymous(), Arc::new(Deaf));
        hello(&link, Some(token), None).await.expect("hello");
        link
    }

    /// An own role.
    pub(super) async fn role(&self, name: &str, allow: &[&str], deny: &[&str], on: &[&str]) -> RoleName {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let params = RoleCreateParams {
            key: self.key(),
            name: name.into(),
            allow: texts(allow),
            deny: texts(deny),
            on: texts(on),
        };
        self.admin().await.call::<RoleCreate>(&params).await.expect("role").name
    }

    pub(super) async fn join_token(&self, uses: u32) -> String {
        let params = TokenCreateParams {
            key: self.key(),
            kind: TokenKind::Join,
            name: "test".into(),
            role: None,
            ttl_ms: None,
            uses: Some(uses),
            labels: [("from".to_owned(), "token".to_owned())].into(),
        };
        self.admin().await.call::<TokenCreate>(&params).await.expect("join token").token
    }

    /// Enrols a key.
    pub(super) async fn enrol(&self, key: &Key, name: &str, token: &str) -> Result<EnrolReply, Error> {
        let (link, _) = self.link(Who::anonymous(), Some(key.0.clone()), Arc::new(Deaf));
        hello(&link, None, None).await?;
        let params = EnrolParams {
            token: token.into(),
            name: name.into(),
            labels: BTreeMap::new(),
            facts: Facts::default(),
        };
        link.call::<HostEnrol>(&params).await
    }
}

/// Says hello on a link.
pub(super) async fn hello(
    link: &Link,
    token: Option<String>,
    agent: Option<AgentHello>,
) -> Result<HelloReply, Error> {
    let params = HelloParams {
        protocol: PROTOCOL,
        capabilities: vec![],
        client: "test".into(),
        token,
        agent,
        now: None,
    };
    link.call::<SessionHello>(&params).await
}

/// Waits until something holds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

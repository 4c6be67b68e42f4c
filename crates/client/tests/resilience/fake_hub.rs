//! A hub made of nothing but a link: it greets, answers what a test tells it to, and breaks connections when asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datacentered_client::{Client, ClientConfig, HubUrl};
use datacentered_link::{Answer, Called, Handler, Limits, Link, Request, Side, websocket_config};
use datacentered_proto::operations::SessionHello;
use datacentered_proto::ops::session::{HelloReply, Subject};
use datacentered_proto::{Error, Operation, PROTOCOL, Timestamp};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// What a test answers to calls other than the greeting.
pub(crate) type Answers = dyn Fn(&Request, &Connection) -> Called + Send + Sync;

/// One connection of the client's.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// The first is 1.
    pub(crate) number: usize,
    break_now: CancellationToken,
}

impl Connection {
    /// Breaks the connection without a word, as a power cut would.
    pub(crate) fn cut(&self) {
        self.break_now.cancel();
    }
}

/// The hub.
pub(crate) struct FakeHub {
    socket: PathBuf,
    _directory: tempfile::TempDir,
    answers: Arc<Answers>,
    connections: Arc<AtomicUsize>,
    running: Option<AbortHandle>,
    tasks: JoinSet<()>,
}

impl FakeHub {
    /// Listens, and answers as told.
    pub(crate) fn start(answers: impl Fn(&Request, &Connection) -> Called + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut hub = Self {
            socket: directory.path().join("hub.sock"),
            _directory: directory,
            answers: Arc::new(answers),
            connections: Arc::default(),
            running: None,
            tasks: JoinSet::new(),
        };
        hub.up();
        hub
    }

    /// Listens again.
    pub(crate) fn up(&mut self) {
        std::fs::remove_file(&self.socket).ok();
        let listener = UnixListener::bind(&self.socket).expect("a socket");
        let serving = serve(listener, Arc::clone(&self.answers), Arc::clone(&self.connections));
        self.running = Some(self.tasks.spawn(serving));
    }

    /// Ends, with every connection, as kill -9 would.
    pub(crate) fn down(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        std::fs::remove_file(&self.socket).ok();
    }

    /// How often the client has connected.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How to reach it.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(vec![HubUrl::Unix { path: self.socket.clone() }]);
        config.reconnect_timeout = Duration::from_secs(20);
        config
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.config()).await.expect("connects")
    }
}

async fn serve(listener: UnixListener, answers: Arc<Answers>, connections: Arc<AtomicUsize>) {
    let mut links = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
        let connection = Connection { number, break_now: CancellationToken::new() };
        links.spawn(one(stream, Arc::clone(&answers), connection));
    }
}

async fn one(stream: UnixStream, answers: Arc<Answers>, connection: Connection) {
    let limits = Limits { stream_window: 64 * 1024, ..Limits::default() };
    let config = Some(websocket_config(&limits));
    let ws = tokio_tungstenite::accept_async_with_config(stream, config).await.expect("a WebSocket");
    let break_now = connection.break_now.clone();
    let (_link, driver) = Link::start(ws, Side::Accepted, Arc::new(Told { answers, connection }), limits);
    tokio::select! {
        _ = driver => {}
        () = break_now.cancelled() => {}
    }
}

struct Told {
    answers: Arc<Answers>,
    connection: Connection,
}

impl Handler for Told {
    fn call(&self, request: Request) -> Called {
        if request.method == SessionHello::SPEC.name {
            return greet(&request);
        }
        (self.answers)(&request, &self.connection)
    }
}

fn greet(request: &Request) -> Called {
    let hello = request.params::<datacentered_proto::ops::session::HelloParams>().expect("a greeting");
    if hello.token.as_deref() == Some("wrong") {
        return Called::Now(Err(Error::unauthenticated("the token is not valid")));
    }
    Called::Now(Answer::of(&HelloReply {
        protocol: PROTOCOL,
        capabilities: Vec::new(),
        session: "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f".parse().expect("an id"),
        version: "0.0.0".into(),
        epoch: "e".into(),
        subject: Subject::Local { uid: 0, pid: 1 },
        heartbeat_ms: 8000,
        reconnect_slot_ms: 0,
        now: Timestamp::EPOCH,
    }))
}

//! A way between an agent and its hub that can be cut, frozen and slowed down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often a frozen way looks whether it has thawed.
const LOOK: Duration = Duration::from_millis(10);

/// One agent's way to the hub.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Nothing is carried, and nobody is told.
    frozen: AtomicBool,
    /// Nobody is let in.
    closed: AtomicBool,
    /// How long every piece is held back.
    delay_ms: AtomicU64,
    /// Counts the cuts: whoever sees it change ends.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Opens a way to `hub` on a free port.
    pub(crate) async fn open(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            frozen: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
        });
        let accepting = state.clone();
        tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                if !accepting.closed.load(Ordering::Relaxed) {
                    tokio::spawn(carry(agent, hub, accepting.clone()));
                }
            }
        });
        Self { address, state }
    }

    /// Where the agent dials.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection that there is.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether nothing is carried, in silence.
    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Whether new connections are turned away.
    pub(crate) fn set_closed(&self, closed: bool) {
        self.state.closed.store(closed, Ordering::Relaxed);
    }

    /// How long every piece is held back.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

async fn carry(agent: TcpStream, hub: SocketAddr, state: Arc<State>) {
    let Ok(hub) = TcpStream::connect(hub).await else { return };
    for stream in [&agent, &hub] {
        stream.set_nodelay(true).ok();
    }
    let mut cuts = state.cuts.subscribe();
    cuts.borrow_and_update();
    let (from_agent, to_agent) = agent.into_split();
    let (from_hub, to_hub) = hub.into_split();
    tokio::select! {
        () = pump(from_agent, to_hub, &state) => {}
        () = pump(from_hub, to_agent, &state) => {}
        _ = cuts.changed() => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let delay = state.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        while state.frozen.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

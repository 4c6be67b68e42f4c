//! What a connection runs through: it can be cut, blocked in either direction, and slow.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One direction.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    blocked: bool,
    delay: Duration,
}

/// A cable; what is on its way is lost when it is dropped, and both ends see the connection end.
#[derive(Debug)]
pub(super) struct Cable {
    up: watch::Sender<Way>,
    down: watch::Sender<Way>,
    _carriers: JoinSet<()>,
}

impl Cable {
    /// A new cable: itself, the host's end, the hub's end.
    pub(super) fn lay() -> (Self, DuplexStream, DuplexStream) {
        let (host, host_plug) = tokio::io::duplex(16 * 1024);
        let (hub_plug, hub) = tokio::io::duplex(16 * 1024);
        let (up, up_way) = watch::channel(Way::default());
        let (down, down_way) = watch::channel(Way::default());
        let (from_host, to_host) = tokio::io::split(host_plug);
        let (from_hub, to_hub) = tokio::io::split(hub_plug);
        let mut carriers = JoinSet::new();
        carriers.spawn(carry(from_host, to_hub, up_way));
        carriers.spawn(carry(from_hub, to_host, down_way));
        (Self { up, down, _carriers: carriers }, host, hub)
    }

    /// Holds back, or lets go, what goes up to the hub and what comes down from it.
    pub(super) fn block(&self, up: bool, down: bool) {
        self.up.send_modify(|way| way.blocked = up);
        self.down.send_modify(|way| way.blocked = down);
    }

    /// How long everything takes in each direction from now on.
    pub(super) fn slow(&self, delay: Duration) {
        self.up.send_modify(|way| way.delay = delay);
        self.down.send_modify(|way| way.delay = delay);
    }
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut way: watch::Receiver<Way>,
) {
    let mut buffer = vec![0; 4096];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        // The end of a connection is told over the same way.
        if way.wait_for(|way| !way.blocked).await.is_err() {
            return;
        }
        let delay = way.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

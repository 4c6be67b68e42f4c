//! Connections to the hub.

use std::sync::Arc;

use datacentered_link::{Limits, Link, Side, websocket_config};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as SocketRole;

use super::super::world::{Deaf, hello};
use crate::hub::Hub;
use crate::identity::HostKey;
use crate::sessions::{Peer, Session, Who, serve_link};

/// Serves a connection on the hub's side.
pub(super) fn accept(hub: &Arc<Hub>, who: Who, key: Option<HostKey>, end: DuplexStream) {
    let peer = Peer::Tcp("127.0.0.1:1".parse().expect("address"));
    let session = Session::open(hub, peer, key, who).expect("session");
    let served = hub.clone();
    hub.tasks.spawn("simulated link", async move {
        let config = websocket_config(&served.config.limits.link);
        let socket = WebSocketStream::from_raw_socket(end, SocketRole::Server, Some(config)).await;
        serve_link(served, session, socket).await;
    });
}

/// A link that nothing happens to.
pub(super) async fn sound(hub: &Arc<Hub>, who: Who, key: Option<HostKey>) -> Link {
    let (near, far) = tokio::io::duplex(64 * 1024);
    accept(hub, who, key, far);
    let limits = Limits::default();
    let config = websocket_config(&limits);
    let socket = WebSocketStream::from_raw_socket(near, SocketRole::Client, Some(config)).await;
    let (link, driver) = Link::start(socket, Side::Dialled, Arc::new(Deaf), limits);
    hub.tasks.spawn("sound link", async move {
        driver.await;
    });
    hello(&link, None, None).await.expect("hello");
    link
}

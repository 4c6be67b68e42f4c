//! The local socket: the hub's own user is admin there, without a token.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::ServerError;
use super::accept::Acceptor;
use super::connection::Connection;
use super::serve::serve;
use crate::metrics::{Door, TurnedAway};
use crate::sessions::Peer;

/// Longest path of a socket on Linux, in bytes.
const MAX_PATH: usize = 107;

/// Pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What another user is told.
const REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
    content-length: 164\r\n\r\n{\"type\":\"urn:datacentered:error:forbidden\",\"title\":\"forbidden\",\"status\":403,\
    \"code\":\"forbidden\",\"detail\":\"only the hub's own user and root may use its local socket\"}";

/// The bound socket; its file goes when it is dropped.
pub(super) struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the socket; one that a hub left behind is replaced.
pub(super) fn bind(path: &Path) -> Result<LocalSocket, ServerError> {
    let failed = |why: String| ServerError::Socket { path: path.to_owned(), why };
    if path.as_os_str().len() > MAX_PATH {
        return Err(failed(format!(
            "its path is longer than the {MAX_PATH} bytes that Linux allows; choose a shorter --data-dir"
        )));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(failed("there is something else with this name; move it away".into()));
        }
        Ok(_) => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(failed(
                    "another hub answers on it; stop it first, or choose another --data-dir".into(),
                ));
            }
            std::fs::remove_file(path).map_err(|error| failed(error.to_string()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    let listener = UnixListener::bind(path).map_err(|error| failed(error.to_string()))?;
    let socket = LocalSocket { listener, path: path.to_owned() };
    // Until here others could connect; they are refused by who they are anyway.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| failed(error.to_string()))?;
    Ok(socket)
}

/// Accepts until the hub stops.
pub(super) async fn run(acceptor: Arc<Acceptor>, socket: LocalSocket) {
    let hub = &acceptor.hub;
    let connections = Arc::new(Semaphore::new(hub.config.limits.local_connections));
    loop {
        let permit = tokio::select! {
            () = hub.stop.cancelled() => return,
            permit = connections.clone().acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_closed) => return,
            },
        };
        let stream = tokio::select! {
            () = hub.stop.cancelled() => return,
            accepted = socket.listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a local connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let acceptor = acceptor.clone();
        hub.tasks.spawn("local-connection", async move {
            let hub = &acceptor.hub;
            match own_user(&stream) {
                Ok(peer) => {
                    let counted = hub.metrics.connection(Door::Local);
                    let connection = Connection::new(Door::Local, peer, None, None, permit, counted);
                    serve(hub, acceptor.web.clone(), connection, stream).await;
                }
                Err(who) => {
                    hub.metrics.turned_away(TurnedAway::LocalUser);
                    tracing::warn!(who, "the local socket refused another user");
                    refuse(stream).await;
                }
            }
        });
    }
}

/// The peer, where it is the hub's own user or root; else who it is.
fn own_user(stream: &UnixStream) -> Result<Peer, String> {
    let credentials = stream.peer_cred().map_err(|error| error.to_string())?;
    let uid = credentials.uid();
    let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(Peer::Local { uid, pid });
    }
    Err(format!("uid {uid} pid {pid}"))
}

async fn refuse(mut stream: UnixStream) {
    // A courtesy: whether it arrives does not matter.
    let _ = stream.write_all(REFUSED).await;
    let _ = stream.shutdown().await;
}

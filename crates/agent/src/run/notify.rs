//! Tells systemd how the agent is (`Type=notify`), where systemd asked for it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The journal is read and the jobs are taken over.
pub(super) const READY: &str = "READY=1";

/// The agent ends in good order.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Sends one state to the socket that `NOTIFY_SOCKET` names; does nothing where there is none.
pub(super) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::debug!(%error, state, "systemd could not be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // A leading `@` is how an abstract name is written.
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // systemd reads it soon or never; the agent waits for neither.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_on_a_path_and_on_an_abstract_name() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("binds");
        send(path.as_os_str(), READY).expect("sends");
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).expect("receives");
        assert_eq!(&buffer[..length], READY.as_bytes());

        let name = format!("datacentered-notify-{}", std::process::id());
        let listener =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("name")).expect("binds");
        send(OsStr::new(&format!("@{name}")), STOPPING).expect("sends");
        let length = listener.recv(&mut buffer).expect("receives");
        assert_eq!(&buffer[..length], STOPPING.as_bytes());
    }

    #[test]
    fn nobody_listening_is_no_trouble() {
        assert!(send(OsStr::new("/nonexistent/notify"), READY).is_err());
    }
}

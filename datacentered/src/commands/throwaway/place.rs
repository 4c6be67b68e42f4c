//! A directory for what is thrown away: all of it is below here, and goes at the end.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use datacentered_client::Clock;

use crate::failure::{Failure, Result};

/// How often removing is tried again while the last processes still write, and how long apart.
const REMOVALS: u32 = 20;
const REMOVE_AGAIN: Duration = Duration::from_millis(100);

/// Longest path of a local socket on Linux, in bytes.
const LONGEST_SOCKET: usize = 107;

/// The directory.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    /// A fresh one under TMPDIR for a command, for this user only.
    pub(crate) fn make(command: &str) -> Result<Self> {
        let name = format!("datacentered-{command}-{:08x}", Clock::system().random() >> 32);
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Failure::failed(format!("cannot make {}: {error}", path.display())))?;
        let place = Self { path };
        if place.socket().as_os_str().len() > LONGEST_SOCKET {
            let too_long = Failure::failed(format!(
                "the path of {} is too long for a local socket",
                place.socket().display()
            ))
            .hint("set TMPDIR to a shorter directory");
            fs::remove_dir(&place.path).ok();
            return Err(too_long);
        }
        Ok(place)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the hub keeps its state.
    pub(crate) fn hub_dir(&self) -> PathBuf {
        self.path.join("hub")
    }

    /// Where the agent keeps its state.
    pub(crate) fn agent_dir(&self) -> PathBuf {
        self.path.join("agent")
    }

    /// The hub's local socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.hub_dir().join("hub.sock")
    }

    /// Keeps a secret in a file of its own, and names it.
    pub(crate) fn keep_secret(&self, name: &str, secret: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(secret.as_bytes())
        };
        write().map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }

    /// Takes everything away.
    pub(crate) async fn remove(self) -> Result<()> {
        let mut left = REMOVALS;
        loop {
            match fs::remove_dir_all(&self.path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if left == 0 => {
                    return Err(Failure::failed(format!("cannot remove {}: {error}", self.path.display()))
                        .hint("remove it yourself; nothing of it is needed"));
                }
                Err(_) => {
                    left -= 1;
                    tokio::time::sleep(REMOVE_AGAIN).await;
                }
            }
        }
    }
}

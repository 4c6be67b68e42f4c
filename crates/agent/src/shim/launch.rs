//! What the agent tells a shim to do: one document, handed over in memory.

use std::path::PathBuf;

use datacentered_proto::ops::job::ExecSpec;
use datacentered_proto::{ByteString, JobId};
use serde::{Deserialize, Serialize};

use crate::cgroup::Placement;
use crate::process::Identity;

/// Version of the job directory's layout, of this document and of the protocol on the socket. A shim outlives the agent
/// that started it, so every later agent must understand all of them.
pub const VERSION: u32 = 2;

/// The first version that knows terminals.
pub const TERMINAL_VERSION: u32 = 2;

/// Largest document that a shim reads, in bytes.
pub const MAX_LAUNCH: u64 = 4 << 20;

/// A job as its shim gets it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The version that a shim must have for it, at most [`VERSION`] of the agent that wrote it.
    pub version: u32,
    /// The job.
    pub job: JobId,
    /// Its directory.
    pub dir: ByteString,
    /// The slots file.
    pub slots: ByteString,
    /// The boot's identity.
    pub boot: String,
    /// What to execute.
    pub spec: ExecSpec,
    /// Who to run it as.
    pub identity: Identity,
    /// Where control groups go.
    pub placement: Placement,
    /// How long pipes are drained after the main process has ended, in milliseconds.
    pub drain_ms: u64,
    /// Soft limit of open files for the command, where it is not what the shim was started with.
    #[serde(default)]
    pub command_files: Option<u64>,
}

/// File names inside a job's directory.
pub mod files {
    /// Locked by the shim for as long as it lives.
    pub const LOCK: &str = "lock";
    /// The shim's socket.
    pub const SOCKET: &str = "socket";
    /// Standard input as it was received.
    pub const STDIN: &str = "stdin";
    /// Up to where the hub has the output; the agent's note to its successor.
    pub const ACKED: &str = "acked";
    /// The script.
    pub const SCRIPT: &str = "script";
    /// What the shim itself had to say; empty unless something is wrong.
    pub const LOG: &str = "shim.log";
}

impl Launch {
    /// The oldest version of a shim that can do this: what an older one does as well is not kept from it.
    pub fn version_for(spec: &ExecSpec) -> u32 {
        if spec.terminal.is_some() { TERMINAL_VERSION } else { 1 }
    }

    /// The directory as a path.
    pub fn dir(&self) -> PathBuf {
        path(&self.dir)
    }

    /// The slots file as a path.
    pub fn slots(&self) -> PathBuf {
        path(&self.slots)
    }
}

fn path(bytes: &ByteString) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes.as_bytes()))
}

//! Starting a shim: as an own process that outlives the agent.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;

use datacentered_proto::ByteString;
use datacentered_proto::ops::job::Offer;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::process::{Child, Command};

use super::Shared;
use super::socket::Socket;
use crate::process::Identity;
use crate::process::failure::{Failure, Step};
use crate::shim::launch::{Launch, VERSION, files};
use crate::shim::wire::ToShim;

/// A connection to a shim.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) socket: Socket,
    /// Where this agent started it: keeping it makes sure that its end is waited for.
    _child: Option<Child>,
}

impl Shim {
    /// Connects to a living shim.
    pub(super) fn connect(dir: &Path) -> io::Result<Self> {
        Ok(Self { socket: Socket::connect(dir)?, _child: None })
    }

    /// Starts a shim that waits for [`Shim::go`]. Until then it touches nothing, and ends when this is dropped.
    pub(super) fn spawn(shared: &Shared, offer: &Offer, identity: Identity) -> Result<Self, Failure> {
        let files_error = |error: io::Error| Failure::io(Step::Files, &error, "");
        let dir = shared.job_dir(offer.job);
        make_dir(&dir).map_err(files_error)?;
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(files::LOG));
        let log = log.map_err(files_error)?;

        let mut spec = offer.spec.clone();
        spec.spool_bytes = spec.spool_bytes.min(shared.config.max_spool);
        let launch = Launch {
            version: Launch::version_for(&spec),
            job: offer.job,
            dir: bytes(&dir),
            slots: bytes(shared.journal.slots()),
            boot: shared.boot.clone(),
            spec,
            identity,
            placement: shared.placement.clone(),
            command_files: shared.config.command_files,
            drain_ms: u64::try_from(shared.config.drain_after_exit.as_millis()).unwrap_or(u64::MAX),
        };
        let prepare = |error: io::Error| Failure::io(Step::Prepare, &error, "(shim)");
        let document = document(&launch).map_err(prepare)?;
        let (socket, theirs) = Socket::pair().map_err(prepare)?;
        let child = Command::new(&shared.config.shim_program)
            .args(&shared.config.shim_args)
            .arg(offer.job.to_string())
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(document))
            .stderr(Stdio::from(log))
            .kill_on_drop(false)
            .spawn()
            .map_err(prepare)?;
        Ok(Self { socket, _child: Some(child) })
    }

    /// The job is in the journal: begin.
    pub(super) fn go(&self, slot: u32) -> io::Result<()> {
        self.socket.send_now(&ToShim::Hello { version: VERSION })?;
        self.socket.send_now(&ToShim::Go { slot })
    }
}

/// Makes a job's directory.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn document(launch: &Launch) -> io::Result<File> {
    let mut file = File::from(memfd_create("launch", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(launch)?)?;
    // The position is shared with the shim, which reads from the beginning.
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

fn bytes(path: &Path) -> ByteString {
    use std::os::unix::ffi::OsStrExt;
    ByteString(path.as_os_str().as_bytes().to_vec())
}

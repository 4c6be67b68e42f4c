//! Making the process: files, groups, pipes, the fork.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use datacentered_proto::frame::Kind;
use datacentered_proto::ops::job::{ExecSpec, TerminalSpec};
use datacentered_proto::outcome::StartFailure;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, getpid};

use super::input::Feeder;
use super::launch::{Launch, files};
use super::output::Stream;
use super::terminal::{self, Opened, Terminal};
use crate::cgroup::{JobGroup, Unenforced};
use crate::journal::slots::ProcessMark;
use crate::process::child::{self, Start};
use crate::process::failure::{Failure, Step};
use crate::process::{Plan, tree};
use crate::sys::{self, Fork};

/// A process that waits for the word to execute.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) main: ProcessMark,
    pub(super) ends: Ends,
    pub(super) group: JobGroup,
    pub(super) plan: Plan,
    /// Write [`child::GO`] to let it execute.
    pub(super) go: OwnedFd,
    /// What it has to say until its exec closes this.
    pub(super) report: OwnedFd,
    /// Limits set per process or user, for the evidence.
    pub(super) weaker_limits: Option<String>,
}

/// Prepares everything and forks.
pub(super) fn fork(launch: &Launch) -> Result<Waiting, Failure> {
    let id = launch.job.to_string();
    let (group, unenforced) = JobGroup::create(&launch.placement, &id, &launch.spec.limits)
        .map_err(|error| Failure::io(Step::Limits, &error, "in the control group"))?;
    let result = fork_into(launch, group, unenforced, &id);
    if result.is_err() {
        JobGroup::existing(&launch.placement, &id).remove();
    }
    result
}

fn fork_into(launch: &Launch, group: JobGroup, unenforced: Unenforced, id: &str) -> Result<Waiting, Failure> {
    let prepare = |error: io::Error| Failure::io(Step::Prepare, &error, "");
    let (rlimits, weaker_limits) = rlimits(unenforced, launch.identity.uid)?;
    let script = write_script(launch).map_err(|error| Failure::io(Step::Files, &error, "(script)"))?;
    // Another user cannot enter the job's directory, but can open what it was given.
    let path = launch.dir().join(files::SCRIPT);
    let seen = child::script_path();
    let script_path =
        script.as_ref().map(|_| if launch.identity.switch { Path::new(&seen) } else { path.as_path() });
    let marker = (!group.holds_tree()).then_some(id);
    let plan = Plan::new(&launch.spec, &launch.identity, script_path, marker)?;

    let (ends, theirs) = match &launch.spec.terminal {
        Some(terminal) => terminal_ends(launch, terminal)
            .map_err(|error| Failure::io(Step::Prepare, &error, "(its terminal)"))?,
        None => pipes(&launch.spec).map_err(prepare)?,
    };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| prepare(error.into()));
    let (go_end, go) = pipe()?;
    let (report, report_end) = pipe()?;
    rustix::io::ioctl_fionbio(&report, true).map_err(|error| prepare(error.into()))?;

    let birthplace = group.unified_fd();
    let shim = getpid();
    let spawn = |enter: &[OwnedFd], into: Option<&OwnedFd>| -> io::Result<i32> {
        match sys::fork_into(into.map(AsFd::as_fd))? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => child::run(&Start {
                plan: &plan,
                identity: &launch.identity,
                stdio: theirs.each_ref().map(AsFd::as_fd),
                terminal: ends.terminal.as_ref().map(|_| theirs[0].as_fd()),
                script: script
                    .as_ref()
                    .filter(|_| launch.identity.switch)
                    .map(|fd| (fd.as_fd(), child::SCRIPT_FD)),
                enter,
                rlimits: &rlimits,
                go: go_end.as_fd(),
                report: report_end.as_fd(),
                parent: shim,
            }),
        }
    };
    let enter = |with_unified| {
        group
            .enter_files(with_unified)
            .map_err(|error| Failure::io(Step::Limits, &error, "in the control group"))
    };
    let pid = match spawn(&enter(false)?, birthplace.as_ref()) {
        Err(error) if birthplace.is_some() && is_unsupported(&error) => spawn(&enter(true)?, None),
        other => other,
    }
    .map_err(prepare)?;
    let start_ticks = tree::stat(pid).map(|stat| stat.start_ticks).unwrap_or_default();
    let main = ProcessMark { pid, start_ticks };
    Ok(Waiting { main, ends, group, plan, go, report, weaker_limits })
}

/// What the shim keeps of a process's input and output.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
    pub(super) feeder: Feeder,
    pub(super) terminal: Option<Terminal>,
}

/// Pipes, and the process's ends of them.
fn pipes(spec: &ExecSpec) -> io::Result<(Ends, [OwnedFd; 3])> {
    let (stdout, stdout_end) = Stream::new(Kind::Stdout)?;
    let (stderr, stderr_end) = if spec.merge {
        (Stream::none(Kind::Stderr), rustix::io::fcntl_dupfd_cloexec(&stdout_end, 0)?)
    } else {
        Stream::new(Kind::Stderr)?
    };
    let (stdin_end, feeder) = if spec.stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        (read, Feeder::new(Some(write)))
    } else {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        (null, Feeder::new(None))
    };
    Ok((Ends { stdout, stderr, feeder, terminal: None }, [stdin_end, stdout_end, stderr_end]))
}

/// A pseudo-terminal, and the process's end of it three times.
fn terminal_ends(launch: &Launch, spec: &TerminalSpec) -> io::Result<(Ends, [OwnedFd; 3])> {
    let owner = launch.identity.switch.then(|| Uid::from_raw(launch.identity.uid));
    let Opened { terminal, stdout, feeder, theirs } = terminal::open(spec, owner)?;
    Ok((Ends { stdout, stderr: Stream::none(Kind::Stderr), feeder, terminal: Some(terminal) }, theirs))
}

/// Whether a child could not be born in a control group though it could be moved there.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EINVAL | libc::EACCES | libc::EPERM | libc::EOPNOTSUPP)
    )
}

type Rlimits = Vec<(Resource, u64)>;

/// What resource limits can do where no control group limits: per user, and per process.
fn rlimits(unenforced: Unenforced, uid: u32) -> Result<(Rlimits, Option<String>), Failure> {
    let mut limits = Vec::new();
    let mut words = Vec::new();
    if let Some(processes) = unenforced.processes {
        if uid == 0 {
            return Err(Failure {
                why: StartFailure::LimitsNotApplied,
                detail:
                    "cannot limit the processes of root without a control group; mount one, or run as a user"
                        .into(),
            });
        }
        limits.push((Resource::Nproc, processes));
        words.push("processes per user");
    }
    if let Some(bytes) = unenforced.memory_bytes {
        limits.push((Resource::As, bytes));
        words.push("address space per process");
    }
    let words = (!words.is_empty()).then(|| format!("no control group: {}", words.join(", ")));
    Ok((limits, words))
}

/// Writes the script for its user alone; returns it open for reading.
fn write_script(launch: &Launch) -> io::Result<Option<OwnedFd>> {
    let Some(script) = &launch.spec.script else { return Ok(None) };
    // A start that was cut off before it was recorded may have left one.
    match std::fs::remove_file(files::SCRIPT) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(files::SCRIPT)?;
    file.write_all(script.body.as_bytes())?;
    if launch.identity.switch {
        let (uid, gid) = (Uid::from_raw(launch.identity.uid), Gid::from_raw(launch.identity.gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    // Closed for writing before anything executes it: the kernel refuses to execute what is being written.
    drop(file);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(Some(rustix::fs::open(files::SCRIPT, flags, Mode::empty())?))
}

/// The shim as the slot names it.
pub(super) fn own_mark() -> ProcessMark {
    let pid = Pid::as_raw(Some(getpid()));
    ProcessMark { pid, start_ticks: tree::stat(pid).map(|stat| stat.start_ticks).unwrap_or_default() }
}

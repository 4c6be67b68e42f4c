//! The forked child's side, from fork to exec, and how it tells its parent what went wrong.
//!
//! The child does everything that takes time (session, cgroup, identity, directory) at once, then waits for one byte:
//! its parent sends it when the start is on disk. A parent that is gone by then means that nothing is executed.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};

use super::failure::Step;
use super::identity::Identity;
use super::plan::Plan;
use crate::sys;

/// The byte that lets the child execute.
pub const GO: u8 = b'g';

/// How often a program that is being written is tried again, and for how long in between.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// What the child is started with. All descriptors are close-on-exec.
#[derive(Debug)]
pub struct Start<'a> {
    /// Arguments, environment, paths.
    pub plan: &'a Plan,
    /// Who it becomes.
    pub identity: &'a Identity,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The terminal that becomes its controlling one.
    pub terminal: Option<BorrowedFd<'a>>,
    /// A script's file that must stay open across the exec, as this number.
    pub script: Option<(BorrowedFd<'a>, i32)>,
    /// `cgroup.procs` files to enter.
    pub enter: &'a [OwnedFd],
    /// Resource limits where no cgroup enforces them.
    pub rlimits: &'a [(Resource, u64)],
    /// Readable with [`GO`] when the child may execute.
    pub go: BorrowedFd<'a>,
    /// Where failures and notes are written; closed by a successful exec.
    pub report: BorrowedFd<'a>,
    /// The parent's process id.
    pub parent: Pid,
}

/// What a child reports before its exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The home directory is missing; it runs in `/`.
    HomeMissing,
    /// It could not start.
    Failed {
        /// At which step.
        step: Step,
        /// The kernel's error number.
        errno: i32,
        /// Whether the program's file exists all the same (its interpreter does not).
        exists: bool,
    },
}

/// Length of one report on the pipe, in bytes.
pub const REPORT_LEN: usize = 8;

impl Report {
    fn encode(self) -> [u8; REPORT_LEN] {
        let (step, errno, flag) = match self {
            Self::HomeMissing => (0, 0i32, 0),
            Self::Failed { step, errno, exists } => (step as u8, errno, u8::from(exists)),
        };
        let [a, b, c, d] = errno.to_le_bytes();
        [step, flag, 0, 0, a, b, c, d]
    }

    /// Reads one report.
    pub fn decode(bytes: [u8; REPORT_LEN]) -> Option<Self> {
        let [step, flag, _, _, a, b, c, d] = bytes;
        if step == 0 {
            return Some(Self::HomeMissing);
        }
        Some(Self::Failed {
            step: Step::from_number(step)?,
            errno: i32::from_le_bytes([a, b, c, d]),
            exists: flag == 1,
        })
    }
}

/// Runs in the forked child; never returns.
pub fn run(start: &Start<'_>) -> ! {
    let Err((step, error)) = prepare(start).and_then(|()| execute(start));
    let exists = step == Step::Exec
        && error.raw_os_error() == Some(libc::ENOENT)
        && start.plan.candidates.iter().any(|path| rustix::fs::stat(path.as_c_str()).is_ok());
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    // Eight bytes into an empty pipe are written at once; if the parent is gone nobody needs them.
    let _ = rustix::io::write(start.report, &Report::Failed { step, errno, exists }.encode());
    sys::exit_now(127)
}

type Failed = (Step, io::Error);

fn prepare(start: &Start<'_>) -> Result<(), Failed> {
    let at = |step: Step| move |error: rustix::io::Errno| (step, io::Error::from(error));
    rustix::process::setsid().map_err(at(Step::Prepare))?;
    if let Some(terminal) = start.terminal {
        rustix::process::ioctl_tiocsctty(terminal).map_err(at(Step::Prepare))?;
    }
    for procs in start.enter {
        rustix::io::write(procs, b"0").map_err(at(Step::Limits))?;
    }
    for (resource, limit) in start.rlimits {
        let limit = Rlimit { current: Some(*limit), maximum: Some(*limit) };
        rustix::process::setrlimit(*resource, limit).map_err(at(Step::Limits))?;
    }
    become_user(start.identity).map_err(at(Step::Identity))?;
    // After the change of identity, which clears it. If the parent died before this line, the check behind it sees that.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Prepare))?;
    if rustix::process::getppid() != Some(start.parent) {
        sys::exit_now(127);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    enter_directory(start)?;
    for (fd, number) in start.stdio.into_iter().zip(0..) {
        sys::duplicate_to(fd, number).map_err(|error| (Step::Prepare, error))?;
    }
    if let Some((fd, number)) = start.script {
        sys::duplicate_to(fd, number).map_err(|error| (Step::Prepare, error))?;
    }
    sys::reset_signals();
    Ok(())
}

fn become_user(identity: &Identity) -> rustix::io::Result<()> {
    if !identity.switch {
        return Ok(());
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (gid, uid) = (Gid::from_raw(identity.gid), Uid::from_raw(identity.uid));
    // This process has one thread, so the thread's identity is the process's.
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn enter_directory(start: &Start<'_>) -> Result<(), Failed> {
    match rustix::process::chdir(start.plan.cwd.as_c_str()) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::ACCESS)
            if start.plan.cwd_is_default =>
        {
            // As login does: a missing home is no reason not to work.
            let _ = rustix::io::write(start.report, &Report::HomeMissing.encode());
            rustix::process::chdir(c"/").map_err(|error| (Step::Directory, error.into()))
        }
        Err(error) => Err((Step::Directory, error.into())),
    }
}

fn execute(start: &Start<'_>) -> Result<std::convert::Infallible, Failed> {
    let mut byte = [0u8];
    match rustix::io::retry_on_intr(|| rustix::io::read(start.go, &mut byte)) {
        Ok(1) if byte == [GO] => {}
        _ => sys::exit_now(127),
    }
    // As execvp: a candidate that may not be executed is remembered, one that is not there is passed over.
    let mut failed = io::Error::from_raw_os_error(libc::ENOENT);
    for path in &start.plan.candidates {
        let error = try_execute(path, start.plan);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) if start.plan.candidates.len() > 1 => {}
            Some(libc::EACCES) => failed = error,
            _ => return Err((Step::Exec, error)),
        }
    }
    Err((Step::Exec, failed))
}

fn try_execute(path: &CString, plan: &Plan) -> io::Error {
    let mut tries = 0;
    loop {
        let error = sys::exec(path, &plan.argv, &plan.envp);
        // Somebody's fork may still hold a just written program open for writing, for a moment.
        if error.raw_os_error() != Some(libc::ETXTBSY) || tries == BUSY_TRIES {
            return error;
        }
        tries += 1;
        std::thread::sleep(BUSY_PAUSE);
    }
}

/// The number under which a script stays open for its interpreter; beyond those that shells use.
/// The shim keeps this and every lower number occupied, so that no descriptor of its own is there.
pub const SCRIPT_FD: i32 = 9;

/// The path under which a process sees its own open script, whatever directories it may not enter.
pub fn script_path() -> String {
    format!("/proc/self/fd/{SCRIPT_FD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_round_trip() {
        for report in [
            Report::HomeMissing,
            Report::Failed { step: Step::Exec, errno: libc::ENOENT, exists: true },
            Report::Failed { step: Step::Identity, errno: libc::EPERM, exists: false },
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([99, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}

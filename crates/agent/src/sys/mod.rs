//! The few system calls that have no safe wrapper elsewhere. Everything unsafe of the agent is in this module.
#![allow(
    unsafe_code,
    reason = "fork, exec, signals and the user database need the C library; each use says why it is sound"
)]

pub mod users;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use tokio::io::unix::AsyncFd;

/// From linux/sched.h; the C library crate has it in a type too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork the caller is on.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old process, with the new one's process id.
    Parent(i32),
}

/// Forks; the child begins inside `cgroup` (a directory of the unified hierarchy) where one is given.
///
/// Being born in a cgroup avoids the migration lock, which costs milliseconds on large machines. The caller must be
/// single-threaded, which the shim is: otherwise the child could inherit a locked allocator.
///
/// # Errors
/// The kernel's: `EAGAIN` or `ENOMEM` when out of processes or memory, `ENOSYS` or `EINVAL` where the kernel cannot
/// place a child into a cgroup (then fork without one and migrate).
pub fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let pid = if let Some(cgroup) = cgroup {
        // SAFETY: clone_args is plain integers, for which all-zero is valid.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = cgroup.as_raw_fd() as u64;
        // SAFETY: without CLONE_VM and a stack of its own, clone3 behaves as fork: the child has a copy of everything.
        // The process is single-threaded (documented), so no lock can be held by a thread that is not copied.
        unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<libc::clone_args>()) as i32 }
    } else {
        // SAFETY: the process is single-threaded (documented), so the child may use everything.
        unsafe { libc::fork() }
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

unsafe extern "C" {
    /// Reads TZ and the system's zone file again where they changed.
    safe fn tzset();
}

/// How far the host's local time is ahead of UTC at a moment (seconds since 1970), in seconds; 0 where the C library
/// does not know.
pub fn utc_offset(at: i64) -> i64 {
    // localtime_r need not look whether the host's zone has been changed.
    tzset();
    // SAFETY: tm is integers and a pointer, for which all-zero is valid.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live objects; the zone's name in the result is not looked at.
    let done = unsafe { libc::localtime_r(&raw const at, &raw mut local) };
    if done.is_null() { 0 } else { local.tm_gmtoff }
}

/// Ends this process at once, without destructors or exit handlers: for a forked child that could not exec.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Replaces this process's program; returns only when that failed, with the reason.
pub fn exec(path: &CString, argv: &CStrings, envp: &CStrings) -> io::Error {
    // SAFETY: both arrays are null-terminated arrays of pointers to C strings that live as long as their owner, which
    // is borrowed here.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// C strings and the null-terminated array of pointers to them that `execve` wants, made before the fork.
#[derive(Debug)]
pub struct CStrings {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStrings {
    /// Takes the strings over.
    pub fn new(strings: Vec<CString>) -> Self {
        let mut this = Self { strings, pointers: Vec::new() };
        this.index();
        this
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    fn index(&mut self) {
        // A CString's bytes are on the heap: moving the vector does not move them.
        self.pointers = self.strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
    }
}

/// Takes over a file descriptor that this process was started with.
///
/// # Errors
/// Where it is not open.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD reads a flag and touches no memory.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the callers (a shim's first lines) take each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `target` (0, 1 or 2, or a number nothing owns) another name of `fd`, kept open across exec.
///
/// # Errors
/// The kernel's.
pub fn duplicate_to(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // dup2 onto itself would leave close-on-exec set.
        // SAFETY: changes one flag of a descriptor that is borrowed, hence open.
        return check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) });
    }
    // SAFETY: only the forked child and a shim's first lines call this, for the numbers in the contract above.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) })
}

/// Closes every descriptor from `first` on. For a process's first lines, before it has opened any of its own.
pub fn close_from(first: RawFd) {
    // SAFETY: the caller owns no descriptor yet (documented), so none is closed under an owner.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if closed == -1 {
        // Kernels before 5.9.
        for fd in first..1024 {
            // SAFETY: as above; closing a number that is not open is an error without effect.
            unsafe { libc::close(fd) };
        }
    }
}

/// Blocks SIGCHLD and returns a descriptor that becomes readable when a child ends; ignores the signals that would end
/// a process which has lost its terminal or its reader.
///
/// # Errors
/// The kernel's.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; the calls only read and write it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()))?;
        for ignored in
            [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTSTP]
        {
            libc::signal(ignored, libc::SIG_IGN);
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets every signal to its default and blocks none: what a program expects to be started with.
pub fn reset_signals() {
    // The kernel's own call: the C library's refuses the two signals that it uses itself, which may be inherited ignored.
    // All-zero means the default action, no flags, an empty mask, in every architecture's layout, none of which is longer.
    const ALL_DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    // SAFETY: the default action installs no code; errors for numbers that cannot be changed have no effect.
    unsafe {
        for signal in 1..=MAX_SIGNAL {
            let none = ptr::null_mut::<u8>();
            libc::syscall(libc::SYS_rt_sigaction, signal, ALL_DEFAULT.as_ptr(), none, MASK_BYTES);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Sends a signal by number (real-time ones included) to one process.
///
/// # Errors
/// `ESRCH` where it does not exist, `EPERM`, `EINVAL`.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 1 {
        // 0 and negative numbers mean groups; 1 is init. None of them is ever a job's process.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill touches no memory.
    check(unsafe { libc::kill(pid, signal) })
}

/// Hands a descriptor to the runtime, to wait for it to be readable or writable.
///
/// # Errors
/// The kernel's.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn wait_on(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open and the same until its owner is dropped, and the owner is handed over.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// The largest signal number.
pub const MAX_SIGNAL: i32 = 64;

/// Gives freed heap back to the kernel, so that what a start needed does not stay with a long-lived process.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

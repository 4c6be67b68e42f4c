//! Processes as /proc shows them: identity that survives the reuse of numbers, descendants, names.

use std::collections::HashMap;
use std::io;

use rustix::fs::{Mode, OFlags};

use crate::sys;

/// Most processes looked at in one scan; a host has fewer.
const MAX_SCAN: usize = 1 << 20;

/// One line of /proc/PID/stat, as far as it is used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// The program's short name, as text.
    pub comm: String,
    /// The state's letter; `Z` for a process that has ended and was not yet waited for.
    pub state: char,
    /// Parent.
    pub parent: i32,
    /// Session.
    pub session: i32,
    /// When it was started, in clock ticks since boot: with the pid it names one process for ever within a boot.
    pub start_ticks: u64,
}

/// Reads one process's line.
///
/// # Errors
/// Where the process does not exist or /proc is not mounted.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let fd = rustix::fs::open(format!("/proc/{pid}/stat"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // One read gives the whole line: it is at most a few hundred bytes.
    let mut buffer = [0u8; 1024];
    let length = rustix::io::read(&fd, &mut buffer)?;
    parse(&buffer[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Reads a line of `/proc/PID/stat`.
pub(crate) fn parse(line: &[u8]) -> Option<Stat> {
    // The name may hold spaces and parentheses: it ends at the last one.
    let open = line.iter().position(|b| *b == b'(')?;
    let close = line.iter().rposition(|b| *b == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
    let comm = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let _group = fields.next()?;
    let session = fields.next()?.parse().ok()?;
    // Field 22 of the line; the iterator stands behind field 6.
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { pid, comm, state, parent, session, start_ticks })
}

/// Every process of the host that could be read, in no order.
pub fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .take(MAX_SCAN)
        .filter_map(|pid| stat(pid).ok())
        .collect()
}

/// The living descendants of `root`, without itself.
pub fn descendants(root: i32) -> Vec<Stat> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut queue = vec![root];
    while let Some(pid) = queue.pop() {
        for process in children.remove(&pid).unwrap_or_default() {
            queue.push(process.pid);
            if process.state != 'Z' {
                found.push(process);
            }
        }
    }
    found
}

/// Whether the process that `pid` named when it had started at `start_ticks` is still there (zombies are not).
pub fn is_alive(pid: i32, start_ticks: u64) -> bool {
    stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && stat.state != 'Z')
}

/// The variable that marks a job's processes where no cgroup holds them.
pub const MARKER: &str = "DATACENTERED_JOB";

/// Processes that belong to a job whose shim is gone: those in the session of its main process (verified by that
/// session's leader being the recorded process or gone) and those that carry the job's marker in their environment.
pub fn leftovers(main: Option<(i32, u64)>, job: &str) -> Vec<Stat> {
    let marker = format!("{MARKER}={job}");
    // A session id is reused only when the whole session is gone, but by then it may name another's session.
    let session = main.filter(|(pid, ticks)| stat(*pid).map_or(true, |stat| stat.start_ticks == *ticks));
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    all()
        .into_iter()
        .filter(|process| process.state != 'Z' && process.pid != me)
        .filter(|process| {
            session.is_some_and(|(pid, ticks)| process.session == pid && process.start_ticks >= ticks)
                || has_marker(process.pid, marker.as_bytes())
        })
        .collect()
}

fn has_marker(pid: i32, marker: &[u8]) -> bool {
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|b| *b == 0).any(|variable| variable == marker))
}

/// Ends every process that `find` finds, again and again until none is found or `rounds` have passed.
///
/// Each round stops all of them before it kills any, so that a process that forks as fast as it can does not outrun
/// the list. Returns whether none was left.
pub fn kill_all(rounds: u32, find: impl Fn() -> Vec<Stat>) -> bool {
    for round in 0..rounds {
        let found = find();
        if found.is_empty() {
            return true;
        }
        for signal in [libc::SIGSTOP, libc::SIGKILL] {
            for process in &found {
                // Gone already is what is wanted.
                let _ = sys::kill(process.pid, signal);
            }
        }
        if round > 0 {
            // The dying need the processor for a moment.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    find().is_empty()
}

/// Names of processes for a person: `pid (comm)`, at most `limit` of them and how many more.
pub fn names(processes: &[Stat], limit: usize) -> String {
    let mut text = processes
        .iter()
        .take(limit)
        .map(|p| format!("{} ({})", p.pid, p.comm))
        .collect::<Vec<_>>()
        .join(", ");
    if processes.len() > limit {
        text = format!("{text} and {} more", processes.len() - limit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_parse() {
        let line = b"42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        let stat = parse(line).expect("parses");
        assert_eq!((stat.pid, stat.comm.as_str(), stat.parent, stat.session), (42, "a) b (c", 1, 42));
        assert_eq!(stat.start_ticks, 777);
    }

    #[test]
    fn garbage_does_not_parse() {
        for bad in [&b""[..], b"1", b"1 (", b"1 ()", b") (", b"x (y) S 1", b"1 (a) S 1 1 1"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn this_process_is_alive() {
        let me = stat(i32::try_from(std::process::id()).expect("fits")).expect("reads");
        assert!(is_alive(me.pid, me.start_ticks));
        assert!(!is_alive(me.pid, me.start_ticks + 1));
    }
}

//! What agents leave running on purpose, and a test must not.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

/// Ends every shim that owns a job in one of these hosts' directories, and the commands below it.
pub(crate) fn end_all(hosts: &[PathBuf]) {
    let jobs: Vec<String> = hosts
        .iter()
        .filter_map(|host| fs::read_dir(host.join("jobs")).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    for pid in processes() {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut args = command.split(|byte| *byte == 0).skip(1);
        let is_shim = args.next() == Some(b"shim".as_slice());
        let owns = |job: &[u8]| jobs.iter().any(|known| known.as_bytes() == job);
        if is_shim && args.next().is_some_and(owns) {
            end_tree(pid);
        }
    }
}

fn end_tree(pid: i32) {
    let below = children(pid);
    end(pid);
    for child in below {
        end_tree(child);
    }
}

fn end(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, Signal::KILL).ok();
    }
}

fn children(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

//! Whether jobs may have control groups of their own below this process's.
//!
//! On cgroup v2 a group that hands the memory controller down to its children may hold no processes itself. Below systemd
//! that bites at the next start: the jobs that outlived the agent keep the unit's group in that state, and systemd cannot
//! put the new agent into it. With `DelegateSubgroup=` (systemd 254) it puts the agent into a group beside the jobs'.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// The name in the unit's `DelegateSubgroup=`.
const SUBGROUP: &str = "datacentered-agent";

/// Whether this process can make control groups and still be started again while jobs run.
pub(super) fn is_safe() -> bool {
    let by_systemd = ["NOTIFY_SOCKET", "INVOCATION_ID"].iter().any(|name| std::env::var_os(name).is_some());
    !by_systemd || is_safe_below_systemd(Path::new("/"))
}

fn is_safe_below_systemd(root: &Path) -> bool {
    // Only where v2 is mounted alone does it have the controllers.
    if !root.join("sys/fs/cgroup/cgroup.controllers").exists() {
        return true;
    }
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.is_some_and(|own| Path::new(own).file_name() == Some(OsStr::new(SUBGROUP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(controllers: bool, own: &str) -> bool {
        let root = tempfile::tempdir().expect("tempdir");
        for directory in ["sys/fs/cgroup", "proc/self"] {
            fs::create_dir_all(root.path().join(directory)).expect("creates");
        }
        if controllers {
            fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "memory pids\n").expect("writes");
        }
        fs::write(root.path().join("proc/self/cgroup"), own).expect("writes");
        is_safe_below_systemd(root.path())
    }

    #[test]
    fn only_a_subgroup_is_safe_where_v2_has_the_controllers() {
        assert!(safe(true, "0::/system.slice/datacentered-agent.service/datacentered-agent\n"));
        assert!(!safe(true, "0::/system.slice/datacentered-agent.service\n"));
        assert!(!safe(true, ""));
        assert!(safe(false, "4:memory:/system.slice/a.service\n0::/system.slice/a.service\n"));
    }
}

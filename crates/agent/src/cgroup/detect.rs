//! Where the agent's own control groups are and what may be done below them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Placement, make_dir};

/// The directory below the agent's own group that holds the jobs' groups.
const JOBS: &str = "datacentered-jobs";
/// The leaf that the agent moves itself to where v2 wants processes in leaves only.
const LEAF: &str = "datacentered-agent";

pub(super) fn detect(proc_self: &Path) -> Placement {
    let mounts = fs::read_to_string(proc_self.join("mountinfo")).unwrap_or_default();
    let groups = fs::read_to_string(proc_self.join("cgroup")).unwrap_or_default();
    let own = own_groups(&mounts, &groups);

    let v1 = |own: &Option<PathBuf>, file: &str| {
        let dir = own.as_ref()?.join(JOBS);
        make_dir(&dir).ok()?;
        dir.join(file).exists().then_some(dir)
    };
    let mut placement = Placement {
        unified: None,
        unified_limits: false,
        pids: v1(&own.pids, "pids.max"),
        memory: v1(&own.memory, "memory.limit_in_bytes"),
    };
    if let Some(own) = &own.unified
        && make_dir(&own.join(JOBS)).is_ok()
    {
        // Its owner may have been told to delegate it and not more: a group that cannot be entered is of no use.
        let probe = own.join(JOBS).join("probe");
        if make_dir(&probe).is_ok() {
            placement.unified_limits = has_limit_controllers(own) && enable(own);
            let _ = fs::remove_dir(&probe);
            placement.unified = Some(own.join(JOBS));
        }
    }
    placement
}

fn has_limit_controllers(own: &Path) -> bool {
    let controllers = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    ["pids", "memory"].iter().all(|wanted| controllers.split_ascii_whitespace().any(|word| word == *wanted))
}

/// Passes the two controllers on to the jobs' groups.
fn enable(own: &Path) -> bool {
    const CONTROL: &str = "cgroup.subtree_control";
    const WANTED: &str = "+pids +memory";
    if fs::write(own.join(CONTROL), WANTED).is_err() {
        // A group with processes of its own may not pass controllers on: move them to a leaf, as the kernel's
        // documentation asks of a delegatee.
        let leaf = own.join(LEAF);
        if make_dir(&leaf).is_err() {
            return false;
        }
        for pid in fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(leaf.join("cgroup.procs"), pid);
        }
        if fs::write(own.join(CONTROL), WANTED).is_err() {
            return false;
        }
    }
    fs::write(own.join(JOBS).join(CONTROL), WANTED).is_ok()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Own {
    unified: Option<PathBuf>,
    pids: Option<PathBuf>,
    memory: Option<PathBuf>,
}

/// Matches the process's groups with where their hierarchies are mounted.
fn own_groups(mountinfo: &str, cgroup: &str) -> Own {
    let mut own = Own::default();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let place = |kind: &str, option: Option<&str>| mount_of(mountinfo, kind, option, path);
        if number == "0" && controllers.is_empty() {
            own.unified = place("cgroup2", None);
        }
        for controller in controllers.split(',') {
            match controller {
                "pids" => own.pids = place("cgroup", Some("pids")),
                "memory" => own.memory = place("cgroup", Some("memory")),
                _ => {}
            }
        }
    }
    // The leaf of an earlier start of the agent is not where jobs belong.
    if let Some(path) = &own.unified
        && path.ends_with(LEAF)
    {
        own.unified = path.parent().map(Path::to_path_buf);
    }
    own
}

/// Reads any two texts as the kernel's.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(mountinfo: &str, cgroup: &str) {
    drop(own_groups(mountinfo, cgroup));
}

fn mount_of(mountinfo: &str, kind: &str, option: Option<&str>, path: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        if right.next()? != kind {
            return None;
        }
        let options = right.nth(1)?;
        if option.is_some_and(|wanted| !options.split(',').any(|word| word == wanted)) {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        let root = left.next()?;
        let mount_point = left.next()?;
        // In a container only a part of the hierarchy may be mounted; the path is told from the whole's root.
        let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
        Some(Path::new(mount_point).join(inside.trim_start_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 24 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
32 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn hybrid_layouts_use_both() {
        let own = own_groups(HYBRID, "8:pids:/\n4:memory:/a/b\n0::/x.service\n");
        assert_eq!(own.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified/x.service")));
        assert_eq!(own.pids.as_deref(), Some(Path::new("/sys/fs/cgroup/pids/")));
        assert_eq!(own.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory/a/b")));
    }

    #[test]
    fn a_restarted_agent_goes_back_to_the_parent_of_its_leaf() {
        let own =
            own_groups("1 1 0:1 / /sys/fs/cgroup rw - cgroup2 c rw", "0::/a.service/datacentered-agent");
        assert_eq!(own.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/a.service")));
    }

    #[test]
    fn a_container_sees_its_part() {
        let own = own_groups("1 1 0:1 /docker/c1 /sys/fs/cgroup rw - cgroup2 c rw", "0::/docker/c1/sub");
        assert_eq!(own.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/sub")));
    }

    #[test]
    fn garbage_gives_nothing() {
        assert_eq!(own_groups("x\n1 - cgroup2\n", "::\n0\n9:pids:"), Own::default());
    }

    #[test]
    fn controllers_are_enabled_from_the_top_down() {
        let dir = tempfile::tempdir().expect("makes");
        fs::create_dir(dir.path().join(JOBS)).expect("makes");
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").expect("writes");
        assert!(has_limit_controllers(dir.path()) && enable(dir.path()));
        for control in [dir.path().to_path_buf(), dir.path().join(JOBS)] {
            let text = fs::read_to_string(control.join("cgroup.subtree_control")).expect("reads");
            assert_eq!(text, "+pids +memory");
        }
    }
}

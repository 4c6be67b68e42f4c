//! Decoders that are private otherwise, for fuzz targets. Each function panics where a property does not hold.

use std::path::Path;

use crate::config::Config;

/// Segment headers, record headers and gaps of a spool: what decodes is encoded to the same bytes again.
pub fn spool_record(bytes: &[u8]) {
    crate::spool::record::fuzz(bytes);
}

/// `agent.toml`; what is taken also makes settings for the job manager.
pub fn config(text: &str) -> Option<Config> {
    let config = Config::parse(Path::new("agent.toml"), text).ok()?;
    let jobs = config.jobs.for_data_dir(Path::new("/d"));
    assert!(jobs.max_jobs >= 1);
    Some(config)
}

/// The file that holds what the hub said at the enrolment. Says whether it was taken.
pub fn enrolment(path: &Path) -> bool {
    crate::identity::fuzz(path)
}

/// The kernel's list of mounts.
pub fn mounts(mountinfo: &[u8]) {
    crate::facts::disks::fuzz(mountinfo);
}

/// The kernel's list of mounts and of the agent's control groups.
pub fn cgroups(mountinfo: &str, cgroup: &str) {
    crate::cgroup::detect::fuzz(mountinfo, cgroup);
}

/// A line of `/proc/PID/stat`, in which the process chooses its own name.
pub fn process(line: &[u8]) {
    if let Some(stat) = crate::process::tree::parse(line) {
        // A byte that is not UTF-8 becomes a character of three.
        assert!(stat.comm.len() <= 3 * line.len());
    }
}

//! What the host says about itself: read from the kernel's own files, bounded, and stripped of control characters.
//!
//! Everything below a root directory that the caller names, so that tests hand in a directory of fixtures. A source
//! that is missing or odd leaves its fact empty: facts describe, they never stop the agent.

pub(crate) mod disks;
mod network;
mod system;
mod text;
mod virtualisation;

use std::path::Path;

use datacentered_proto::ops::host::{Disk, Facts};
use serde::Deserialize;

use crate::range::Range;

/// The version that the agent reports.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bounds on what is collected; `[facts]` in `agent.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FactsConfig {
    /// How often the facts are looked at again while the link is up, in seconds; they are sent where they changed.
    pub interval_s: u64,
    /// How long one look may take, in seconds, before the agent goes on without it (a dead disk can hang `statvfs`).
    pub timeout_s: u64,
    /// Most file systems told.
    pub max_disks: usize,
    /// Most addresses told.
    pub max_addresses: usize,
    /// Longest single text, in bytes.
    pub max_text_bytes: usize,
    /// How far the free space of a file system must move before it counts as a change, in thousandths of its size.
    pub free_space_step_permille: u64,
}

impl Default for FactsConfig {
    fn default() -> Self {
        Self {
            interval_s: 60,
            timeout_s: 10,
            max_disks: 32,
            max_addresses: 64,
            max_text_bytes: 256,
            free_space_step_permille: 10,
        }
    }
}

impl FactsConfig {
    pub(crate) fn ranges(&self) -> Vec<Range> {
        vec![
            Range::new("facts.interval_s", self.interval_s, 1, 86_400),
            Range::new("facts.timeout_s", self.timeout_s, 1, 3_600),
            // Their product has to fit into one message.
            Range::new("facts.max_disks", self.max_disks as u64, 0, 128),
            Range::new("facts.max_addresses", self.max_addresses as u64, 0, 256),
            Range::new("facts.max_text_bytes", self.max_text_bytes as u64, 16, 512),
            Range::new("facts.free_space_step_permille", self.free_space_step_permille, 0, 1000),
        ]
    }
}

/// The facts of this host, now. Blocks on the file system; call it where blocking is allowed.
pub fn of_this_host(config: &FactsConfig) -> Facts {
    let mut facts = below(Path::new("/"), virtualisation::cpu_vendor().as_deref(), config);
    facts.addresses = network::addresses(config);
    facts
}

/// The facts that the files below `root` tell; addresses are not among them. `cpu_vendor` is what the processor
/// says about its hypervisor.
fn below(root: &Path, cpu_vendor: Option<&str>, config: &FactsConfig) -> Facts {
    let mut facts = Facts { agent_version: AGENT_VERSION.to_owned(), ..Facts::default() };
    system::fill(root, config, &mut facts);
    facts.disks = disks::mounted(root, config);
    facts.virtualisation = virtualisation::detect(root, cpu_vendor);
    facts
}

/// Whether `now` differs from what the hub was `told` in more than noise.
///
/// Free space moves all the time and the boot time trembles as the clock is corrected; a host whose log file grew by a
/// line has not changed.
pub fn changed(told: &Facts, now: &Facts, config: &FactsConfig) -> bool {
    let without_noise = |facts: &Facts| Facts { disks: Vec::new(), booted: None, ..facts.clone() };
    if without_noise(told) != without_noise(now) || told.disks.len() != now.disks.len() {
        return true;
    }
    told.disks.iter().zip(&now.disks).any(|(a, b)| disk_changed(a, b, config.free_space_step_permille))
}

fn disk_changed(told: &Disk, now: &Disk, step_permille: u64) -> bool {
    let same_disk = told.mount == now.mount
        && told.device == now.device
        && told.fs == now.fs
        && told.total_bytes == now.total_bytes;
    let step = (now.total_bytes / 1000).saturating_mul(step_permille).max(1);
    !same_disk || told.free_bytes.abs_diff(now.free_bytes) >= step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_free(free_bytes: u64) -> Facts {
        let disk = Disk { mount: "/".into(), total_bytes: 1_000_000, free_bytes, ..Disk::default() };
        Facts { hostname: "a".into(), disks: vec![disk], ..Facts::default() }
    }

    #[test]
    fn small_moves_of_free_space_are_no_change() {
        let config = FactsConfig::default();
        assert!(!changed(&with_free(500_000), &with_free(509_999), &config));
        assert!(changed(&with_free(500_000), &with_free(510_000), &config));
        assert!(changed(&with_free(500_000), &with_free(0), &config));
    }

    #[test]
    fn a_trembling_boot_time_is_no_change_and_a_new_boot_is() {
        use datacentered_proto::Timestamp;
        let config = FactsConfig::default();
        let one =
            Facts { boot_id: "x".into(), booted: Some(Timestamp::from_millis(1000)), ..Facts::default() };
        let same = Facts { booted: Some(Timestamp::from_millis(2000)), ..one.clone() };
        let rebooted = Facts { boot_id: "y".into(), ..one.clone() };
        assert!(!changed(&one, &same, &config));
        assert!(changed(&one, &rebooted, &config));
    }

    #[test]
    fn an_empty_root_gives_facts_and_no_failure() {
        let root = tempfile::tempdir().expect("tempdir");
        let facts = below(root.path(), None, &FactsConfig::default());
        assert_eq!(facts.agent_version, AGENT_VERSION);
        assert_eq!(facts.virtualisation, "none");
        assert!(facts.disks.is_empty());
    }

    #[test]
    fn this_host_has_facts() {
        let facts = of_this_host(&FactsConfig::default());
        assert!(facts.cpus > 0 && facts.memory_bytes > 0, "{facts:?}");
        assert!(!facts.kernel.is_empty() && !facts.arch.is_empty() && !facts.virtualisation.is_empty());
        assert!(facts.addresses.iter().all(|address| !address.address.starts_with("127.")));
    }
}

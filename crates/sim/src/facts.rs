//! What simulated hosts say about themselves.

use datacentered_agent_lib::facts::AGENT_VERSION;
use datacentered_link::clock::Clock;
use datacentered_proto::ops::host::{Address, Disk, Facts, PolicyFacts};

/// The distributions that hosts have, as a fleet that has grown over years.
const SYSTEMS: &[(&str, &str, &str, &str)] = &[
    ("debian", "12", "Debian GNU/Linux 12 (bookworm)", "6.1.0-40-amd64"),
    ("debian", "13", "Debian GNU/Linux 13 (trixie)", "6.12.48-amd64"),
    ("ubuntu", "24.04", "Ubuntu 24.04 LTS", "6.8.0-31-generic"),
    ("almalinux", "9.4", "AlmaLinux 9.4", "5.14.0-427.el9.x86_64"),
];

/// Processors and memory (GiB) of the machines that there are.
const SIZES: &[(u32, u64)] = &[(4, 16), (8, 64), (32, 256), (64, 512)];

/// Facts that follow from the host's number and what its clock draws.
pub(crate) fn of(index: usize, name: &str, boot_id: &str, clock: &Clock) -> Facts {
    let pick = |length: usize| (clock.random() % length.max(1) as u64) as usize;
    let (os_id, os_version, os_name, kernel) = SYSTEMS.get(pick(SYSTEMS.len())).copied().unwrap_or_default();
    let (cpus, memory_gib) = SIZES.get(pick(SIZES.len())).copied().unwrap_or_default();
    let booted = clock.wall().plus_millis(-((clock.random() % (90 * 24 * 3_600_000)) as i64));
    let total_bytes = memory_gib << 34;
    let [_, second, third, fourth] = (index as u32).to_be_bytes();
    Facts {
        hostname: name.to_owned(),
        os_id: os_id.to_owned(),
        os_version: os_version.to_owned(),
        os_name: os_name.to_owned(),
        kernel: kernel.to_owned(),
        arch: "x86_64".to_owned(),
        cpu_model: "simulated".to_owned(),
        cpus,
        memory_bytes: memory_gib << 30,
        swap_bytes: 0,
        disks: vec![Disk {
            mount: "/".to_owned(),
            device: "/dev/vda1".to_owned(),
            fs: "ext4".to_owned(),
            total_bytes,
            free_bytes: clock.random() % total_bytes.max(1),
        }],
        addresses: vec![Address {
            interface: "eth0".to_owned(),
            address: format!("10.{second}.{third}.{fourth}"),
        }],
        virtualisation: "none".to_owned(),
        agent_version: AGENT_VERSION.to_owned(),
        boot_id: boot_id.to_owned(),
        policy: PolicyFacts { default: "allow".to_owned(), ..PolicyFacts::default() },
        booted: Some(booted),
    }
}

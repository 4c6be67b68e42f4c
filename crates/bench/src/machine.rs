//! What was measured on, and with what.

use std::fs;
use std::process::Command;

/// Machine and versions, one line each.
pub(crate) fn describe() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once([':', '=']).map(|(_, value)| value.trim().trim_matches('"').to_owned())
    };
    let (cpus, memory, system) = (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/etc/os-release"));
    let unknown = || "unknown".to_owned();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory_kib = field(&memory, "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default();
    vec![
        format!("{count} processors: {}", field(&cpus, "model name").unwrap_or_else(unknown)),
        format!("{} MiB of memory", memory_kib / 1024),
        format!(
            "{}, Linux {}",
            field(&system, "PRETTY_NAME").unwrap_or_else(unknown),
            read("/proc/sys/kernel/osrelease").trim()
        ),
        format!(
            "DataCentered {} ({})",
            env!("CARGO_PKG_VERSION"),
            if cfg!(debug_assertions) { "debug" } else { "release" }
        ),
        ssh_version().unwrap_or_else(unknown),
    ]
}

fn ssh_version() -> Option<String> {
    let output = Command::new("ssh").arg("-V").output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

//! Distribution, kernel, processors, memory and boot.

use std::path::Path;

use datacentered_proto::Timestamp;
use datacentered_proto::ops::host::Facts;

use super::FactsConfig;
use super::text::text;
use crate::text::clean;

/// Fills in everything that is neither a disk, an address nor virtualisation.
pub(super) fn fill(root: &Path, config: &FactsConfig, facts: &mut Facts) {
    let max = config.max_text_bytes;
    let uname = rustix::system::uname();
    facts.hostname = clean(&uname.nodename().to_string_lossy(), max);
    facts.kernel = clean(&uname.release().to_string_lossy(), max);
    facts.arch = clean(&uname.machine().to_string_lossy(), max);
    distribution(root, max, facts);
    processors(&text(root, "/proc/cpuinfo"), max, facts);
    memory(&text(root, "/proc/meminfo"), facts);
    facts.boot_id = clean(&text(root, "/proc/sys/kernel/random/boot_id"), max);
    facts.booted = boot_time(&text(root, "/proc/stat"));
}

fn distribution(root: &Path, max: usize, facts: &mut Facts) {
    // The order that os-release(5) gives.
    let mut release = text(root, "/etc/os-release");
    if release.is_empty() {
        release = text(root, "/usr/lib/os-release");
    }
    for line in release.lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let field = match key {
            "ID" => &mut facts.os_id,
            "VERSION_ID" => &mut facts.os_version,
            "PRETTY_NAME" => &mut facts.os_name,
            _ => continue,
        };
        *field = clean(&unquote(value), max);
    }
}

/// A value as a shell would read it: quotes taken off, backslash escapes undone.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let inner = match quote {
        Some(quote) => value.strip_prefix(quote).map_or(value, |v| v.strip_suffix(quote).unwrap_or(v)),
        None => value,
    };
    if quote == Some('\'') {
        return inner.to_owned();
    }
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

fn processors(cpuinfo: &str, max: usize, facts: &mut Facts) {
    let mut model = "";
    let mut board = "";
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "processor" => facts.cpus += 1,
            "model name" if model.is_empty() => model = value,
            // ARM and RISC-V kernels name the board rather than the processor.
            "Model" | "Hardware" | "uarch" | "cpu" if board.is_empty() => board = value,
            _ => {}
        }
    }
    facts.cpu_model = clean(if model.is_empty() { board } else { model }, max);
}

fn memory(meminfo: &str, facts: &mut Facts) {
    for line in meminfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let kib = || value.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
        match key {
            "MemTotal" => facts.memory_bytes = kib().unwrap_or(0).saturating_mul(1024),
            "SwapTotal" => facts.swap_bytes = kib().unwrap_or(0).saturating_mul(1024),
            _ => {}
        }
    }
}

fn boot_time(stat: &str) -> Option<Timestamp> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(Timestamp::from_millis(line.trim().parse::<i64>().ok()?.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::text::at;

    fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("tempdir");
        for (path, content) in files {
            let path = at(root.path(), path);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            std::fs::write(path, content).expect("writes");
        }
        root
    }

    fn facts(files: &[(&str, &str)]) -> Facts {
        let mut facts = Facts::default();
        fill(fixture(files).path(), &FactsConfig::default(), &mut facts);
        facts
    }

    #[test]
    fn a_debian_host() {
        let facts = facts(&[
            (
                "/etc/os-release",
                "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
            ),
            (
                "/proc/cpuinfo",
                "processor\t: 0\nmodel name\t: AMD EPYC 7302P\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 7302P\n",
            ),
            ("/proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\nSwapTotal:      1024 kB\n"),
            ("/proc/stat", "cpu  1 2 3\nbtime 1700000000\n"),
            ("/proc/sys/kernel/random/boot_id", "0f0c\n"),
        ]);
        assert_eq!(
            (facts.os_id.as_str(), facts.os_version.as_str(), facts.os_name.as_str()),
            ("debian", "12", "Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!((facts.cpus, facts.cpu_model.as_str()), (2, "AMD EPYC 7302P"));
        assert_eq!((facts.memory_bytes, facts.swap_bytes), (16 << 20, 1 << 20));
        assert_eq!(facts.booted.map(Timestamp::as_millis), Some(1_700_000_000_000));
        assert_eq!(facts.boot_id, "0f0c");
    }

    #[test]
    fn the_vendor_file_counts_where_etc_has_none_and_arm_names_its_board() {
        let facts = facts(&[
            ("/usr/lib/os-release", "ID='alpine'\nPRETTY_NAME=\"A \\\"quoted\\\" name\"\n"),
            ("/proc/cpuinfo", "processor : 0\nBogoMIPS : 1\nModel : Raspberry Pi 4\n"),
        ]);
        assert_eq!((facts.os_id.as_str(), facts.os_name.as_str()), ("alpine", "A \"quoted\" name"));
        assert_eq!(facts.cpu_model, "Raspberry Pi 4");
    }

    #[test]
    fn odd_files_leave_facts_empty() {
        let facts = facts(&[
            ("/etc/os-release", "ID=\"\nVERSION_ID\n=\n\x1b[0m=\nPRETTY_NAME=\"x\x1b[2Jy\n"),
            ("/proc/meminfo", "MemTotal: lots\nSwapTotal:\n"),
            ("/proc/stat", "btime 99999999999999999999\n"),
        ]);
        assert_eq!((facts.os_id.as_str(), facts.os_name.as_str()), ("", "x[2Jy"));
        assert_eq!((facts.memory_bytes, facts.booted), (0, None));
    }
}

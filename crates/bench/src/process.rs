//! Processor time and memory of processes, as the kernel counts them.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};

use crate::failure::Result;

/// Parts of a second in which the kernel tells processor time to programs: the same on every Linux.
const TICKS: f64 = 100.0;

/// What the kernel says about a process in one line.
struct Stat {
    state: char,
    parent: u32,
    /// Its own time, and that of its children that have ended and were waited for.
    ticks: u64,
    /// Only the latter.
    children_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name stands in parentheses and may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let children_ticks = number(13)? + number(14)?;
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)? + children_ticks,
            children_ticks,
        })
    }
}

/// Makes this process the parent of whatever its descendants leave behind, such as shims, so that their time is counted.
pub(crate) fn adopt_orphans() -> Result<()> {
    let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or_default());
    set_child_subreaper(own).map_err(|error| std::io::Error::from(error).into())
}

/// Takes note of adopted processes that have ended. `ours` are waited for elsewhere.
fn reap(ours: &[u32]) {
    for pid in processes() {
        let Some(stat) = Stat::of(pid) else { continue };
        if stat.state != 'Z' || stat.parent != std::process::id() || ours.contains(&pid) {
            continue;
        }
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It has ended; that somebody else was quicker is as good.
            waitpid(Some(pid), WaitOptions::NOHANG).ok();
        }
    }
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A process and everything below it that lives.
fn tree(root: u32) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> =
        processes().into_iter().filter_map(|pid| Some((pid, Stat::of(pid)?.parent))).collect();
    let mut tree = BTreeSet::from([root]);
    loop {
        let before = tree.len();
        tree.extend(
            parents
                .iter()
                .filter(|(_, parent)| tree.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if tree.len() == before {
            return tree;
        }
    }
}

/// Processor time in seconds that these processes, all below them, and all children of ours that have ended took until now.
/// Two marks with only one side at work between them tell what that side took.
pub(crate) fn cpu(roots: &[u32]) -> f64 {
    reap(roots);
    let own = Stat::of(std::process::id()).map_or(0, |stat| stat.children_ticks);
    let living: u64 =
        roots.iter().flat_map(|root| tree(*root)).filter_map(Stat::of).map(|stat| stat.ticks).sum();
    (own + living) as f64 / TICKS
}

/// Processor time of this process alone, in seconds.
pub(crate) fn own_cpu() -> f64 {
    let ticks = Stat::of(std::process::id()).map_or(0, |stat| stat.ticks - stat.children_ticks);
    ticks as f64 / TICKS
}

/// Resident memory of a process in bytes; none where it has gone.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_from_behind_the_name() {
        let line = "12 (a) 1 (b) S 7 12 12 0 -1 4194560 1 2 3 4 250 150 10 20 20 0 8 0 100 1000 10";
        let stat = Stat::parse(line).expect("parses");
        assert_eq!((stat.state, stat.parent, stat.ticks, stat.children_ticks), ('S', 7, 430, 30));
        assert!(Stat::parse("12 (a").is_none());
    }

    #[test]
    fn this_process_has_figures() {
        assert!(resident(std::process::id()).expect("there") > 100_000);
        assert!(tree(std::process::id()).contains(&std::process::id()));
        assert!(resident(u32::MAX).is_none());
    }
}

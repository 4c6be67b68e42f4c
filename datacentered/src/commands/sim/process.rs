//! What a process takes, as the kernel counts it.

use std::time::Duration;

/// Parts of a second in which the kernel tells processor time to programs: the same on every Linux.
const TICKS: u64 = 100;

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// In user and kernel mode together.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu }
    }
}

/// What a process has taken so far; none where it is not there.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    of_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn of_stat(stat: &str) -> Option<Usage> {
    // The name stands in parentheses and may hold anything; user and system time are the 14th and 15th field.
    let mut behind = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = behind.next()?.parse().ok()?;
    let system: u64 = behind.next()?.parse().ok()?;
    Some(Usage { cpu: Duration::from_millis((user + system) * 1000 / TICKS) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let stat = "12 (a) 1 (b) S 1 12 12 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 8 0 100 1000 10";
        assert_eq!(of_stat(stat), Some(Usage { cpu: Duration::from_secs(4) }));
        assert_eq!(of_stat("12 (a"), None);
    }

    #[test]
    fn this_process_has_its_figures() {
        assert!(usage(std::process::id()).is_some());
        assert_eq!(usage(u32::MAX), None);
    }
}

//! What is said about a hub that cannot be reached: each kind of failure once, then a summary at most once a minute.
//!
//! An agent tries for ever. Without this, a weekend's outage would fill the host's log.

use std::time::Duration;

use tokio::time::Instant;

/// What kind of failure kept the link from being up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No connection to the address: name, route, port, or a TLS handshake that failed.
    Unreachable,
    /// Something answered whose key is not the pinned one.
    WrongHub,
    /// The host's key was revoked, or the host removed.
    Revoked,
    /// The hub refused this host for another reason.
    Refused,
    /// The two speak different versions of the protocol.
    Incompatible,
    /// The hub is there and cannot serve now.
    Unavailable,
    /// A link that was up broke.
    LinkLost,
    /// The hub closed a link that was up.
    Closed,
    /// The hub announced that it goes down.
    Draining,
}

impl FailureKind {
    /// The stable word for programs: the `reason` of a `disconnected` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::WrongHub => "wrong_hub",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
            Self::Incompatible => "incompatible",
            Self::Unavailable => "unavailable",
            Self::LinkLost => "link_lost",
            Self::Closed => "closed",
            Self::Draining => "draining",
        }
    }

    /// Whether trying again soon cannot help: somebody has to do something first.
    pub fn needs_a_person(self) -> bool {
        matches!(self, Self::WrongHub | Self::Revoked | Self::Refused | Self::Incompatible)
    }
}

/// What to say about one failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// All of it: the first of its kind since the link was up.
    InFull,
    /// How it has been going.
    Summary {
        /// Attempts that failed since the link was up.
        attempts: u64,
        /// Since when.
        down_for: Duration,
    },
    /// Nothing this time.
    Nothing,
}

/// Remembers what has been said since the link was last up.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    seen: Vec<FailureKind>,
    attempts: u64,
    since: Option<Instant>,
    last_said: Option<Instant>,
}

impl FailureLog {
    /// Counts a failure and decides what to say about it. The loss of a link that was up is always news.
    pub(super) fn failed(
        &mut self,
        kind: FailureKind,
        was_up: bool,
        now: Instant,
        summary_every: Duration,
    ) -> Say {
        if was_up {
            *self = Self::default();
        }
        self.attempts += 1;
        let since = *self.since.get_or_insert(now);
        if !self.seen.contains(&kind) {
            // Bounded by the number of kinds.
            self.seen.push(kind);
            self.last_said = Some(now);
            return Say::InFull;
        }
        if self.last_said.is_some_and(|said| now.duration_since(said) < summary_every) {
            return Say::Nothing;
        }
        self.last_said = Some(now);
        Say::Summary { attempts: self.attempts, down_for: now.duration_since(since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn each_kind_once_then_a_summary_a_minute() {
        let (mut log, start) = (FailureLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut failed = |kind, seconds| log.failed(kind, kind == FailureKind::LinkLost, at(seconds), MINUTE);
        assert_eq!(failed(FailureKind::LinkLost, 0), Say::InFull);
        assert_eq!(failed(FailureKind::Unreachable, 1), Say::InFull);
        assert_eq!(failed(FailureKind::Unreachable, 2), Say::Nothing);
        assert_eq!(failed(FailureKind::Unavailable, 3), Say::InFull);
        assert_eq!(failed(FailureKind::Unreachable, 62), Say::Nothing);
        let summary = Say::Summary { attempts: 6, down_for: Duration::from_secs(63) };
        assert_eq!(failed(FailureKind::Unreachable, 63), summary);
        assert_eq!(failed(FailureKind::Unreachable, 64), Say::Nothing);
        // Up in between, and lost again: that is said each time, and what follows is news again.
        assert_eq!(failed(FailureKind::LinkLost, 65), Say::InFull);
        assert_eq!(failed(FailureKind::Unreachable, 66), Say::InFull);
        assert_eq!(failed(FailureKind::LinkLost, 67), Say::InFull);
    }

    #[test]
    fn words_are_distinct() {
        use FailureKind as K;
        let all = [
            K::Unreachable,
            K::WrongHub,
            K::Revoked,
            K::Refused,
            K::Incompatible,
            K::Unavailable,
            K::LinkLost,
            K::Closed,
            K::Draining,
        ];
        let words: std::collections::HashSet<_> = all.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), all.len());
    }
}

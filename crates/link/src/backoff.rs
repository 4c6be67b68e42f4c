//! When to connect again: exponential with full jitter, a cap, and what the hub asked for.
//!
//! Pure: it reads no clock and draws no randomness; both are handed in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long to wait between attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The longest wait before the second attempt, in milliseconds; it doubles with each failure.
    pub base_ms: u64,
    /// No wait drawn here is longer, in milliseconds.
    pub cap_ms: u64,
    /// A connection that held this long makes the next failure count as the first, in milliseconds.
    pub stable_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { base_ms: 500, cap_ms: 30_000, stable_ms: 60_000 }
    }
}

/// The longest "retry after" that is believed, so that a faulty hub cannot send its hosts away for ever.
pub const MAX_RETRY_AFTER: Duration = Duration::from_mins(15);

/// The state of one peer's attempts to connect.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
    connected_at: Option<Duration>,
    slot: Option<Duration>,
    retry_after: Option<Duration>,
}

impl Backoff {
    /// Nothing has failed yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, failures: 0, connected_at: None, slot: None, retry_after: None }
    }

    /// A connection stands since `now` (on a clock that only goes forward, such as [`crate::clock::Clock::boot`]).
    pub fn connected(&mut self, now: Duration) {
        self.connected_at = Some(now);
    }

    /// The delay that the hub has drawn for this peer, to be used once when the connection is lost: so a whole fleet comes
    /// back spread out, as the hub can bear it.
    pub fn set_slot(&mut self, slot: Duration) {
        self.slot = Some(slot.min(MAX_RETRY_AFTER));
    }

    /// The other side asked not to be called again earlier. Believed up to [`MAX_RETRY_AFTER`].
    pub fn set_retry_after(&mut self, after: Duration) {
        self.retry_after = Some(after.min(MAX_RETRY_AFTER));
    }

    /// How long to wait from `now` on before the next attempt, after an attempt failed or a connection was lost.
    ///
    /// `random` is uniform over all of `u64`. The result is at most the cap, except where the hub asked for more.
    pub fn next(&mut self, now: Duration, random: u64) -> Duration {
        let held = self.connected_at.take().map(|since| now.saturating_sub(since));
        if held.is_some_and(|held| held >= Duration::from_millis(self.policy.stable_ms)) {
            self.failures = 0;
        }
        let longest = self.longest();
        self.failures = self.failures.saturating_add(1);
        let drawn = fraction(longest, random);
        // The slot is for a connection that was good; after failures the drawn delay is the better spread.
        let slot = if held.is_some() { self.slot.take() } else { None };
        slot.unwrap_or(drawn).max(self.retry_after.take().unwrap_or_default())
    }

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The longest wait that the next draw can give.
    fn longest(&self) -> Duration {
        let doubled = 1u64.checked_shl(self.failures).filter(|_| self.failures < 64).unwrap_or(u64::MAX);
        Duration::from_millis(self.policy.base_ms.saturating_mul(doubled).min(self.policy.cap_ms))
    }
}

/// `random / 2^64` of `whole`, in whole milliseconds.
fn fraction(whole: Duration, random: u64) -> Duration {
    let product = whole.as_millis().saturating_mul(u128::from(random)) >> 64;
    Duration::from_millis(u64::try_from(product).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: u64 = u64::MAX;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(Policy { base_ms: 500, cap_ms: 30_000, stable_ms: 60_000 });
        let waits: Vec<u128> = (0..9).map(|_| backoff.next(seconds(0), MAX).as_millis()).collect();
        assert_eq!(waits, [499, 999, 1999, 3999, 7999, 15999, 29999, 29999, 29999]);
    }

    #[test]
    fn a_stable_minute_forgets_failures_and_less_does_not() {
        let mut backoff = Backoff::new(Policy::default());
        for _ in 0..8 {
            backoff.next(seconds(0), MAX);
        }
        backoff.connected(seconds(100));
        assert!(backoff.next(seconds(159), MAX) > seconds(20));
        backoff.connected(seconds(200));
        assert!(backoff.next(seconds(260), MAX) < seconds(1));
    }

    #[test]
    fn the_hubs_slot_counts_once_and_only_after_a_connection() {
        let mut backoff = Backoff::new(Policy::default());
        backoff.set_slot(seconds(7));
        assert!(backoff.next(seconds(0), MAX) < seconds(1), "never connected");
        backoff.connected(seconds(0));
        assert_eq!(backoff.next(seconds(1), 0), seconds(7));
        backoff.connected(seconds(2));
        assert!(backoff.next(seconds(3), 0) < seconds(7));
    }

    #[test]
    fn retry_after_is_a_lower_bound_within_reason() {
        let mut backoff = Backoff::new(Policy::default());
        backoff.set_retry_after(seconds(40));
        assert_eq!(backoff.next(seconds(0), 0), seconds(40));
        backoff.set_retry_after(seconds(1_000_000));
        assert_eq!(backoff.next(seconds(0), 0), MAX_RETRY_AFTER);
        assert_eq!(backoff.next(seconds(0), 0), seconds(0));
    }

    proptest! {
        #[test]
        fn never_over_the_cap_and_never_panics(
            base_ms: u64, cap_ms in 0..1u64 << 40, stable_ms: u64,
            draws in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<bool>()), 0..200),
        ) {
            let mut backoff = Backoff::new(Policy { base_ms, cap_ms, stable_ms });
            for (random, now, connect) in draws {
                let now = Duration::from_secs(u64::from(now));
                if connect {
                    backoff.connected(now);
                }
                prop_assert!(backoff.next(now, random) <= Duration::from_millis(cap_ms));
            }
        }

        #[test]
        fn the_whole_range_is_used(failures in 0u32..10, random: u64) {
            let mut backoff = Backoff::new(Policy::default());
            for _ in 0..failures {
                backoff.next(Duration::ZERO, 0);
            }
            let (low, high) = (backoff.clone().next(Duration::ZERO, 0), backoff.clone().next(Duration::ZERO, MAX));
            let drawn = backoff.next(Duration::ZERO, random);
            prop_assert!(low == Duration::ZERO && drawn <= high);
        }
    }
}

//! How often something may fail, by key, in a fixed amount of memory.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};

/// Counters. Two keys that share one share their limit; the keyed hash keeps others from choosing who that is.
const CELLS: usize = 16 * 1024;

/// A limit by key (the generic cell rate algorithm): `burst` at once, then one more after each interval.
///
/// The table never grows and nothing in it is ever forgotten early, so that no flood of addresses can make room for
/// itself.
pub struct Limiter {
    /// For each cell the moment at which it would be empty again, in milliseconds.
    cells: Box<[AtomicI64]>,
    keys: RandomState,
    burst: i64,
    interval_ms: i64,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter")
            .field("burst", &self.burst)
            .field("interval_ms", &self.interval_ms)
            .finish_non_exhaustive()
    }
}

/// What was taken; gives it back when it turns out not to count.
#[derive(Debug)]
#[must_use]
pub struct Taken<'a> {
    cell: &'a AtomicI64,
    interval_ms: i64,
}

impl Taken<'_> {
    /// It did not count after all.
    pub fn give_back(self) {
        self.cell.fetch_sub(self.interval_ms, Ordering::Relaxed);
    }
}

impl Limiter {
    /// `burst` at once, then one more every `interval_ms`.
    pub fn new(burst: u32, interval_ms: u64) -> Self {
        Self {
            cells: (0..CELLS).map(|_| AtomicI64::new(i64::MIN)).collect(),
            keys: RandomState::new(),
            burst: i64::from(burst.max(1)),
            interval_ms: i64::try_from(interval_ms).unwrap_or(i64::MAX / (1 << 20)).max(1),
        }
    }

    /// Takes one for `key` at the moment `now_ms` of a clock that never goes back. The error is when to try again, in
    /// milliseconds from now.
    pub fn take(&self, key: &impl Hash, now_ms: i64) -> Result<Taken<'_>, u64> {
        let index = self.keys.hash_one(key) as usize % CELLS;
        let cell = &self.cells[index];
        let room = self.interval_ms.saturating_mul(self.burst);
        let step = |empty_at: i64| {
            let next = empty_at.max(now_ms).saturating_add(self.interval_ms);
            (next.saturating_sub(now_ms) <= room).then_some(next)
        };
        match cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(_) => Ok(Taken { cell, interval_ms: self.interval_ms }),
            Err(empty_at) => {
                let wait =
                    empty_at.saturating_add(self.interval_ms).saturating_sub(now_ms).saturating_sub(room);
                Err(wait.max(1).unsigned_abs())
            }
        }
    }
}

/// What counts as one address: for IPv6 the /64, which one customer has whole.
pub(crate) fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_by_one() {
        let limiter = Limiter::new(3, 100);
        for _ in 0..3 {
            let _ = limiter.take(&"a", 1000).expect("in the burst");
        }
        assert_eq!(limiter.take(&"a", 1000).expect_err("over"), 100);
        assert_eq!(limiter.take(&"a", 1060).expect_err("still over"), 40);
        let _ = limiter.take(&"a", 1100).expect("one more");
        assert!(limiter.take(&"a", 1100).is_err());
        let _ = limiter.take(&"b", 1100).expect("another key has its own");
    }

    #[test]
    fn what_did_not_count_is_given_back() {
        let limiter = Limiter::new(1, 1000);
        for _ in 0..10 {
            limiter.take(&1, 5).expect("free").give_back();
        }
    }

    #[test]
    fn addresses() {
        let key = |text: &str| address_key(text.parse().expect("parses"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::2:3"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}

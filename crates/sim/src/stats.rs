//! What a fleet has done and seen, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most durations kept of one kind; later ones replace the oldest.
const MOST_SAMPLES: usize = 100_000;

/// Durations, for percentiles.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<(Vec<Duration>, usize)>);

impl Samples {
    pub(crate) fn add(&self, duration: Duration) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, next) = &mut *samples;
        if kept.len() < MOST_SAMPLES {
            kept.push(duration);
        } else if let Some(oldest) = kept.get_mut(*next % MOST_SAMPLES) {
            *oldest = duration;
        }
        *next = next.wrapping_add(1);
    }

    fn take(&self) -> Vec<Duration> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.1 = 0;
        std::mem::take(&mut samples.0)
    }
}

/// The counters that all hosts of a fleet share.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) enrolled: AtomicU64,
    pub(crate) online: AtomicU64,
    pub(crate) steady_online: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) offers: AtomicU64,
    pub(crate) repeated_offers: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) reports: AtomicU64,
    pub(crate) output_bytes: AtomicU64,
    pub(crate) lies_told: AtomicU64,
    pub(crate) lies_refused: AtomicU64,
    pub(crate) lies_believed: AtomicU64,
    pub(crate) connecting: Samples,
    pub(crate) away: Samples,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts one less.
pub(crate) fn uncount(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}

impl Stats {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            enrolled: read(&self.enrolled),
            online: read(&self.online),
            steady_online: read(&self.steady_online),
            connects: read(&self.connects),
            lost: read(&self.lost),
            unreachable: read(&self.unreachable),
            refused: read(&self.refused),
            offers: read(&self.offers),
            repeated_offers: read(&self.repeated_offers),
            ended: read(&self.ended),
            reports: read(&self.reports),
            output_bytes: read(&self.output_bytes),
            lies_told: read(&self.lies_told),
            lies_refused: read(&self.lies_refused),
            lies_believed: read(&self.lies_believed),
        }
    }

    /// How long connecting took since this was asked last: from dialling to the hub's greeting.
    pub(crate) fn take_connecting(&self) -> Spread {
        Spread::of(self.connecting.take())
    }

    /// How long hosts were away since this was asked last: from the loss of a link to the greeting over the next.
    pub(crate) fn take_away(&self) -> Spread {
        Spread::of(self.away.take())
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Hosts that have joined.
    pub enrolled: u64,
    /// Hosts whose link is up.
    pub online: u64,
    /// Those of them whose fault it is not to break it.
    pub steady_online: u64,
    /// Links that were greeted.
    pub connects: u64,
    /// Links that ended and were not ended here.
    pub lost: u64,
    /// Attempts at which nobody answered: the hub was not there.
    pub unreachable: u64,
    /// Attempts that the hub, being there, did not complete.
    pub refused: u64,
    /// Offers of jobs taken.
    pub offers: u64,
    /// Offers of jobs that the host had already.
    pub repeated_offers: u64,
    /// Jobs that ended on their hosts.
    pub ended: u64,
    /// Reports that the hub has answered.
    pub reports: u64,
    /// Bytes of output sent.
    pub output_bytes: u64,
    /// False reports sent and answered.
    pub lies_told: u64,
    /// False reports that the hub refused.
    pub lies_refused: u64,
    /// False reports that the hub took.
    pub lies_believed: u64,
}

/// How durations spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many there are; all else is zero where there are none.
    pub count: usize,
    /// Half of them are no longer.
    pub p50: Duration,
    /// 95 of 100 are no longer.
    pub p95: Duration,
    /// 99 of 100 are no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    /// Of these durations, in any order.
    pub fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |percent: usize| {
            // The smallest that at least so many of a hundred do not exceed.
            let rank = (all.len() * percent).div_ceil(100).max(1);
            all.get(rank - 1).copied().unwrap_or_default()
        };
        Self {
            count: all.len(),
            p50: at(50),
            p95: at(95),
            p99: at(99),
            max: all.last().copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let ms = Duration::from_millis;
        let spread = Spread::of((1..=200).rev().map(ms).collect());
        assert_eq!(spread, Spread { count: 200, p50: ms(100), p95: ms(190), p99: ms(198), max: ms(200) });
        assert_eq!(Spread::of(vec![ms(7)]).p50, ms(7));
        assert_eq!(Spread::of(vec![]), Spread::default());
    }

    #[test]
    fn samples_are_bounded_and_taken_once() {
        let samples = Samples::default();
        for n in 0..MOST_SAMPLES as u64 + 10 {
            samples.add(Duration::from_nanos(n));
        }
        let kept = samples.take();
        assert_eq!(kept.len(), MOST_SAMPLES);
        assert!(kept.contains(&Duration::from_nanos(MOST_SAMPLES as u64 + 9)));
        assert!(!kept.contains(&Duration::ZERO), "the oldest made room");
        assert!(samples.take().is_empty());
    }
}

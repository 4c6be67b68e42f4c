//! The one place where time is read, and where ids that carry time are made.
//!
//! Timers (sleeping, timeouts) come from tokio, whose clock tests can pause.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use datacentered_proto::ids::uuid_v7;
use datacentered_proto::{OperationKey, RunId, Timestamp};
use uuid::Uuid;

/// A source of time and of fresh ids. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated(Arc<Mutex<Simulated>>),
}

#[derive(Debug)]
struct Simulated {
    /// Wall clock minus boot clock, in milliseconds.
    wall_ms: i64,
    boot: Duration,
    /// Where boot time also goes on with tokio's clock: since when.
    follows: Option<tokio::time::Instant>,
    random: u64,
}

impl Simulated {
    fn boot(&self) -> Duration {
        self.boot + self.follows.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl Clock {
    /// The system's clocks and randomness.
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// Stands at `start` until it is moved with [`Self::advance`]. Ids are drawn from `seed`.
    pub fn simulated(start: Timestamp, seed: u64) -> Self {
        Self::simulate(start, seed, None)
    }

    /// Begins at `start` and goes with tokio's clock, which tests can pause. Ids are drawn from `seed`.
    pub fn following_tokio(start: Timestamp, seed: u64) -> Self {
        Self::simulate(start, seed, Some(tokio::time::Instant::now()))
    }

    fn simulate(start: Timestamp, seed: u64, follows: Option<tokio::time::Instant>) -> Self {
        let simulated = Simulated { wall_ms: start.as_millis(), boot: Duration::ZERO, follows, random: seed };
        Self { source: Source::Simulated(Arc::new(Mutex::new(simulated))) }
    }

    /// The time of day. For people and records; nothing is ordered or measured by it.
    pub fn wall(&self) -> Timestamp {
        match &self.source {
            Source::System => {
                let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
                    Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                    Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
                };
                Timestamp::from_millis(ms)
            }
            Source::Simulated(simulated) => {
                let simulated = lock(simulated);
                let boot = i64::try_from(simulated.boot().as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(simulated.wall_ms.saturating_add(boot))
            }
        }
    }

    /// Time since the machine was started, sleep included; only goes forward. Deadlines are measured by it.
    pub fn boot(&self) -> Duration {
        match &self.source {
            Source::System => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                Duration::new(
                    u64::try_from(time.tv_sec).unwrap_or(0),
                    u32::try_from(time.tv_nsec).unwrap_or(0),
                )
            }
            Source::Simulated(simulated) => lock(simulated).boot(),
        }
    }

    /// A fresh time-ordered UUID (version 7).
    pub fn uuid(&self) -> Uuid {
        let ms = u64::try_from(self.wall().as_millis()).unwrap_or(0);
        let (low, high) = (self.random(), self.random());
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&low.to_be_bytes());
        bytes[8..].copy_from_slice(&high.to_be_bytes()[..2]);
        uuid_v7(ms, bytes)
    }

    /// A fresh idempotency key.
    pub fn key(&self) -> OperationKey {
        OperationKey::from_uuid(self.uuid())
    }

    /// A fresh run's id, which is also the key of its creation.
    pub fn run_id(&self) -> RunId {
        RunId::from_uuid(self.uuid())
    }

    /// A random number, uniform over all of `u64`; for jitter, not for secrets.
    pub fn random(&self) -> u64 {
        match &self.source {
            // The kernel's generator does not fail once the machine has booted; should it, the clock's digits must do.
            Source::System => getrandom::u64().unwrap_or_else(|_| mix(self.boot().as_nanos() as u64)),
            Source::Simulated(simulated) => {
                let mut simulated = lock(simulated);
                simulated.random = simulated.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(simulated.random)
            }
        }
    }

    /// Moves a simulated clock on; the system's goes by itself and is not moved.
    pub fn advance(&self, by: Duration) {
        if let Source::Simulated(simulated) = &self.source {
            let mut simulated = lock(simulated);
            simulated.boot = simulated.boot.saturating_add(by);
        }
    }

    /// Sets a simulated clock's time of day, as an administrator or NTP would; boot time does not notice.
    pub fn step_wall(&self, by_ms: i64) {
        if let Source::Simulated(simulated) = &self.source {
            let mut simulated = lock(simulated);
            simulated.wall_ms = simulated.wall_ms.saturating_add(by_ms);
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

fn lock(simulated: &Mutex<Simulated>) -> std::sync::MutexGuard<'_, Simulated> {
    simulated.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The output function of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_clocks_are_plausible() {
        let clock = Clock::system();
        assert!(clock.wall() > Timestamp::from_millis(1_700_000_000_000));
        let before = clock.boot();
        assert!(before > Duration::ZERO && clock.boot() >= before);
        assert_ne!(clock.uuid(), clock.uuid());
        assert_eq!(clock.uuid().get_version_num(), 7);
    }

    #[test]
    fn a_simulated_clock_moves_only_when_told_and_repeats_itself() {
        let start = Timestamp::from_millis(1_000);
        let (one, other) = (Clock::simulated(start, 7), Clock::simulated(start, 7));
        assert_eq!((one.wall(), one.boot()), (start, Duration::ZERO));
        one.advance(Duration::from_secs(2));
        one.step_wall(-500);
        assert_eq!((one.wall().as_millis(), one.boot()), (2_500, Duration::from_secs(2)));
        other.advance(Duration::from_millis(1_500));
        assert_eq!(one.uuid(), other.uuid());
        assert_ne!(one.uuid(), one.uuid());
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_follow_tokios_clock() {
        let clock = Clock::following_tokio(Timestamp::EPOCH, 1);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(clock.wall().as_millis(), 60_000);
    }
}

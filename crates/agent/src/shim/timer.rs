//! One timer on the clock that also counts the time a host was suspended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use datacentered_proto::Timestamp;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Time since boot, suspension included.
pub(super) fn boot_now() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

/// The host's wall clock.
pub(super) fn wall_now() -> Timestamp {
    let now = duration(clock_gettime(ClockId::Realtime));
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Becomes readable at a moment.
#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
    set_to: Option<Duration>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { fd, set_to: None })
    }

    /// Sets it to a moment since boot, or to none.
    pub(super) fn set(&mut self, at: Option<Duration>) {
        if self.set_to == at {
            return;
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A value of zero disarms; a moment that has passed fires at once.
        let it_value = at.map_or(zero, |at| Timespec {
            tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(at.subsec_nanos().max(1)),
        });
        let value = Itimerspec { it_interval: zero, it_value };
        if timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &value).is_ok() {
            self.set_to = at;
        }
    }

    /// Takes note that it fired.
    pub(super) fn clear(&mut self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
        self.set_to = None;
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

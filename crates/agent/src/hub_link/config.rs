//! `[hub]` in `agent.toml`.

use std::time::Duration;

use serde::Deserialize;

use crate::range::Range;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The way to the hub: when to try again, what to report.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// Longest wait for the answer to the first call on a connection, in milliseconds.
    pub hello_timeout_ms: u64,
    /// Longest wait for the answer to a report, in milliseconds; then it is told again.
    pub answer_timeout_ms: u64,
    /// How often to try a hub that refuses this host (its key is revoked, the versions do not fit), in milliseconds.
    pub refused_retry_ms: u64,
    /// How long a link is kept after the hub announced that it goes down, in milliseconds.
    pub drain_linger_ms: u64,
    /// How often a lasting failure is summed up in the log, in milliseconds.
    pub summary_every_ms: u64,
    /// Most reports of jobs that wait for their answer at once.
    pub reports_in_flight: usize,
    /// Wait before a report that the hub could not take is told again, in milliseconds, where the hub names none.
    pub report_retry_ms: u64,
    /// Most times that an enrolment whose answer was lost is repeated.
    pub enrol_attempts: u32,
    /// Longest time that stopping may take, in milliseconds.
    pub stop_timeout_ms: u64,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            hello_timeout_ms: 10_000,
            answer_timeout_ms: 30_000,
            refused_retry_ms: 300_000,
            drain_linger_ms: 30_000,
            summary_every_ms: 60_000,
            reports_in_flight: 16,
            report_retry_ms: 1_000,
            enrol_attempts: 3,
            stop_timeout_ms: 10_000,
        }
    }
}

impl HubConfig {
    pub(crate) fn ranges(&self) -> Vec<Range> {
        vec![
            Range::new("hub.hello_timeout_ms", self.hello_timeout_ms, 100, HOUR_MS),
            Range::new("hub.answer_timeout_ms", self.answer_timeout_ms, 100, HOUR_MS),
            Range::new("hub.refused_retry_ms", self.refused_retry_ms, 10, DAY_MS),
            Range::new("hub.drain_linger_ms", self.drain_linger_ms, 0, DAY_MS),
            Range::new("hub.summary_every_ms", self.summary_every_ms, 1_000, DAY_MS),
            Range::new("hub.reports_in_flight", self.reports_in_flight as u64, 1, 1024),
            Range::new("hub.report_retry_ms", self.report_retry_ms, 10, HOUR_MS),
            Range::new("hub.enrol_attempts", u64::from(self.enrol_attempts), 1, 100),
            Range::new("hub.stop_timeout_ms", self.stop_timeout_ms, 100, HOUR_MS),
        ]
    }

    pub(super) fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.hello_timeout_ms)
    }

    pub(super) fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.answer_timeout_ms)
    }

    pub(super) fn refused_retry(&self) -> Duration {
        Duration::from_millis(self.refused_retry_ms)
    }

    pub(super) fn drain_linger(&self) -> Duration {
        Duration::from_millis(self.drain_linger_ms)
    }

    pub(super) fn report_retry(&self) -> Duration {
        Duration::from_millis(self.report_retry_ms)
    }

    pub(super) fn summary_every(&self) -> Duration {
        Duration::from_millis(self.summary_every_ms)
    }

    /// How long to wait for everything to close when the agent stops.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.stop_timeout_ms)
    }
}

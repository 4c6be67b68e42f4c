//! The named limits of a link.

use std::time::Duration;

use datacentered_proto::limits::{BULK_CHUNK, MAX_MESSAGE};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// A link on which nothing was heard for this many heartbeats is dead.
pub const SILENCE_FACTOR: u32 = 3;

/// The other side's calls are refused when this many times `control_bytes` wait to be read by it.
pub const REFUSE_FACTOR: usize = 4;

/// What the WebSocket reads at once, in bytes. Small: it is what an idle link costs.
pub(crate) const READ_BUFFER: usize = 4 * 1024;

/// What the WebSocket gathers before it writes, in bytes.
pub(crate) const WRITE_BUFFER: usize = BULK_CHUNK;

/// Limits of one link. Values below what the protocol needs are raised to it when the link starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message in either direction, in bytes, headers included.
    pub max_message: usize,
    /// Most streams open at once, both directions together.
    pub streams_per_link: usize,
    /// Most calls waiting for their answer at once, each direction for itself. Ours wait for room; the other side's are
    /// answered `limited`.
    pub calls_in_flight: usize,
    /// A link is asked for a sign of life after this long without one, in milliseconds. After three times as long it is dead.
    pub heartbeat_ms: u64,
    /// Longest time to connect, shake hands and upgrade, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// What a stream's reader lets the other side send before it has taken it, in bytes.
    pub stream_window: u64,
    /// What waits at most in one stream's lane for its turn on the wire, in bytes (one message may exceed it).
    pub stream_lane: usize,
    /// Most frames that wait for a stream's reader, so that tiny frames cannot cost more than the window.
    pub stream_events: usize,
    /// Frames in the control lane above which nothing more is read from the connection until they are written.
    pub control_queue: usize,
    /// Bytes in the control lane above which our own calls and late answers wait. At four times as much ([`REFUSE_FACTOR`])
    /// the other side's calls are answered `limited`.
    pub control_bytes: usize,
    /// Longest time that closing in good order may take, in milliseconds.
    pub close_timeout_ms: u64,
    /// How long handlers may go on after the connection has ended before they are dropped, in milliseconds.
    pub drain_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message: MAX_MESSAGE,
            streams_per_link: 2048,
            calls_in_flight: 1024,
            heartbeat_ms: 8_000,
            handshake_timeout_ms: 10_000,
            stream_window: 256 * 1024,
            stream_lane: 64 * 1024,
            stream_events: 8192,
            control_queue: 8192,
            control_bytes: 1024 * 1024,
            close_timeout_ms: 2_000,
            drain_timeout_ms: 2_000,
        }
    }
}

impl Limits {
    /// After how long without a sign of life the other side is asked for one.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// After how long without a sign of life the link is dead.
    pub fn silence(&self) -> Duration {
        self.heartbeat() * SILENCE_FACTOR
    }

    /// Longest time to connect, shake hands and upgrade.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// Longest time that closing in good order may take.
    pub fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_ms)
    }

    /// How long handlers may go on after the connection has ended.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// The same, with values raised that would make a link stand still.
    pub(crate) fn workable(mut self) -> Self {
        const HOUR_MS: u64 = 3_600_000;
        self.max_message = self.max_message.clamp(1024, MAX_MESSAGE);
        self.streams_per_link = self.streams_per_link.max(1);
        self.calls_in_flight = self.calls_in_flight.clamp(1, 1 << 20);
        self.heartbeat_ms = self.heartbeat_ms.clamp(10, HOUR_MS);
        self.handshake_timeout_ms = self.handshake_timeout_ms.clamp(10, HOUR_MS);
        self.stream_window = self.stream_window.clamp(1024, 1 << 30);
        self.stream_lane = self.stream_lane.max(1024);
        self.stream_events = self.stream_events.max(16);
        self.control_queue = self.control_queue.max(64);
        self.control_bytes = self.control_bytes.max(16 * 1024);
        self.close_timeout_ms = self.close_timeout_ms.clamp(10, HOUR_MS);
        self.drain_timeout_ms = self.drain_timeout_ms.min(HOUR_MS);
        self
    }
}

/// How the WebSocket under a link is to be set up; [`crate::dial`] and [`crate::upgrade`] use it.
pub fn websocket_config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(limits.max_message))
        .max_frame_size(Some(limits.max_message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_settings_keep_the_other_defaults_and_unknown_ones_are_refused() {
        let limits: Limits = serde_json::from_str(r#"{"heartbeat_ms": 100}"#).expect("parses");
        assert_eq!(limits, Limits { heartbeat_ms: 100, ..Limits::default() });
        assert!(serde_json::from_str::<Limits>(r#"{"heartbeat": 1}"#).is_err());
    }

    #[test]
    fn a_dead_link_is_found_within_thirty_seconds() {
        assert!(Limits::default().silence() < Duration::from_secs(30));
    }

    #[test]
    fn zeroes_still_make_a_link_that_works() {
        let zero: Limits = serde_json::from_str(
            r#"{"max_message":0,"streams_per_link":0,"calls_in_flight":0,"heartbeat_ms":0,"stream_window":0,"stream_lane":0}"#,
        )
        .expect("parses");
        let limits = zero.workable();
        assert!(limits.stream_window >= 1024 && limits.calls_in_flight >= 1 && limits.heartbeat_ms > 0);
    }
}

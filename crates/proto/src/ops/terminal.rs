//! Terminals: interactive processes on a pseudo-terminal, shared by any number of clients, recorded as they go.
//!
//! A terminal is a run with one target whose [`ExecSpec::terminal`] is set; `run.show`, `run.cancel`, `run.signal` and
//! `run.watch` work on it as on any run. Its output and input have operations of their own, so that the right to run
//! commands and the right to open terminals are separate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StreamOpen;
use super::job::{ExecSpec, Window};
use super::run::RunSummary;
use crate::cursor::Cursor;
use crate::ids::{OperationKey, RunId};
use crate::outcome::Outcome;

/// `terminal.open`: a process on a pseudo-terminal of one host, which must be connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenParams {
    /// The run's id, made by the client (UUIDv7): repeating the call with the same id and parameters changes nothing.
    pub key: RunId,
    /// The host, by name or id.
    pub host: String,
    /// What to execute; its `terminal` has to be set. An empty `argv` is the user's login shell.
    pub exec: ExecSpec,
}

/// `terminal.output`: what the terminal printed, from a cursor, then as it comes. Frames of kind `terminal` and `mark`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputParams {
    /// The terminal's run.
    pub run: RunId,
    /// Go on from this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Begin at this byte, where there is no cursor yet.
    #[serde(default)]
    pub from: u64,
    /// Begin this many bytes before the end as it is now, where there is neither a cursor nor `from`; for the replay of
    /// the screen. The first frame may begin a little earlier: it is always whole. The reply's cursor tells where; give
    /// credit from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// `terminal.input`: what one client types (frames of kind `stdin` from the caller).
///
/// Several clients may write; each names itself and has offsets of its own. The reply's cursor says how much of this
/// writer's bytes the hub already holds: the caller goes on from there. The end of the stream ends the writer only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputParams {
    /// The terminal's run.
    pub run: RunId,
    /// Names the writer, the same over all its connections (UUIDv7).
    pub writer: OperationKey,
    /// The stream that the caller sends on.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// `terminal.resize`: the window has another size; the latest one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The terminal's run.
    pub run: RunId,
    /// The new size.
    pub window: Window,
}

/// `terminal.list`: newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Most terminals in the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Go on behind this one (the `next` of the page before).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RunId>,
    /// Only terminals of this host (name or id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only terminals that have not ended.
    #[serde(default)]
    pub active: bool,
}

/// A terminal in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Terminal {
    /// Its run.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The host's name when it was opened.
    pub host: String,
    /// Clients that watch it now.
    pub watchers: u32,
    /// Clients that may type into it now.
    pub writers: u32,
    /// Bytes of its recording that the hub holds.
    pub recorded_bytes: u64,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// A page of terminals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListReply {
    /// The terminals.
    pub terminals: Vec<Terminal>,
    /// Where the next page begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RunId>,
}

/// The payload of a frame of kind `mark`: when the bytes behind it came, and how large the window was.
///
/// 12 bytes, big-endian: `u64` milliseconds since the process started, `u16` columns, `u16` rows. One comes first, one
/// with each resize, and one before output that came more than [`Mark::EVERY_MS`] after the one before. Its bytes count
/// in the offsets of the job's record like any others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Milliseconds since the process started, by a clock that only goes forward.
    pub at_ms: u64,
    /// The window.
    pub window: Window,
}

impl Mark {
    /// Bytes of a mark.
    pub const LEN: usize = 12;

    /// How exactly the time of output is known, in milliseconds.
    pub const EVERY_MS: u64 = 10;

    /// The payload.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.at_ms.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.window.cols.to_be_bytes());
        bytes[10..].copy_from_slice(&self.window.rows.to_be_bytes());
        bytes
    }

    /// Reads a payload; `None` when it is not one.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; Self::LEN] = payload.try_into().ok()?;
        let (at, window) = payload.split_first_chunk::<8>()?;
        let (cols, rows) = window.split_first_chunk::<2>()?;
        let window =
            Window { cols: u16::from_be_bytes(*cols), rows: u16::from_be_bytes(rows.try_into().ok()?) };
        Some(Self { at_ms: u64::from_be_bytes(*at), window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        let mark = Mark { at_ms: 1 << 40, window: Window { cols: 80, rows: 24 } };
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        assert_eq!(Mark::decode(&[0; 11]), None);
    }
}

//! Parameter and reply types of every operation, one module per noun.

pub mod access;
pub mod audit;
pub mod event;
pub mod file;
pub mod host;
pub mod hub;
pub mod job;
pub mod role;
pub mod run;
pub mod session;
pub mod terminal;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::error::Error;

/// The reply of an operation that has nothing more to say than that it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

/// The parameters of an operation that takes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// The caller's half of opening a stream; part of the parameters of every streaming operation, as `stream`.
///
/// Over HTTP it is left out: the server-sent events are the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOpen {
    /// The stream's number: odd for who dialled the connection, even for the other, never used before on it.
    pub id: u32,
    /// How far the other side may send before more credit is given: payload bytes for bytes, frame bytes for items.
    /// For byte streams it is absolute in the record's offsets, for item streams it counts from zero.
    #[serde(default)]
    pub credit: u64,
}

/// The reply to opening a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamOpened {
    /// Where the stream begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// For streams that the caller sends on: how far it may send (absolute). On a stream of bytes that the other side
    /// sends it is there only where the caller could not know the beginning (`tail`): the caller's first credit counts
    /// up to here, and the stream waits for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u64>,
}

/// The notification `stream.credit`: how far the other side may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamCredit {
    /// The stream.
    pub stream: u32,
    /// Absolute; a lower value than before is ignored.
    pub upto: u64,
}

/// The notification `stream.close`: the receiver wants no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamClose {
    /// The stream.
    pub stream: u32,
}

/// The notification `stream.gap`, in the stream's own order: what lies between is gone, the stream goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamGap {
    /// The stream.
    pub stream: u32,
    /// The first missing offset.
    pub from: u64,
    /// The offset at which the stream goes on.
    pub to: u64,
    /// Why it is missing.
    pub reason: GapReason,
}

/// Why a stretch of a stream is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// It is older than what is kept.
    Retention,
    /// It was discarded on the host, as the job's policy says.
    Discarded,
    /// It was lost.
    Lost,
}

/// The notification `stream.end`: the last thing on a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamEnd {
    /// The stream.
    pub stream: u32,
    /// Why it ends.
    pub reason: EndReason,
    /// The final offset.
    pub offset: u64,
    /// What went wrong, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Everything there will ever be was sent.
    Done,
    /// The history that the cursor belongs to is gone; begin again without a cursor.
    Gap,
    /// The receiver closed it.
    Closed,
    /// The permission to read it ended.
    Revoked,
    /// It failed; see the error.
    Failed,
}

/// The notification `stream.item`: one item of an item stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamItem<T> {
    /// The stream.
    pub stream: u32,
    /// The place behind this item: hand it back to resume after it.
    pub cursor: Cursor,
    /// The item.
    pub value: T,
}

//! The one ordered event log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StreamOpen;
use crate::cursor::Cursor;
use crate::time::Timestamp;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, by the clock of who saw it first.
    pub at: Timestamp,
    /// What, as `noun.verb` in the past: `host.online`, `job.ended`, `token.revoked`, ...
    pub kind: String,
    /// What it is about: the name of a host, the id of a run, ...
    pub about: String,
    /// Particulars, by kind.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// `event.watch`: events from a cursor, then as they happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchParams {
    /// Go on behind this place; from now on where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Begin with the oldest event there is, where there is no cursor.
    #[serde(default)]
    pub from_start: bool,
    /// Only kinds that begin with one of these, such as `host.`; all where empty.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

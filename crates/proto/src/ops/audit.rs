//! The audit: who changed what, where, and how it ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::error::Code;
use crate::ids::AuditId;
use crate::time::Timestamp;

/// One phase of an audited change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Written in the same step as the effect.
    Intent,
    /// How it ended.
    Outcome,
    /// It was not allowed, or failed before any effect.
    Refused,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Joins the phases of one change.
    pub id: AuditId,
    /// Which phase.
    pub phase: Phase,
    /// When, by the hub's clock.
    pub at: Timestamp,
    /// Who: account, token, host or local process.
    pub by: String,
    /// From which address or local process.
    pub from: String,
    /// The operation.
    pub operation: String,
    /// What it was done to, for a person.
    pub object: String,
    /// The hosts concerned, by name.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// How it ended: `ok`, an error's code, or a summary of the outcomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The error's code, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// `audit.list`: newest first without a cursor, oldest first behind one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Most entries in the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Go on behind this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// A page of the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListReply {
    /// The entries, oldest first.
    pub entries: Vec<AuditEntry>,
    /// The place behind the last of them.
    pub cursor: Cursor,
    /// The oldest place there is.
    pub oldest: Cursor,
}

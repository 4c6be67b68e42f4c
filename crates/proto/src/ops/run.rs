//! Runs: one request to do something on one or many hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StreamOpen;
use super::job::ExecSpec;
use crate::cursor::Cursor;
use crate::ids::{HostId, JobId, OperationKey, RunId};
use crate::outcome::{Evidence, JobState, Outcome};
use crate::time::Timestamp;

/// What happens to a target whose host is not connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OfflinePolicy {
    /// It ends as `offline` at once and counts as failed.
    #[default]
    Fail,
    /// It ends as `offline` at once and does not count.
    Skip,
    /// It waits for its host, until it expires.
    Queue,
}

/// `run.create`: run a command on every host that the selectors match now. The id is the idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateParams {
    /// The run's id, made by the client (UUIDv7): repeating the call with the same id and parameters changes nothing.
    pub key: RunId,
    /// Selectors; a host is a target when any of them matches it.
    pub on: Vec<String>,
    /// What to execute.
    pub exec: ExecSpec,
    /// What happens to targets whose host is not connected.
    #[serde(default)]
    pub offline: OfflinePolicy,
    /// How long a queued target waits for its host, in milliseconds.
    #[serde(default = "default_expires_ms")]
    pub expires_ms: u64,
    /// Most targets that are under way at a time; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
}

/// How long a queued target waits where the run does not say: 24 h.
pub fn default_expires_ms() -> u64 {
    24 * 3600 * 1000
}

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// Who asked for it.
    pub by: String,
    /// When it was created.
    pub created: Timestamp,
    /// When its last target ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The selectors as they were given.
    pub on: Vec<String>,
    /// The command, shortened, for a person.
    pub command: String,
    /// Whether its jobs read standard input from `run.input`.
    pub stdin: bool,
    /// What happens to targets whose host is not connected.
    pub offline: OfflinePolicy,
    /// Targets by where they stand.
    pub counts: Counts,
}

/// How many targets stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// All of them.
    pub targets: u32,
    /// Not offered yet.
    pub queued: u32,
    /// Offered, accepted or running.
    pub under_way: u32,
    /// Ended with exit code 0, or skipped.
    pub succeeded: u32,
    /// Ended in any other way.
    pub failed: u32,
}

impl Counts {
    /// Whether every target has its outcome.
    pub fn all_ended(&self) -> bool {
        self.queued == 0 && self.under_way == 0
    }
}

/// One target of a run: the job on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// The host's name at the run's creation.
    pub host: String,
    /// The host.
    pub host_id: HostId,
    /// The job.
    pub job: JobId,
    /// Where it stands.
    pub state: JobState,
    /// Set while the link to the host is lost and the job may have gone further than the state says.
    #[serde(default)]
    pub unknown: bool,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The facts behind it.
    pub evidence: Vec<Evidence>,
    /// When its process was started, by the host's clock.
    pub started: Option<Timestamp>,
    /// When it ended, by its witness's clock.
    pub ended: Option<Timestamp>,
    /// Bytes of standard output, discarded ones included.
    pub stdout_bytes: u64,
    /// Bytes of standard error, discarded ones included.
    pub stderr_bytes: u64,
    /// Bytes of both streams that the hub holds.
    pub stored_bytes: u64,
}

/// `run.show` and the reply of `run.create`: the run and a page of its targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReply {
    /// The run.
    pub run: RunId,
    /// All but the targets.
    pub summary: RunSummary,
    /// What is executed.
    pub exec: ExecSpec,
    /// A page of targets, in the order of their host's names.
    pub targets: Vec<Target>,
    /// Where the next page begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `run.show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowParams {
    /// The run.
    pub run: RunId,
    /// Most targets in the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Go on from here (the `next` of the page before).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `run.list`: newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Most runs in the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Go on behind this run (the `next` of the page before).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RunId>,
    /// Only runs with a target on this host (name or id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only runs that have not ended.
    #[serde(default)]
    pub active: bool,
}

/// A page of runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListReply {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Where the next page begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RunId>,
}

/// `run.watch`: every target as it stands, then each change. Ends with reason `done` when all have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchParams {
    /// The run.
    pub run: RunId,
    /// Only what changed behind this cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// `run.output`: one target's output from a cursor, then as it comes. Ends with reason `done` behind the last byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputParams {
    /// The run.
    pub run: RunId,
    /// The target's host, by name or id; may be left out where the run has one target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Go on from this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Begin at this byte, where there is no cursor yet.
    #[serde(default)]
    pub from: u64,
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// A piece of output, for readers of the HTTP face (the WebSocket has binary frames).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputItem {
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Where the first byte stands.
    pub offset: u64,
    /// The bytes, as text where they are UTF-8.
    pub data: crate::bytestring::ByteString,
}

/// `run.input`: bytes for the standard input of every target (frames of kind stdin from the caller).
///
/// The reply's cursor says how much the hub already holds: the caller goes on from there. `stream.end` with reason
/// `done` is the end of file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputParams {
    /// The run.
    pub run: RunId,
    /// The stream that the caller sends on.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// `run.cancel`: end every target, or the named ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The run.
    pub run: RunId,
    /// Only these hosts, by name or id; all where empty.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// `run.signal`: a signal to the process tree of every running target, or of the named ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The run.
    pub run: RunId,
    /// The signal's number.
    pub signal: i32,
    /// Only these hosts, by name or id; all where empty.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// How many targets a change reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReachedReply {
    /// Targets that it applied to.
    pub targets: u32,
    /// Targets that it could not be told to now; for a cancel it follows when their host is back.
    pub pending: u32,
}

/// `run.abandon`: give up on targets whose host will not come back; they end as `lost(abandoned)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbandonParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The run.
    pub run: RunId,
    /// Only these hosts, by name or id; every target whose host is offline where empty.
    #[serde(default)]
    pub hosts: Vec<String>,
}

//! Jobs: what the hub asks an agent to do, and what the agent reports.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StreamOpen;
use crate::bytestring::ByteString;
use crate::ids::{JobId, RunId};
use crate::outcome::{Evidence, JobState, Outcome};
use crate::time::Timestamp;

/// What to execute and under which conditions. The same for every target of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// The program and its arguments; never passed through a shell. With a script: the script's arguments.
    #[serde(default)]
    pub argv: Vec<ByteString>,
    /// A script, sent as a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// Additions to the clean environment (PATH, HOME, USER, LOGNAME, SHELL, LANG).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, ByteString>,
    /// Working directory; the user's home where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<ByteString>,
    /// User to run as, by name or number; the agent's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether standard input is fed from the run's input; `/dev/null` otherwise.
    #[serde(default)]
    pub stdin: bool,
    /// One pipe for both output streams, for their true order; all of it counts as standard output.
    #[serde(default)]
    pub merge: bool,
    /// Time limit from the start of the process, in milliseconds; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Time between TERM and KILL when the job is ended early, in milliseconds.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
    /// What happens when the spool on the host is full.
    #[serde(default)]
    pub when_full: WhenFull,
    /// Size of the spool on the host in bytes (default 256 MiB).
    #[serde(default = "default_spool_bytes")]
    pub spool_bytes: u64,
    /// Most output kept of this job in bytes (default 1 GiB); the rest is counted and marked as discarded.
    #[serde(default = "default_output_bytes")]
    pub output_bytes: u64,
    /// Limits on the process tree.
    #[serde(default, skip_serializing_if = "ExecLimits::is_none")]
    pub limits: ExecLimits,
    /// Runs on a pseudo-terminal of this kind instead of pipes; only `terminal.open` may ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSpec>,
}

fn default_grace_ms() -> u64 {
    10_000
}

fn default_spool_bytes() -> u64 {
    256 << 20
}

fn default_output_bytes() -> u64 {
    1 << 30
}

impl ExecSpec {
    /// A command with default conditions.
    pub fn command(argv: Vec<ByteString>) -> Self {
        Self {
            argv,
            script: None,
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            stdin: false,
            merge: false,
            timeout_ms: None,
            grace_ms: default_grace_ms(),
            when_full: WhenFull::default(),
            spool_bytes: default_spool_bytes(),
            output_bytes: default_output_bytes(),
            limits: ExecLimits::default(),
            terminal: None,
        }
    }
}

/// The pseudo-terminal that a process gets.
///
/// Its output is of the frame kind `terminal`; frames of the kind `mark` between say when. An empty `argv` is the user's
/// login shell. What is typed comes by the job's input; its end hangs the terminal up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSpec {
    /// The window at the start.
    pub window: Window,
    /// The value of `TERM`, such as `xterm-256color`.
    pub term: String,
}

/// The size of a terminal's window in character cells, 1 to [`Window::MAX`] each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl Window {
    /// Most columns and most rows: beyond it programs allocate without sense.
    pub const MAX: u16 = 4096;

    /// Whether both lie within the limits.
    pub fn is_valid(self) -> bool {
        (1..=Self::MAX).contains(&self.cols) && (1..=Self::MAX).contains(&self.rows)
    }
}

/// `job.resize`: a terminal's window has another size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeParams {
    /// The job.
    pub job: JobId,
    /// The new size.
    pub window: Window,
}

/// A script and what interprets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The interpreter and its arguments, before the script's path; where absent the script's own `#!` line decides,
    /// and without one `/bin/sh`.
    #[serde(default)]
    pub interpreter: Vec<ByteString>,
    /// The script's text.
    pub body: ByteString,
}

/// What happens when a job's spool on the host is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The process waits on its pipe until the hub has taken some.
    #[default]
    Wait,
    /// Output is counted and marked as discarded.
    Discard,
}

/// Limits on a job's process tree; set by cgroup v2, else v1, else rlimits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecLimits {
    /// Most processes and threads at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Most memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl ExecLimits {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.processes.is_none() && self.memory_bytes.is_none()
    }
}

/// `job.offer`: the hub hands a job to a host. Answered when it is in the host's journal, or refused for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The job.
    pub job: JobId,
    /// The run it belongs to.
    pub run: RunId,
    /// The journal incarnation it is bound to.
    pub incarnation: String,
    /// Who asked for the run, for the host's log.
    pub by: String,
    /// What to execute.
    pub spec: ExecSpec,
}

/// A job as its host sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobReport {
    /// The job.
    pub job: JobId,
    /// The run it belongs to.
    pub run: RunId,
    /// Where it stands.
    pub state: JobState,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The facts behind it, in order, all of them at each report.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// When the process was started, by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended, by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Bytes of standard output so far, discarded ones included.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// Bytes of standard error so far, discarded ones included.
    #[serde(default)]
    pub stderr_bytes: u64,
    /// Bytes of a terminal's marks so far, discarded ones included: with both streams the length of the job's record.
    #[serde(default)]
    pub mark_bytes: u64,
    /// Bytes of standard input that the host holds or has delivered: feeding goes on from here.
    #[serde(default)]
    pub stdin_bytes: u64,
    /// The journal's high-water mark when this was said: one that is lower later means that the journal was rolled back.
    #[serde(default)]
    pub high_water: u64,
}

/// `job.list` on an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Go on behind this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// Every job that the host has not been told to forget, a page of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListReply {
    /// The jobs.
    pub jobs: Vec<JobReport>,
    /// Where the next page begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// `job.spec` on an agent: what a job was, for a hub that no longer knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobParams {
    /// The job.
    pub job: JobId,
}

/// `job.cancel` on an agent: end it. A cancel that comes before the job leaves a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// The job.
    pub job: JobId,
    /// The run it belongs to.
    pub run: RunId,
    /// Who asked.
    pub by: String,
}

/// `job.signal` on an agent: a signal to the whole process tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalParams {
    /// The job.
    pub job: JobId,
    /// The signal's number.
    pub signal: i32,
}

/// `job.output` on an agent: the job's output from an offset, then as it is written. Offsets are the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputParams {
    /// The job.
    pub job: JobId,
    /// The first byte wanted.
    #[serde(default)]
    pub from: u64,
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// `job.ack` on an agent: the hub has the output up to here on its disk; the spool may drop it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AckParams {
    /// The job.
    pub job: JobId,
    /// All bytes below this offset.
    pub upto: u64,
}

/// `job.input` on an agent: bytes for the job's standard input (frames of kind stdin from the hub).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputParams {
    /// The job.
    pub job: JobId,
    /// The stream that the hub sends on. It ends with `stream.end` reason `done` at end of file.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// `job.release` on an agent: the hub has outcome and output on its disk; the host may forget these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseParams {
    /// The jobs.
    pub jobs: Vec<JobId>,
}

/// `agent.drain`: the hub is going down in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainParams {
    /// When to dial again, in milliseconds from now.
    pub reconnect_after_ms: u64,
}

//! Where a job stands, how it ended, and the evidence for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Where a job stands. It only ever moves forward in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// The hub has it; the host has not been told.
    Queued,
    /// The hub has durably decided to tell the host; from here on only the host decides.
    Offered,
    /// The host has it in its journal.
    Accepted,
    /// The process has been started.
    Running,
    /// It has its outcome.
    Ended,
}

impl JobState {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a job ended, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The main process ended by itself.
    Exited {
        /// Its exit code, exactly as the kernel gave it.
        code: i32,
    },
    /// A signal ended the main process.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// Its time limit passed and it was ended for that.
    TimedOut,
    /// It was cancelled: before it started, or its processes were ended for that.
    Cancelled {
        /// Who asked.
        by: String,
    },
    /// The host accepted it and could not start it.
    FailedToStart {
        /// Why, as one word: see [`StartFailure`].
        why: StartFailure,
    },
    /// The host would not take it.
    Refused {
        /// The host's policy line, or the reason, as the host gave it.
        why: String,
    },
    /// It waited for its host until it expired and was never offered.
    Expired,
    /// The host was not connected and the run's policy was not to wait.
    Offline {
        /// Since when the host has been away; absent where it never connected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// It had started and its end was not seen.
    Interrupted {
        /// What took it down.
        why: Interruption,
    },
    /// Nobody can say any more.
    Lost {
        /// What made it unknowable.
        why: Loss,
        /// Who decided it, where a person did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

/// Why a process could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// No such program in PATH or at the given path.
    CommandNotFound,
    /// The program exists and may not be executed, or the identity could not be taken on.
    PermissionDenied,
    /// The file is not something this kernel can execute.
    NotExecutable,
    /// The working directory does not exist.
    NoSuchDirectory,
    /// The user does not exist on the host.
    NoSuchUser,
    /// Arguments and environment are larger than the kernel takes.
    ArgumentsTooLarge,
    /// The host's disk is full.
    DiskFull,
    /// The requested limits could not be set.
    LimitsNotApplied,
    /// The host is out of processes, memory or file descriptors.
    OutOfResources,
    /// Anything else; the evidence has the kernel's words.
    Other,
}

impl StartFailure {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommandNotFound => "command_not_found",
            Self::PermissionDenied => "permission_denied",
            Self::NotExecutable => "not_executable",
            Self::NoSuchDirectory => "no_such_directory",
            Self::NoSuchUser => "no_such_user",
            Self::ArgumentsTooLarge => "arguments_too_large",
            Self::DiskFull => "disk_full",
            Self::LimitsNotApplied => "limits_not_applied",
            Self::OutOfResources => "out_of_resources",
            Self::Other => "other",
        }
    }
}

/// What interrupted a started job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// The host went down.
    Reboot,
    /// The shim that owned the process is gone.
    ShimLost,
}

/// What made an outcome unknowable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The host was removed from the registry.
    HostRemoved,
    /// The host came back with another journal than the one that held the job.
    JournalReplaced,
    /// A person gave up waiting for it.
    Abandoned,
}

impl Outcome {
    /// The word that names the outcome.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::Signaled { .. } => "signaled",
            Self::TimedOut => "timed_out",
            Self::Cancelled { .. } => "cancelled",
            Self::FailedToStart { .. } => "failed_to_start",
            Self::Refused { .. } => "refused",
            Self::Expired => "expired",
            Self::Offline { .. } => "offline",
            Self::Interrupted { .. } => "interrupted",
            Self::Lost { .. } => "lost",
        }
    }

    /// Whether the command ran to an end of its own with success.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited({code})"),
            Self::Signaled { signal } => write!(f, "signaled({signal})"),
            Self::TimedOut | Self::Expired => f.write_str(self.kind()),
            Self::Cancelled { by } => write!(f, "cancelled({by})"),
            Self::FailedToStart { why } => write!(f, "failed_to_start({})", why.as_str()),
            Self::Refused { why } => write!(f, "refused({why})"),
            Self::Offline { since: Some(since) } => write!(f, "offline({since})"),
            Self::Offline { since: None } => f.write_str("offline(never connected)"),
            Self::Interrupted { why: Interruption::Reboot } => f.write_str("interrupted(reboot)"),
            Self::Interrupted { why: Interruption::ShimLost } => f.write_str("interrupted(shim_lost)"),
            Self::Lost { why: Loss::HostRemoved, .. } => f.write_str("lost(host_removed)"),
            Self::Lost { why: Loss::JournalReplaced, .. } => f.write_str("lost(journal_replaced)"),
            Self::Lost { why: Loss::Abandoned, by } => {
                write!(f, "lost(abandoned by {})", by.as_deref().unwrap_or("unknown"))
            }
        }
    }
}

/// Who saw a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// The hub.
    Hub,
    /// The host's agent.
    Agent,
    /// The job's shim.
    Shim,
}

/// One fact behind a state or an outcome, in the order it was learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// When, by the witness's own clock.
    pub at: Timestamp,
    /// Who saw it.
    pub witness: Witness,
    /// What happened, as a stable word such as `offered`, `accepted`, `started`, `exited`, `children_left`.
    pub fact: String,
    /// Particulars for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Most evidence kept for one job; what is over it is counted in the last entry.
pub const MAX_EVIDENCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_form_is_what_scripts_rely_on() {
        let json = |outcome: Outcome| serde_json::to_string(&outcome).expect("encodes");
        assert_eq!(json(Outcome::Exited { code: 7 }), r#"{"kind":"exited","code":7}"#);
        assert_eq!(json(Outcome::Signaled { signal: 9 }), r#"{"kind":"signaled","signal":9}"#);
        assert_eq!(json(Outcome::TimedOut), r#"{"kind":"timed_out"}"#);
        assert_eq!(
            json(Outcome::Interrupted { why: Interruption::ShimLost }),
            r#"{"kind":"interrupted","why":"shim_lost"}"#
        );
        assert_eq!(
            json(Outcome::Lost { why: Loss::Abandoned, by: Some("ann".into()) }),
            r#"{"kind":"lost","why":"abandoned","by":"ann"}"#
        );
    }
}

//! Outcomes: what they mean for the exit code, and how they are told to a person.

use datacentered_proto::ops::run::OfflinePolicy;
use datacentered_proto::outcome::{Interruption, Loss, StartFailure};
use datacentered_proto::{Outcome, Timestamp};

use super::{ago, clean::clean, signal};

/// Whether the target counts as failed, as the hub counts it: everything but exit code 0 and a host that was skipped.
pub(crate) fn counts_as_failed(outcome: &Outcome, offline: OfflinePolicy) -> bool {
    match outcome {
        Outcome::Exited { code } => *code != 0,
        Outcome::Offline { .. } => offline != OfflinePolicy::Skip,
        _ => true,
    }
}

/// The exit code of a run on one literally named host, as ssh has it.
pub(crate) fn ssh_code(outcome: &Outcome) -> u8 {
    match outcome {
        // The kernel keeps eight bits of an exit code.
        Outcome::Exited { code } => (*code & 0xff) as u8,
        Outcome::Signaled { signal } => (128 + (*signal & 0x7f)) as u8,
        Outcome::TimedOut => 124,
        _ => 255,
    }
}

/// What happened, as a sentence without a subject, and what can be done about it.
pub(crate) fn explain(outcome: &Outcome, now: Timestamp) -> String {
    match outcome {
        Outcome::Exited { code } => format!("exited with code {code}"),
        Outcome::Signaled { signal } => format!("ended by signal {}", signal::human(*signal)),
        Outcome::TimedOut => "timed out (raise --timeout if it needs longer)".to_owned(),
        Outcome::Cancelled { by } => format!("cancelled by {}", clean(by)),
        Outcome::FailedToStart { why } => format!("failed to start: {}", start_failure(*why)),
        Outcome::Refused { why } => format!("refused by the host: {}", clean(why)),
        Outcome::Expired => "expired before its host came online (raise --expires to wait longer)".to_owned(),
        Outcome::Offline { since: Some(since) } => {
            format!("offline since {} (--offline queue waits for it)", ago::human(*since, now))
        }
        Outcome::Offline { since: None } => "offline: it has never connected".to_owned(),
        Outcome::Interrupted { why: Interruption::Reboot } => {
            "interrupted: the host went down while it ran".to_owned()
        }
        Outcome::Interrupted { why: Interruption::ShimLost } => {
            "interrupted: the process that watched it was killed, so its end was not seen".to_owned()
        }
        Outcome::Lost { why: Loss::HostRemoved, .. } => {
            "lost: the host was removed from the registry".to_owned()
        }
        Outcome::Lost { why: Loss::JournalReplaced, .. } => {
            "lost: the host came back with another journal than the one that held the job".to_owned()
        }
        Outcome::Lost { why: Loss::Abandoned, by } => {
            format!("lost: abandoned by {}", clean(by.as_deref().unwrap_or("someone")))
        }
    }
}

fn start_failure(why: StartFailure) -> &'static str {
    match why {
        StartFailure::CommandNotFound => "no such command on the host",
        StartFailure::PermissionDenied => "permission denied",
        StartFailure::NotExecutable => "the file is not something the host's kernel can execute",
        StartFailure::NoSuchDirectory => "the working directory does not exist on the host",
        StartFailure::NoSuchUser => "the user does not exist on the host",
        StartFailure::ArgumentsTooLarge => "arguments and environment are larger than the kernel takes",
        StartFailure::DiskFull => "the host's disk is full",
        StartFailure::LimitsNotApplied => "the requested limits could not be set on the host",
        StartFailure::OutOfResources => "the host is out of processes, memory or file descriptors",
        StartFailure::Other => "see the evidence in 'datacentered run show'",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_ssh() {
        assert_eq!(ssh_code(&Outcome::Exited { code: 0 }), 0);
        assert_eq!(ssh_code(&Outcome::Exited { code: 7 }), 7);
        assert_eq!(ssh_code(&Outcome::Signaled { signal: 9 }), 137);
        assert_eq!(ssh_code(&Outcome::TimedOut), 124);
        for outcome in [
            Outcome::Expired,
            Outcome::Offline { since: None },
            Outcome::Cancelled { by: "ann".into() },
            Outcome::FailedToStart { why: StartFailure::CommandNotFound },
            Outcome::Lost { why: Loss::Abandoned, by: None },
        ] {
            assert_eq!(ssh_code(&outcome), 255, "{outcome}");
        }
    }

    #[test]
    fn all_but_success_counts_and_skipped_hosts_do_not() {
        let failed = |outcome, policy| counts_as_failed(&outcome, policy);
        assert!(!failed(Outcome::Exited { code: 0 }, OfflinePolicy::Fail));
        assert!(failed(Outcome::Exited { code: 7 }, OfflinePolicy::Fail));
        assert!(failed(Outcome::Signaled { signal: 9 }, OfflinePolicy::Fail));
        assert!(failed(Outcome::Offline { since: None }, OfflinePolicy::Fail));
        assert!(!failed(Outcome::Offline { since: None }, OfflinePolicy::Skip));
        assert!(failed(Outcome::Expired, OfflinePolicy::Queue));
    }

    #[test]
    fn reasons_from_hosts_are_cleaned() {
        let outcome = Outcome::Refused { why: "exec = \"deny\"\x1b[2J".into() };
        assert_eq!(explain(&outcome, Timestamp::EPOCH), "refused by the host: exec = \"deny\"\u{fffd}[2J");
    }
}

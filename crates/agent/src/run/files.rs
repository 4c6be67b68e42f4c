//! How many files the agent may have open.
//!
//! Each job takes a socket, and a file each for output and input while they are followed. Service managers begin with 1024
//! for the sake of programs that use select(2); the agent does not, and takes more. Commands get what the agent was given.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for as many jobs as a host may be expected to hold, several times over.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit as far as is wanted and allowed; returns what it was before, for the commands, where it changed.
pub(super) fn raise() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let soft = before.current?;
    let wanted = before.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if soft >= wanted {
        return None;
    }
    let raised = Rlimit { current: Some(wanted), maximum: before.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(soft),
        Err(error) => {
            tracing::debug!(%error, soft, "the limit of open files cannot be raised");
            None
        }
    }
}

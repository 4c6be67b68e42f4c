//! How a job ends: forced by time or on request, and what is recorded of it.

use std::io;
use std::time::Duration;

use datacentered_proto::outcome::{Interruption, Witness};
use datacentered_proto::{Evidence, Outcome};
use rustix::process::WaitOptions;

use super::connection::Connection;
use super::machine::{Exit, Machine};
use super::setup::Owned;
use super::start;
use super::timer::{boot_now, wall_now};
use super::wire::{FromShim, Syncs};
use crate::journal::slots::{End, fit_evidence};
use crate::process::failure::Failure;
use crate::process::tree;
use crate::sys;

/// How many processes are named that were left behind.
const NAMED_CHILDREN: usize = 16;

/// How long the programs of a terminal have between HUP and TERM, at most.
const HANG_UP: Duration = Duration::from_secs(1);

/// How often a kill is repeated where no control group holds the tree, with pauses of a few milliseconds.
const KILL_ROUNDS: u32 = 1000;

/// Why the job is being ended before its time.
#[derive(Clone, Debug)]
pub(super) enum Force {
    TimedOut,
    Cancelled(String),
}

impl Machine {
    /// Begins to end the job: TERM now, KILL after the grace. A terminal is hung up first, since shells that talk to a
    /// person ignore TERM.
    pub(super) fn force(&mut self, force: Force) {
        if self.force.is_some() || self.exit.is_some() {
            return;
        }
        let grace = Duration::from_millis(self.owned.launch.spec.grace_ms);
        let reason = match &force {
            Force::TimedOut => "time limit".to_owned(),
            Force::Cancelled(by) => format!("cancelled by {by}"),
        };
        self.force = Some(force);
        self.timeout_at = None;
        self.kill_at = boot_now().checked_add(grace);
        // A process that waits for room in its pipe must be able to end in order.
        self.spool.drain();
        let what = if self.terminal.is_some() {
            let wait = HANG_UP.min(grace / 2);
            self.term_at = boot_now().checked_add(wait);
            format!("HUP to {} processes, TERM after {} ms", self.signal_session(), wait.as_millis())
        } else {
            format!("TERM to {} processes", self.terminate())
        };
        self.note("terminating", Some(format!("{reason}: {what}, KILL after {} ms", grace.as_millis())));
    }

    /// TERM to the whole tree; returns to how many processes.
    pub(super) fn terminate(&mut self) -> u32 {
        self.term_at = None;
        let count = self.signal_tree(libc::SIGTERM);
        // A stopped process cannot end by TERM.
        self.signal_tree(libc::SIGCONT);
        count
    }

    /// HUP to everything in the terminal's session, as when the terminal is gone; returns to how many processes.
    fn signal_session(&self) -> u32 {
        let mut count = 0;
        for process in self.tree().iter().filter(|process| process.session == self.main.pid) {
            count += u32::from(sys::kill(process.pid, libc::SIGHUP).is_ok());
            // A stopped process cannot end by HUP.
            let _ = sys::kill(process.pid, libc::SIGCONT);
        }
        count
    }

    fn tree(&self) -> Vec<tree::Stat> {
        if self.group.holds_tree() {
            self.group.processes()
        } else {
            tree::descendants(start::own_mark().pid)
        }
    }

    pub(super) fn signal_tree(&self, signal: i32) -> u32 {
        self.tree().iter().filter(|process| sys::kill(process.pid, signal).is_ok()).count() as u32
    }

    pub(super) fn kill_tree(&mut self) {
        let left = self.tree();
        let empty = if self.group.holds_tree() {
            self.group.kill()
        } else {
            tree::kill_all(KILL_ROUNDS, || self.tree())
        };
        if !left.is_empty() {
            let detail = tree::names(&left, NAMED_CHILDREN);
            let detail = if empty { detail } else { format!("{detail}; some are still not gone") };
            self.note("killed", Some(detail));
        }
    }

    fn outcome(&mut self) -> Outcome {
        if let Some(failure) = self.failure.take() {
            self.note("start_failed", Some(failure.detail));
            return Outcome::FailedToStart { why: failure.why };
        }
        if self.started.is_some() {
            match self.exit {
                Some(Exit::Code(code)) => self.note("exited", Some(format!("code {code}"))),
                Some(Exit::Signal(signal)) => self.note("signaled", Some(format!("signal {signal}"))),
                None => {}
            }
        }
        match (&self.force, self.exit) {
            (Some(Force::TimedOut), _) => Outcome::TimedOut,
            (Some(Force::Cancelled(by)), _) => Outcome::Cancelled { by: by.clone() },
            (None, Some(Exit::Signal(signal))) => Outcome::Signaled { signal },
            (None, Some(Exit::Code(code))) => Outcome::Exited { code },
            (None, None) => Outcome::Interrupted { why: Interruption::ShimLost },
        }
    }

    /// Records the end, tells the agent, and leaves.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.spool.finish();
        let outcome = self.outcome();
        let killed = self.group.memory_kills();
        if killed > 0 {
            self.note(
                "memory_limit",
                Some(format!("the kernel ended {killed} of its processes over its memory limit")),
            );
        }
        // As the reaper of the whole tree the shim has a child as long as anything of it lives.
        if rustix::process::wait(WaitOptions::NOHANG).is_ok() {
            let left = self.tree();
            if !left.is_empty() {
                self.note("children_left", Some(tree::names(&left, NAMED_CHILDREN)));
            }
        }
        if let Some(words) = self.spool.disk_failed() {
            let words = format!("output could not be written and was discarded: {words}");
            self.note("output_lost", Some(words));
        }
        let totals = self.spool.totals();
        let end = End {
            at: wall_now(),
            outcome,
            stdout_bytes: totals.stdout,
            stderr_bytes: totals.stderr,
            mark_bytes: totals.marks(),
            stdin_bytes: self.feeder.held(),
            evidence: fit_evidence(std::mem::take(&mut self.evidence)),
        };
        self.owned.slot.write_end(&end)?;
        if let Some(agent) = &mut self.agent {
            agent.send_last(&FromShim::Ended(end));
        }
        // A job's output is worth less than its outcome: a spool that cannot be synced does not hold that up.
        self.syncs.spool = self.spool.sync().unwrap_or_default();
        self.owned.slot.sync()?;
        self.syncs.end = 1;
        self.syncs.at = Some(wall_now());
        self.group.remove();
        if let Some(agent) = &mut self.agent {
            agent.send_last(&FromShim::Synced(self.syncs));
        }
        Ok(())
    }
}

/// A start that failed before there was a process.
pub(super) fn fail(owned: &Owned, mut connection: Connection, failure: &Failure) -> io::Result<()> {
    let at = wall_now();
    let end = End {
        at,
        outcome: Outcome::FailedToStart { why: failure.why },
        stdout_bytes: 0,
        stderr_bytes: 0,
        mark_bytes: 0,
        stdin_bytes: 0,
        evidence: vec![Evidence {
            at,
            witness: Witness::Shim,
            fact: "start_failed".into(),
            detail: Some(failure.detail.clone()),
        }],
    };
    owned.slot.write_end(&end)?;
    connection.send_last(&FromShim::Ended(end));
    owned.slot.sync()?;
    connection.send_last(&FromShim::Synced(Syncs { end: 1, at: Some(wall_now()), ..Syncs::default() }));
    Ok(())
}

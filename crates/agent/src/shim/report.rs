//! What the child says before its exec, and what its silence means: that the program was executed.

use std::time::Duration;

use datacentered_proto::Evidence;
use datacentered_proto::outcome::Witness;

use super::ending::Force;
use super::machine::Machine;
use super::timer::{boot_now, wall_now};
use super::wire::FromShim;
use crate::journal::slots::Started;
use crate::process::child::{REPORT_LEN, Report};
use crate::process::failure::{Failure, Step};

impl Machine {
    /// What the child says before its exec; its end of the pipe closes when it has executed, or has ended.
    pub(super) fn read_report(&mut self) {
        let Some(pipe) = &self.report else { return };
        let mut bytes = [0u8; REPORT_LEN];
        match rustix::io::read(pipe, &mut bytes) {
            Ok(REPORT_LEN) => match Report::decode(bytes) {
                Some(Report::HomeMissing) => {
                    self.note("home_missing", Some("the user's home cannot be entered; runs in /".into()));
                }
                Some(Report::Failed { step, errno, exists }) => {
                    let mut failure = Failure::at(step, errno, &self.subject(step));
                    if exists {
                        failure.why = datacentered_proto::outcome::StartFailure::NotExecutable;
                        failure.detail.push_str(" (the file exists; its interpreter does not)");
                    }
                    self.failure.get_or_insert(failure);
                }
                None => {}
            },
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            _ => {
                self.report = None;
                let not_executed = matches!(&self.force, Some(Force::Cancelled(_)) if self.kill_at.is_none());
                if self.failure.is_none() && !not_executed {
                    self.executed();
                }
            }
        }
    }

    /// What a step of the start was done to.
    fn subject(&self, step: Step) -> String {
        let launch = &self.owned.launch;
        match step {
            Step::Directory => {
                let directory = launch.spec.cwd.as_ref().unwrap_or(&launch.identity.home);
                let shown = String::from_utf8_lossy(directory.as_bytes());
                if shown.is_empty() { "''".to_owned() } else { shown.into_owned() }
            }
            Step::Identity => format!("({})", launch.identity.name),
            Step::Limits => format!("of {}", self.program),
            _ => self.program.clone(),
        }
    }

    fn executed(&mut self) {
        let at = wall_now();
        let timeout = self.owned.launch.spec.timeout_ms.map(Duration::from_millis);
        self.timeout_at = timeout.and_then(|timeout| boot_now().checked_add(timeout));
        let pid = self.main.pid;
        self.evidence.insert(
            0,
            Evidence {
                at,
                witness: Witness::Shim,
                fact: "started".into(),
                detail: Some(format!("{} as {}, pid {pid}", self.program, self.owned.launch.identity.name)),
            },
        );
        let started = Started { at, main: self.main, evidence: std::mem::take(&mut self.evidence) };
        if let Some(terminal) = &mut self.terminal {
            terminal.begin(&mut self.spool);
        }
        // Only a hint for the agent; losing it loses no outcome.
        let _ = self.owned.slot.write_started(&started);
        self.say(&FromShim::Started(started.clone()));
        self.started = Some(started);
    }
}

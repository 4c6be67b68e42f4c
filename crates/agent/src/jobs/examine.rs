//! Deciding what became of a job that no connection tells about: from its slot and its lock.
//!
//! Everything here may block: it runs off the runtime's thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use datacentered_proto::outcome::{Interruption, Witness};
use datacentered_proto::{Evidence, JobId, Outcome, Timestamp};
use rustix::fs::FlockOperation;

use super::start::make_dir;
use crate::cgroup::{JobGroup, Placement};
use crate::journal::slots::{Contents, End, Slot};
use crate::process::failure::Failure;
use crate::process::tree;
use crate::shim::launch::files;
use crate::spool;

/// How often the kill of leftovers is repeated, with pauses of a few milliseconds.
const KILL_ROUNDS: u32 = 1000;

/// Most bytes of a lost shim's log that become evidence.
const MAX_LOG: u64 = 300;

/// Most processes that are named in evidence.
const NAMED: usize = 16;

/// What became of a job.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A shim has it.
    Alive(Contents),
    /// It ended; what the slot says is on disk.
    Ended(Contents),
    /// It was accepted and not begun: nobody is on it.
    Fresh,
}

/// What has to be known to decide about a job.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) job: JobId,
    pub(super) dir: PathBuf,
    pub(super) slots: PathBuf,
    pub(super) slot: u32,
    pub(super) boot: String,
    pub(super) placement: Placement,
    pub(super) cancelled_by: Option<String>,
    pub(super) now: Timestamp,
}

impl Case {
    /// Decides, and records the decision where nobody did before.
    pub(super) fn decide(&self) -> io::Result<Verdict> {
        let slot = Slot::open(&self.slots, self.slot, self.job)?;
        let Some(_lock) = self.lock()? else {
            return Ok(Verdict::Alive(slot.read()?));
        };
        let contents = slot.read()?;
        if contents.end.is_some() {
            // The shim may have been killed between writing this and syncing it.
            slot.sync()?;
            JobGroup::existing(&self.placement, &self.job.to_string()).remove();
            return Ok(Verdict::Ended(contents));
        }
        if contents.starting.is_some() {
            let end = self.interrupted(&contents);
            return Self::record(&slot, contents, end);
        }
        match &self.cancelled_by {
            Some(by) => {
                let end = self.end(
                    Outcome::Cancelled { by: by.clone() },
                    vec![self.fact("not_executed", "cancelled before the program was executed".into())],
                );
                Self::record(&slot, contents, end)
            }
            None => Ok(Verdict::Fresh),
        }
    }

    /// Records that a job could not be started; unless somebody did start it.
    pub(super) fn fail(&self, failure: &Failure) -> io::Result<Verdict> {
        let slot = Slot::open(&self.slots, self.slot, self.job)?;
        // Without a directory (a full disk) there is no lock to take, and no shim that could have begun.
        let lock = match self.lock() {
            Ok(None) => return Ok(Verdict::Alive(slot.read()?)),
            Ok(Some(lock)) => Some(lock),
            Err(_) => None,
        };
        let contents = slot.read()?;
        if contents.starting.is_some() || contents.end.is_some() {
            drop(lock);
            return self.decide();
        }
        let outcome = Outcome::FailedToStart { why: failure.why };
        let end = self.end(outcome, vec![self.fact("start_failed", failure.detail.clone())]);
        Self::record(&slot, contents, end)
    }

    fn record(slot: &Slot, mut contents: Contents, end: End) -> io::Result<Verdict> {
        slot.write_end(&end)?;
        slot.sync()?;
        contents.end = Some(end);
        Ok(Verdict::Ended(contents))
    }

    /// The lock on the job's directory; `None` where a shim has it.
    fn lock(&self) -> io::Result<Option<File>> {
        // A power cut may have taken the directory, which nobody syncs.
        make_dir(&self.dir)?;
        let path = self.dir.join(files::LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The shim is gone without a word: ends what it left and finds out why.
    fn interrupted(&self, contents: &Contents) -> End {
        let rebooted = contents.starting.as_ref().is_some_and(|starting| starting.boot != self.boot);
        let mut evidence = Vec::new();
        let why = if rebooted {
            evidence.push(self.fact("rebooted", "the host was started anew while the job ran".into()));
            Interruption::Reboot
        } else {
            let mut detail = "the shim ended without recording an outcome".to_owned();
            if let Some(log) = shim_log(&self.dir) {
                detail = format!("{detail}: {log}");
            }
            evidence.push(self.fact("shim_lost", detail));
            evidence.extend(self.kill_leftovers(contents));
            Interruption::ShimLost
        };
        let mut end = self.end(Outcome::Interrupted { why }, evidence);
        let totals = spool::measure(&self.dir).unwrap_or_default();
        end.stdout_bytes = totals.stdout;
        end.stderr_bytes = totals.stderr;
        end.mark_bytes = totals.marks();
        end.stdin_bytes = std::fs::metadata(self.dir.join(files::STDIN)).map_or(0, |file| file.len());
        end
    }

    fn kill_leftovers(&self, contents: &Contents) -> Option<Evidence> {
        let id = self.job.to_string();
        let group = JobGroup::existing(&self.placement, &id);
        let main = contents.started.as_ref().map(|started| (started.main.pid, started.main.start_ticks));
        let (found, empty) = if group.holds_tree() {
            (group.processes(), group.kill())
        } else {
            let found = || tree::leftovers(main, &id);
            (found(), tree::kill_all(KILL_ROUNDS, found))
        };
        group.remove();
        if found.is_empty() {
            return None;
        }
        let mut detail = tree::names(&found, NAMED);
        if !empty {
            detail.push_str("; some are still not gone");
        }
        Some(self.fact("killed", detail))
    }

    fn end(&self, outcome: Outcome, evidence: Vec<Evidence>) -> End {
        let at = self.now;
        End { at, outcome, stdout_bytes: 0, stderr_bytes: 0, mark_bytes: 0, stdin_bytes: 0, evidence }
    }

    fn fact(&self, fact: &str, detail: String) -> Evidence {
        Evidence { at: self.now, witness: Witness::Agent, fact: fact.into(), detail: Some(detail) }
    }
}

/// The end of what the shim wrote to its log.
pub(super) fn shim_log(dir: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(dir.join(files::LOG)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG))).ok()?;
    let mut text = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
    (!text.is_empty()).then_some(text)
}

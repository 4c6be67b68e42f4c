//! One job as the agent knows it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datacentered_proto::ops::job::{JobReport, Window};
use datacentered_proto::outcome::Witness;
use datacentered_proto::{Error, Evidence, JobId, JobState, Outcome, RunId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use super::asked::Resized;
use crate::journal::Entry;
use crate::journal::slots::{Contents, End, Started, fit_evidence};
use crate::shim::launch::files;
use crate::shim::wire::Progress;

/// Commands that may wait for a job's shim.
pub(super) const MAX_COMMANDS: usize = 64;

/// What a job's supervisor is asked to pass on. All but signals and windows are only nudges: the facts are in the job.
#[derive(Debug)]
pub(super) enum Command {
    Cancel,
    Acked,
    Input,
    Signal { signal: i32, reply: oneshot::Sender<u32> },
    Resize { window: Window, reply: oneshot::Sender<Resized> },
}

/// How far a job is, for those who follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flow {
    /// Bytes of both streams.
    pub(super) offset: u64,
    /// Bytes of standard input that the process was given.
    pub(super) delivered: u64,
    /// Where the output ends, once it has.
    pub(super) ended: Option<u64>,
    /// The outcome is on disk.
    pub(super) durable: bool,
    /// It was forgotten.
    pub(super) released: bool,
}

/// Standard input on the host.
#[derive(Debug, Default)]
pub(super) struct Stdin {
    pub(super) file: Option<File>,
    pub(super) length: u64,
    pub(super) eof: bool,
}

#[derive(Debug)]
struct Facts {
    at: Timestamp,
    notes: Vec<Evidence>,
    started: Option<Started>,
    cancel: Option<(Timestamp, String)>,
    end: Option<End>,
    decided: Option<Outcome>,
    progress: Progress,
    stdin_length: u64,
    stdin_eof: bool,
    acked: u64,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) run: RunId,
    pub(super) slot: Option<u32>,
    pub(super) dir: PathBuf,
    pub(super) stdin: tokio::sync::Mutex<Stdin>,
    facts: Mutex<Facts>,
    flow: watch::Sender<Flow>,
    commands: mpsc::Sender<Command>,
}

impl Job {
    /// From what the journal has; the commands are for its supervisor.
    pub(super) fn new(entry: Entry, dir: PathBuf) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let decided = entry.outcome;
        let flow = Flow { ended: decided.as_ref().map(|_| 0), durable: decided.is_some(), ..Flow::default() };
        let stdin_length = std::fs::metadata(dir.join(files::STDIN)).map_or(0, |file| file.len());
        let acked = std::fs::read(dir.join(files::ACKED)).ok().and_then(|bytes| bytes.try_into().ok());
        let acked = acked.map_or(0, u64::from_le_bytes);
        let job = Self {
            id: entry.job,
            run: entry.run,
            slot: entry.slot,
            dir,
            stdin: tokio::sync::Mutex::new(Stdin { length: stdin_length, ..Stdin::default() }),
            facts: Mutex::new(Facts {
                at: entry.at,
                notes: Vec::new(),
                started: None,
                cancel: entry.cancel,
                end: None,
                decided,
                progress: Progress::default(),
                stdin_length,
                stdin_eof: false,
                acked,
            }),
            flow: watch::Sender::new(flow),
            commands,
        };
        (job, receiver)
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has its outcome.
    pub(super) fn is_ended(&self) -> bool {
        let facts = self.facts();
        facts.end.is_some() || facts.decided.is_some()
    }

    /// Whether its process was started.
    pub(super) fn is_started(&self) -> bool {
        self.facts().started.is_some()
    }

    /// Who cancelled it.
    pub(super) fn cancelled_by(&self) -> Option<String> {
        self.facts().cancel.as_ref().map(|(_, by)| by.clone())
    }

    /// A cancel is in the journal; the first one counts.
    pub(super) fn cancel(&self, at: Timestamp, by: &str) {
        self.facts().cancel.get_or_insert_with(|| (at, by.to_owned()));
    }

    /// Adds a fact that the agent saw.
    pub(super) fn note(&self, at: Timestamp, fact: &str, detail: String) {
        let entry = Evidence { at, witness: Witness::Agent, fact: fact.into(), detail: Some(detail) };
        self.facts().notes.push(entry);
    }

    /// The shim says that the program was executed. Returns whether that is news.
    pub(super) fn started(&self, started: Started) -> bool {
        self.facts().started.replace(started).is_none()
    }

    /// The shim says how far output and input are.
    pub(super) fn progress(&self, progress: Progress) {
        self.facts().progress = progress;
        self.flow.send_if_modified(|flow| {
            let before = *flow;
            if flow.ended.is_none() {
                flow.offset = progress.stdout + progress.stderr + progress.marks;
            }
            flow.delivered = progress.stdin;
            *flow != before
        });
    }

    /// It has ended; `durable` where that is on disk. Returns whether that is news.
    pub(super) fn ended(&self, end: End, durable: bool) -> bool {
        let offset = end.offset();
        let news = {
            let mut facts = self.facts();
            let news = facts.end.is_none() && facts.decided.is_none();
            if news {
                facts.end = Some(end);
            }
            news
        };
        self.flow.send_modify(|flow| {
            flow.offset = offset;
            flow.ended.get_or_insert(offset);
            flow.durable |= durable;
        });
        news
    }

    /// Outcome and output are on disk.
    pub(super) fn durable(&self) {
        self.flow.send_modify(|flow| flow.durable = true);
    }

    /// It is forgotten: readers end.
    pub(super) fn released(&self) {
        self.flow.send_modify(|flow| flow.released = true);
    }

    /// What its slot says.
    pub(super) fn restore(&self, contents: &Contents) {
        let mut facts = self.facts();
        facts.started.clone_from(&contents.started);
        if facts.end.is_none() {
            facts.end.clone_from(&contents.end);
        }
    }

    /// To follow how far it is.
    pub(super) fn flow(&self) -> watch::Receiver<Flow> {
        self.flow.subscribe()
    }

    /// Output below this offset is on the hub's disk. Noted in the job's directory, so that a later agent tells the
    /// shim again what this one may not have got through.
    pub(super) fn ack(&self, upto: u64) -> u64 {
        let mut facts = self.facts();
        if upto > facts.acked {
            facts.acked = upto;
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
            // Without the note the hub's next acknowledgement does the same.
            let _ = file
                .open(self.dir.join(files::ACKED))
                .and_then(|file| file.write_all_at(&upto.to_le_bytes(), 0));
        }
        facts.acked
    }

    /// Standard input has grown.
    pub(super) fn stdin_grown(&self, length: u64, eof: bool) {
        let mut facts = self.facts();
        facts.stdin_length = facts.stdin_length.max(length);
        facts.stdin_eof |= eof;
    }

    /// What a shim has to be told after a connection was made: acknowledged output, length and end of input.
    pub(super) fn for_shim(&self) -> (u64, u64, bool) {
        let facts = self.facts();
        (facts.acked, facts.stdin_length, facts.stdin_eof)
    }

    /// Wakes the supervisor. With a full queue it is awake, and what it has to pass on is in the job.
    pub(super) fn nudge(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    /// Passes a signal on and waits for the count of processes that got it.
    pub(super) async fn signal(&self, signal: i32) -> Result<u32, Error> {
        let away = || Error::unavailable("the job's shim cannot be reached at the moment; try again");
        let (reply, answer) = oneshot::channel();
        let command = Command::Signal { signal, reply };
        self.commands.try_send(command).map_err(|_| away())?;
        answer.await.map_err(|_| away())
    }

    /// Gives a terminal another window.
    pub(super) async fn resize(&self, window: Window) -> Result<(), Error> {
        let away = || Error::unavailable("the terminal's shim cannot be reached at the moment; try again");
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command::Resize { window, reply }).map_err(|_| away())?;
        match answer.await.map_err(|_| away())? {
            Resized::Done => Ok(()),
            Resized::NoTerminal => {
                Err(Error::conflict("the terminal was hung up; it has no window any more"))
            }
            Resized::ShimTooOld => Err(Error::conflict(
                "the job's shim was started by an older agent that knows no terminals; open a new one",
            )),
        }
    }

    /// The report for the hub, with how far the journal is.
    pub(super) fn report(&self, high_water: u64) -> JobReport {
        let facts = self.facts();
        let outcome = facts.decided.clone().or_else(|| facts.end.as_ref().map(|end| end.outcome.clone()));
        let state = match (&outcome, &facts.started) {
            (Some(_), _) => JobState::Ended,
            (None, Some(_)) => JobState::Running,
            (None, None) => JobState::Accepted,
        };
        let counts = facts.end.as_ref().map(|end| (end.stdout_bytes, end.stderr_bytes, end.mark_bytes));
        let Progress { stdout, stderr, marks, .. } = facts.progress;
        let (stdout_bytes, stderr_bytes, mark_bytes) = counts.unwrap_or((stdout, stderr, marks));
        JobReport {
            job: self.id,
            run: self.run,
            state,
            evidence: facts.evidence(),
            started: facts.started.as_ref().map(|started| started.at),
            ended: facts.end.as_ref().map(|end| end.at).or_else(|| facts.decided.as_ref().map(|_| facts.at)),
            outcome,
            stdout_bytes,
            stderr_bytes,
            mark_bytes,
            stdin_bytes: facts.stdin_length.max(facts.end.as_ref().map_or(0, |end| end.stdin_bytes)),
            high_water,
        }
    }
}

impl Facts {
    /// In the order in which it was learnt, the same whether the agent was there or reads it from disk.
    fn evidence(&self) -> Vec<Evidence> {
        let agent = |at: Timestamp, fact: &str, detail: Option<String>| Evidence {
            at,
            witness: Witness::Agent,
            fact: fact.into(),
            detail,
        };
        let mut all = Vec::new();
        match &self.decided {
            None => all.push(agent(self.at, "accepted", None)),
            Some(Outcome::Cancelled { by }) => {
                all.push(agent(self.at, "cancelled", Some(format!("by {by}, before the job came"))));
            }
            Some(Outcome::Refused { why }) => all.push(agent(self.at, "refused", Some(why.clone()))),
            Some(outcome) => all.push(agent(self.at, outcome.kind(), Some(outcome.to_string()))),
        }
        all.extend(self.notes.iter().cloned());
        let cancel =
            self.cancel.as_ref().map(|(at, by)| agent(*at, "cancel_requested", Some(format!("by {by}"))));
        let (before, after) = match (&cancel, &self.started) {
            (Some(cancel), Some(started)) if cancel.at < started.at => (Some(cancel.clone()), None),
            _ => (None, cancel),
        };
        all.extend(before);
        all.extend(self.started.iter().flat_map(|started| started.evidence.iter().cloned()));
        all.extend(after);
        all.extend(self.end.iter().flat_map(|end| end.evidence.iter().cloned()));
        fit_evidence(all)
    }
}

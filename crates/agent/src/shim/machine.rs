//! The shim's one loop.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use datacentered_proto::Evidence;
use datacentered_proto::outcome::Witness;
use rustix::process::WaitOptions;

use super::connection::{Connection, Received};
use super::ending::{Force, fail};
use super::input::Feeder;
use super::launch::VERSION;
use super::output::{CHUNK, Stream};
use super::setup::Owned;
use super::start::{self, Ends, Waiting};
use super::terminal::Terminal;
use super::timer::{Timer, boot_now, wall_now};
use super::wire::{FromShim, Progress, Syncs, ToShim};
use crate::cgroup::JobGroup;
use crate::journal::slots::{ProcessMark, Started, Starting};
use crate::process::child::GO;
use crate::process::failure::{Failure, Step};
use crate::spool::{Limits, SpoolWriter};
use crate::sys;

/// Most reports of one child before its exec.
const MAX_REPORTS: usize = 4;

/// How the main process ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
}

/// A job whose process was started.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) owned: Owned,
    pub(super) agent: Option<Connection>,
    pub(super) timer: Timer,
    pub(super) main: ProcessMark,
    pub(super) group: JobGroup,
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
    pub(super) feeder: Feeder,
    pub(super) terminal: Option<Terminal>,
    pub(super) report: Option<OwnedFd>,
    pub(super) program: String,
    pub(super) spool: SpoolWriter,
    pub(super) started: Option<Started>,
    pub(super) failure: Option<Failure>,
    pub(super) exit: Option<Exit>,
    pub(super) force: Option<Force>,
    pub(super) timeout_at: Option<Duration>,
    pub(super) term_at: Option<Duration>,
    pub(super) kill_at: Option<Duration>,
    pub(super) drain_until: Option<Duration>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) seen: bool,
    pub(super) told: Progress,
    pub(super) syncs: Syncs,
}

impl Machine {
    /// Starts the job's process, stays with it to its end, and records how it ended.
    pub(super) fn run(owned: Owned, mut connection: Connection) -> io::Result<()> {
        let waiting = match start::fork(&owned.launch) {
            Ok(waiting) => waiting,
            Err(failure) => return fail(&owned, connection, &failure),
        };
        // The child makes itself ready while this is written to disk.
        let at = wall_now();
        let starting = Starting { at, boot: owned.launch.boot.clone(), shim: start::own_mark() };
        let written = owned.slot.write_starting(&starting).and_then(|()| owned.slot.sync());
        if let Err(error) = written {
            drop(waiting.go);
            return fail(&owned, connection, &Failure::io(Step::Files, &error, "(slot)"));
        }
        let early = received_early(&mut connection);
        let mut machine = Self::new(owned, connection, waiting, early)?;
        machine.work()?;
        machine.end()
    }

    fn new(owned: Owned, connection: Connection, waiting: Waiting, early: Vec<ToShim>) -> io::Result<Self> {
        let Waiting { main, ends, group, plan, go, report, weaker_limits } = waiting;
        let Ends { stdout, stderr, feeder, terminal } = ends;
        let spec = &owned.launch.spec;
        let limits = Limits {
            spool_bytes: spec.spool_bytes,
            output_bytes: spec.output_bytes,
            when_full: spec.when_full,
        };
        let mut machine = Self {
            agent: Some(connection),
            timer: Timer::new()?,
            main,
            group,
            stdout,
            stderr,
            feeder,
            terminal,
            report: Some(report),
            program: plan.program(),
            spool: SpoolWriter::new(".", limits),
            started: None,
            failure: None,
            exit: None,
            force: None,
            timeout_at: None,
            term_at: None,
            kill_at: None,
            drain_until: None,
            evidence: Vec::new(),
            seen: true,
            told: Progress::default(),
            syncs: Syncs { starting: 1, ..Syncs::default() },
            owned,
        };
        if let Some(words) = weaker_limits {
            machine.note("limits_by_rlimit", Some(words));
        }
        let cancelled = early.iter().find_map(|message| match message {
            ToShim::Cancel { by } => Some(by.clone()),
            _ => None,
        });
        if let Some(by) = cancelled {
            // Dropping the pipe without the word ends the child before its exec.
            machine.force = Some(Force::Cancelled(by));
            machine.note("not_executed", Some("cancelled before the program was executed".into()));
        } else {
            // A child that has failed already is not there to read it; its report says why.
            let _ = rustix::io::write(&go, &[GO]);
        }
        drop(go);
        drop(plan);
        machine.greet();
        for message in early {
            machine.obey(message);
        }
        sys::trim_heap();
        Ok(machine)
    }

    pub(super) fn note(&mut self, fact: &str, detail: Option<String>) {
        self.evidence.push(Evidence { at: wall_now(), witness: Witness::Shim, fact: fact.into(), detail });
    }

    /// Everything from the exec to the last byte of output.
    fn work(&mut self) -> io::Result<()> {
        let mut buffer = vec![0u8; CHUNK];
        while !self.is_done() {
            self.timer.set(self.next_moment());
            let ready = self.wait()?;
            if ready.report {
                self.read_report();
            }
            if ready.agent {
                self.read_agent();
            }
            if ready.room && self.agent.as_mut().is_some_and(|agent| !agent.flush()) {
                self.agent = None;
            }
            if ready.listener {
                self.accept();
            }
            if ready.stdin {
                self.feeder.feed();
            }
            if ready.stdout {
                match &mut self.terminal {
                    Some(terminal) => terminal.pump(&mut self.stdout, &mut buffer, &mut self.spool),
                    None => self.stdout.pump(&mut buffer, &mut self.spool),
                }
            }
            if ready.stderr {
                self.stderr.pump(&mut buffer, &mut self.spool);
            }
            if ready.child {
                self.reap();
            }
            if ready.timer {
                self.timer.clear();
            }
            self.act_on_time();
            self.hang_up_at_end(&mut buffer);
            self.tell_progress();
        }
        // What is in the pipes after the drain's end belongs to processes that were left behind.
        self.stdout.pipe = None;
        self.stderr.pipe = None;
        self.feeder.close();
        Ok(())
    }

    fn is_done(&self) -> bool {
        if self.exit.is_none() || self.report.is_some() {
            return false;
        }
        // Forced ends wait for the whole tree, until it was killed.
        if self.force.is_some() && self.kill_at.is_some() {
            return false;
        }
        let closed = self.stdout.pipe.is_none() && self.stderr.pipe.is_none();
        closed || self.drain_until.is_some_and(|until| boot_now() >= until)
    }

    fn next_moment(&self) -> Option<Duration> {
        [self.timeout_at, self.term_at, self.kill_at, self.drain_until].into_iter().flatten().min()
    }

    pub(super) fn say(&mut self, message: &FromShim) {
        if self.agent.as_mut().is_some_and(|agent| !agent.send(message)) {
            self.agent = None;
        }
    }

    fn greet(&mut self) {
        let hello =
            FromShim::Hello { version: VERSION, pid: start::own_mark().pid, started: self.started.clone() };
        self.say(&hello);
        self.seen = true;
        self.told = Progress::default();
    }

    fn accept(&mut self) {
        if let Some(connection) = self.owned.listener.accept() {
            self.agent = Some(connection);
            self.greet();
        }
    }

    fn read_agent(&mut self) {
        loop {
            let Some(agent) = &mut self.agent else { return };
            match agent.receive() {
                Received::Message(message) => self.obey(message),
                Received::Nothing => return,
                Received::Gone => {
                    self.agent = None;
                    return;
                }
            }
        }
    }

    fn obey(&mut self, message: ToShim) {
        match message {
            ToShim::Seen => self.seen = true,
            ToShim::Cancel { by } => self.force(Force::Cancelled(by)),
            ToShim::Signal { id, signal } => {
                let processes = self.signal_tree(signal);
                self.say(&FromShim::Signalled { id, processes });
            }
            ToShim::Resize { id, window } => {
                let done = self.resize(window);
                self.say(&FromShim::Resized { id, done });
            }
            ToShim::Ack { upto } => self.spool.ack(upto),
            ToShim::Input { length, eof } => self.feeder.grown(length, eof),
            ToShim::Hello { .. } | ToShim::Go { .. } | ToShim::Unknown => {}
        }
    }

    fn reap(&mut self) {
        // Signals of one kind are merged: that there was one is all there is to know.
        let mut ignored = [0u8; 512];
        let _ = rustix::io::read(&self.owned.signals, &mut ignored);
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if pid.as_raw_nonzero().get() == self.main.pid {
                        let exit = match (status.exit_status(), status.terminating_signal()) {
                            (Some(code), _) => Exit::Code(code),
                            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
                        };
                        self.exit = Some(exit);
                        self.main_ended();
                    }
                }
                Ok(None) => break,
                // No children at all: nothing is left of the tree.
                Err(_) => {
                    if self.exit.is_some() {
                        self.kill_at = None;
                    }
                    break;
                }
            }
        }
    }

    fn main_ended(&mut self) {
        // The report's end comes before the exit; read it so that a failed start is not taken for an exit.
        for _ in 0..MAX_REPORTS {
            self.read_report();
        }
        self.report = None;
        self.timeout_at = None;
        self.spool.drain();
        self.feeder.close();
        if let Some(terminal) = &mut self.terminal {
            terminal.release();
        }
        if self.kill_at.is_none() {
            self.begin_drain();
        }
    }

    fn begin_drain(&mut self) {
        let drain = Duration::from_millis(self.owned.launch.drain_ms);
        self.drain_until = boot_now().checked_add(drain);
    }

    fn act_on_time(&mut self) {
        let now = boot_now();
        if self.timeout_at.is_some_and(|at| now >= at) {
            self.force(Force::TimedOut);
        }
        if self.term_at.is_some_and(|at| now >= at) {
            self.terminate();
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_tree();
            self.kill_at = None;
            self.reap();
        }
        if self.exit.is_some() && self.kill_at.is_none() && self.drain_until.is_none() {
            self.begin_drain();
        }
    }

    fn tell_progress(&mut self) {
        let totals = self.spool.totals();
        let progress = Progress {
            stdout: totals.stdout,
            stderr: totals.stderr,
            marks: totals.marks(),
            stdin: self.feeder.delivered(),
        };
        if self.seen && progress != self.told && self.agent.is_some() {
            self.seen = false;
            self.told = progress;
            self.say(&FromShim::Progress(progress));
        }
    }
}

/// What the agent said while the start was written: a cancel among it means that nothing is executed.
fn received_early(connection: &mut Connection) -> Vec<ToShim> {
    let mut messages = Vec::new();
    while let Received::Message(message) = connection.receive() {
        messages.push(message);
    }
    messages
}

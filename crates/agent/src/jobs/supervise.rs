//! One task per job that has not ended: keeps the connection to its shim, passes on, and decides when it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Shared;
use super::asked::Asked;
use super::examine::{Verdict, shim_log};
use super::job::{Command, Job};
use super::start::Shim;
use crate::process::failure::{Failure, Step};
use crate::shim::launch::VERSION;
use crate::shim::wire::{FromShim, Syncs, ToShim};

/// How often a shim that ends before it has begun is started again.
const MAX_STARTS: u32 = 3;

/// Pauses between attempts to reach a shim.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a conversation with a shim ended.
#[derive(PartialEq, Eq)]
enum Parted {
    /// Outcome and output are on disk.
    Done,
    /// The connection was lost.
    Lost,
    /// The agent is leaving; the shim stays.
    Stopping,
}

pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) job: Arc<Job>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) starts: u32,
}

impl Supervisor {
    /// Stays with the job to its end. `verdict` is what is known so far; `shim` a connection that exists already.
    pub(super) async fn run(mut self, mut shim: Option<Shim>, mut verdict: Option<Verdict>) {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(shim) = shim.take() {
                match self.converse(&shim).await {
                    Parted::Done | Parted::Stopping => return,
                    Parted::Lost => {}
                }
            }
            let decided = match verdict.take() {
                Some(verdict) => Some(verdict),
                None => self.shared.examine(&self.job).await,
            };
            match decided {
                Some(Verdict::Ended(contents)) => {
                    self.shared.restored(&self.job, &contents);
                    return;
                }
                Some(Verdict::Alive(contents)) => {
                    self.shared.seen_alive(&self.job, &contents);
                    shim = Shim::connect(&self.job.dir).ok();
                }
                Some(Verdict::Fresh) => shim = self.start().await,
                None => {}
            }
            if shim.is_some() {
                pause = FIRST_PAUSE;
                continue;
            }
            if self.job.is_ended() && self.job.flow().borrow().durable {
                return;
            }
            if !self.rest(pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits; commands meanwhile are kept in the job, except signals and windows, which nobody can get now.
    async fn rest(&mut self, pause: Duration) -> bool {
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return true,
                () = self.shared.stop.cancelled() => return false,
                Some(command) = self.commands.recv() => drop(command),
            }
        }
    }

    /// Starts a shim for a job that was accepted and not begun.
    async fn start(&mut self) -> Option<Shim> {
        let shared = Arc::clone(&self.shared);
        let slot = self.job.slot?;
        let failure = if self.starts >= MAX_STARTS {
            let words = shim_log(&self.job.dir).unwrap_or_else(|| "it left no words".into());
            Failure::at(
                Step::Prepare,
                0,
                &format!("(the shim ended {MAX_STARTS} times before it began: {words})"),
            )
        } else {
            // Released, or the disk does not answer: tried again later.
            let Ok(Some(offer)) = shared.journal.offer(self.job.id).await else { return None };
            self.starts += 1;
            if self.starts > 1 {
                self.job.note(shared.clock.wall(), "started_again", "the shim ended before it began".into());
            }
            let started = match shared.resolve(&offer).await {
                Ok(identity) => Shim::spawn(&shared, &offer, identity),
                Err(failure) => Err(failure),
            };
            match started {
                Ok(shim) => match shim.go(slot) {
                    Ok(()) => return Some(shim),
                    Err(_) => return None,
                },
                Err(failure) => failure,
            }
        };
        shared.fail(&self.job, failure).await;
        None
    }

    async fn converse(&mut self, shim: &Shim) -> Parted {
        let mut asked = Asked::default();
        if self.catch_up(shim).await.is_err() {
            return self.last_words(shim).await;
        }
        loop {
            tokio::select! {
                message = shim.socket.receive() => match message {
                    Ok(Some(FromShim::Synced(syncs))) => {
                        self.synced(&syncs);
                        return Parted::Done;
                    }
                    Ok(Some(message)) => {
                        asked.hear(&message);
                        if self.hear(shim, message).await.is_err() {
                            return self.last_words(shim).await;
                        }
                    }
                    Ok(None) | Err(_) => return Parted::Lost,
                },
                Some(command) = self.commands.recv() => {
                    let sent = match command {
                        Command::Signal { signal, reply } => {
                            shim.socket.send(&asked.signal(signal, reply)).await
                        }
                        Command::Resize { window, reply } => match asked.resize(window, reply) {
                            Some(message) => shim.socket.send(&message).await,
                            None => Ok(()),
                        },
                        Command::Cancel => self.pass_cancel(shim).await,
                        Command::Acked => {
                            let (upto, ..) = self.job.for_shim();
                            shim.socket.send(&ToShim::Ack { upto }).await
                        }
                        Command::Input => {
                            let (_, length, eof) = self.job.for_shim();
                            shim.socket.send(&ToShim::Input { length, eof }).await
                        }
                    };
                    if sent.is_err() {
                        return self.last_words(shim).await;
                    }
                }
                () = self.shared.stop.cancelled() => return Parted::Stopping,
            }
        }
    }

    /// Tells a shim what it may have missed.
    async fn catch_up(&self, shim: &Shim) -> std::io::Result<()> {
        shim.socket.send(&ToShim::Hello { version: VERSION }).await?;
        let (upto, length, eof) = self.job.for_shim();
        if upto > 0 {
            shim.socket.send(&ToShim::Ack { upto }).await?;
        }
        if length > 0 || eof {
            shim.socket.send(&ToShim::Input { length, eof }).await?;
        }
        self.pass_cancel(shim).await
    }

    async fn pass_cancel(&self, shim: &Shim) -> std::io::Result<()> {
        match self.job.cancelled_by() {
            Some(by) => shim.socket.send(&ToShim::Cancel { by }).await,
            None => Ok(()),
        }
    }

    async fn hear(&self, shim: &Shim, message: FromShim) -> std::io::Result<()> {
        match message {
            FromShim::Hello { started: Some(started), .. } | FromShim::Started(started) => {
                if self.job.started(started) {
                    self.shared.changes.publish(self.job.id);
                }
            }
            FromShim::Progress(progress) => {
                self.job.progress(progress);
                shim.socket.send(&ToShim::Seen).await?;
            }
            FromShim::Ended(end) => {
                if self.job.ended(end, false) {
                    self.shared.changes.publish(self.job.id);
                }
            }
            FromShim::Hello { started: None, .. }
            | FromShim::Signalled { .. }
            | FromShim::Resized { .. }
            | FromShim::Synced(_)
            | FromShim::Unknown => {}
        }
        Ok(())
    }

    /// A shim that cannot be written to any more has left; what it said before is still in the socket.
    async fn last_words(&self, shim: &Shim) -> Parted {
        while let Ok(Some(message)) = shim.socket.receive().await {
            if let FromShim::Synced(syncs) = &message {
                self.synced(syncs);
                return Parted::Done;
            }
            // It needs no answers any more.
            let _ = self.hear(shim, message).await;
        }
        Parted::Lost
    }

    fn synced(&self, syncs: &Syncs) {
        self.shared.count(syncs);
        self.job.durable();
    }
}

//! Taking jobs and cancelling them: what the journal has to say before anything happens.

use std::sync::Arc;

use datacentered_proto::ops::job::{JobReport, Offer, TerminalSpec, Window};
use datacentered_proto::outcome::StartFailure;
use datacentered_proto::{Error, JobId, RunId};
use tokio::sync::watch;

use super::error::wire;
use super::job::{Command, Job};
use super::shared::Shared;
use super::start::Shim;
use super::supervise::Supervisor;
use crate::journal::{Entry, JournalError, Record};
use crate::process::failure::Failure;

/// A job id that is reserved for one offer or cancel.
struct Claim {
    shared: Arc<Shared>,
    job: JobId,
    _arriving: watch::Sender<()>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.table().arriving.remove(&self.job);
    }
}

/// Longest name of a kind of terminal, in bytes.
const MAX_TERM: usize = 128;

fn check_terminal(terminal: &TerminalSpec) -> Result<(), Error> {
    check_window(terminal.window)?;
    let term = &terminal.term;
    if term.is_empty() || term.len() > MAX_TERM || !term.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid(format!(
            "the value of TERM is 1 to {MAX_TERM} printable characters without spaces, such as xterm-256color"
        )));
    }
    Ok(())
}

/// Refuses a window that no terminal can have.
pub(super) fn check_window(window: Window) -> Result<(), Error> {
    if window.is_valid() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a window has 1 to {max} columns and rows, not {cols} by {rows}",
        max = Window::MAX,
        cols = window.cols,
        rows = window.rows
    )))
}

enum Claimed {
    Known(Arc<Job>),
    Claim(Claim),
}

impl Shared {
    /// Reserves a job's id, or finds the job; waits for another who has it reserved.
    async fn claim(self: &Arc<Self>, job: JobId) -> Claimed {
        loop {
            let mut other = {
                let mut table = self.table();
                if let Some(known) = table.jobs.get(&job) {
                    return Claimed::Known(Arc::clone(known));
                }
                if let Some(other) = table.arriving.get(&job) {
                    other.clone()
                } else {
                    let (sender, receiver) = watch::channel(());
                    table.arriving.insert(job, receiver);
                    return Claimed::Claim(Claim { shared: Arc::clone(self), job, _arriving: sender });
                }
            };
            // Nothing is ever sent: this ends when the other is done.
            let _ = other.changed().await;
        }
    }

    /// In a task of its own, so that a caller that goes away does not leave a job half taken.
    async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.tasks.spawn(work).await;
        done.unwrap_or_else(|_| Err(Error::indeterminate("the agent is stopping; repeat it when it is back")))
    }

    pub(super) async fn offer(self: Arc<Self>, offer: Offer) -> Result<JobReport, Error> {
        self.check(&offer)?;
        match self.claim(offer.job).await {
            Claimed::Known(job) => Ok(self.report(&job)),
            Claimed::Claim(claim) => {
                let shared = Arc::clone(&self);
                self.whole(async move { shared.admit(claim, offer).await }).await
            }
        }
    }

    fn check(&self, offer: &Offer) -> Result<(), Error> {
        if offer.incarnation != self.journal.incarnation() {
            return Err(Error::conflict("the job is bound to another journal of this host; it is lost")
                .with_details(serde_json::json!({ "incarnation": self.journal.incarnation() })));
        }
        if self.stop.is_cancelled() {
            return Err(Error::unavailable("the agent is stopping; offer it again when it is back"));
        }
        let spec = &offer.spec;
        if let Some(terminal) = &spec.terminal {
            check_terminal(terminal)?;
        } else if spec.argv.is_empty() && spec.script.is_none() {
            return Err(Error::invalid("there is nothing to execute; give argv or a script"));
        }
        let interpreter = spec.script.iter().flat_map(|script| &script.interpreter);
        let texts = spec.argv.iter().chain(interpreter).chain(spec.env.values()).chain(&spec.cwd);
        if texts.into_iter().any(|text| text.as_bytes().contains(&0)) {
            return Err(Error::invalid("arguments, environment and directories cannot hold a byte 0"));
        }
        let bad = |name: &String| name.is_empty() || name.contains(['=', '\0']);
        if spec.env.keys().any(bad) {
            return Err(Error::invalid(
                "names in the environment are not empty and hold neither '=' nor a byte 0",
            ));
        }
        let size = serde_json::to_vec(spec).map_or(usize::MAX, |json| json.len());
        if size > self.config.max_spec {
            let limit = self.config.max_spec;
            return Err(Error::too_large(format!(
                "the command takes {size} bytes as JSON, more than {limit}; send large data as standard input"
            )));
        }
        Ok(())
    }

    async fn admit(self: Arc<Self>, claim: Claim, offer: Offer) -> Result<JobReport, Error> {
        let at = self.clock.wall();
        let (job, run) = (offer.job, offer.run);
        self.room()?;
        let identity = self.resolve(&offer).await;
        if let Some(why) = self.config.refuse.why(&offer, identity.as_ref().ok(), at) {
            tracing::info!(%job, %run, by = offer.by, "refused a job: {why}");
            return self.decided(claim, Record::Refused { at, job, run, why }).await;
        }
        // The shim's own start overlaps with the journal's sync; it waits for the word.
        let prepared = match identity {
            Ok(identity) => Shim::spawn(&self, &offer, identity),
            Err(failure) => Err(failure),
        };
        let full = matches!(&prepared, Err(Failure { why: StartFailure::DiskFull, .. }));
        let accepted = if full {
            Err(JournalError::DiskFull { path: self.config.dir.clone() })
        } else {
            self.journal.accept(at, offer).await
        };
        let slot = match accepted {
            Ok(slot) => slot,
            Err(error) => {
                drop(prepared);
                let _ = std::fs::remove_dir_all(self.job_dir(job));
                if let JournalError::DiskFull { .. } = error {
                    let record = Record::NoRoom { at, job, run, why: StartFailure::DiskFull };
                    return self.decided(claim, record).await;
                }
                return Err(wire(&error));
            }
        };
        let entry = Entry { job, run, at, slot: Some(slot), outcome: None, cancel: None };
        let (job, commands) = Job::new(entry, self.job_dir(job));
        let job = Arc::new(job);
        let shim = match prepared {
            Ok(shim) => shim.go(slot).is_ok().then_some(shim),
            Err(failure) => {
                self.fail(&job, failure).await;
                None
            }
        };
        self.insert(Arc::clone(&job));
        drop(claim);
        self.changes.publish(job.id);
        if !job.flow().borrow().durable {
            let shared = Arc::clone(&self);
            let supervisor = Supervisor { shared, job: Arc::clone(&job), commands, starts: 1 };
            self.tasks.spawn(supervisor.run(shim, None));
        }
        Ok(self.report(&job))
    }

    /// A job that ends where it begins: the journal itself has its outcome.
    async fn decided(&self, claim: Claim, record: Record) -> Result<JobReport, Error> {
        let entry = Entry::begin(&record).ok_or_else(|| Error::internal("not the beginning of a job"))?;
        self.journal.append(record, true).await.map_err(|error| wire(&error))?;
        let (job, _) = Job::new(entry, self.job_dir(claim.job));
        let job = Arc::new(job);
        self.insert(Arc::clone(&job));
        drop(claim);
        self.changes.publish(job.id);
        Ok(self.report(&job))
    }

    /// Slots bound the accepted jobs; this bounds the table, refusals and tombstones included.
    fn room(&self) -> Result<(), Error> {
        let limit = self.config.max_jobs as usize * 2;
        if self.table().jobs.len() >= limit {
            let text = format!("the host has {limit} jobs that were not released; release some");
            return Err(Error::limited(text).with_retry_after_ms(1000));
        }
        Ok(())
    }

    pub(super) async fn cancel(
        self: Arc<Self>,
        job: JobId,
        run: RunId,
        by: String,
    ) -> Result<JobReport, Error> {
        let shared = Arc::clone(&self);
        match self.claim(job).await {
            Claimed::Known(job) => self.whole(async move { shared.cancel_known(job, by).await }).await,
            Claimed::Claim(claim) => {
                self.room()?;
                let at = self.clock.wall();
                let record = Record::Tombstone { at, job, run, by };
                self.whole(async move { shared.decided(claim, record).await }).await
            }
        }
    }

    async fn cancel_known(&self, job: Arc<Job>, by: String) -> Result<JobReport, Error> {
        if !job.is_ended() && job.cancelled_by().is_none() {
            let at = self.clock.wall();
            let record = Record::Cancel { at, job: job.id, by: by.clone() };
            self.journal.append(record, true).await.map_err(|error| wire(&error))?;
            job.cancel(at, &by);
            self.changes.publish(job.id);
        }
        job.nudge(Command::Cancel);
        Ok(self.report(&job))
    }
}

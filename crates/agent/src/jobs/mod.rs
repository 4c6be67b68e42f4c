//! Jobs on this host: accepted durably, started at most once, followed to exactly one outcome, forgotten on request.
//!
//! The journal says what was promised, each job's slot how far its shim got, each job's directory holds lock, socket,
//! output and input. From these three everything can be told again after any crash. Nothing here is ordered by clocks.

mod admit;
mod asked;
mod changes;
mod config;
mod error;
mod examine;
mod input;
mod job;
mod open;
mod output;
mod release;
mod shared;
mod socket;
mod start;
mod supervise;

use std::sync::Arc;

use datacentered_link::clock::Clock;
use datacentered_proto::ops::job::{JobReport, ListReply, Offer, Window};
use datacentered_proto::{Error, JobId, RunId};
use tokio_util::sync::CancellationToken;

pub use changes::Changes;
pub use config::{JobsConfig, Refuse, SHIM_SUBCOMMAND};
pub use error::JobsError;
pub use input::InputWriter;
pub use output::{OutputEvent, OutputReader};
pub use shared::SyncCounts;

use crate::boot::BootReader;
use crate::sys::MAX_SIGNAL;
use job::Command;
use shared::Shared;

/// Longest name of who asked for something, in bytes; longer ones are cut.
const MAX_BY: usize = 256;

/// The jobs of this host. Dropping it leaves them running, as [`Jobs::shutdown`] does in better order.
#[derive(Debug)]
pub struct Jobs {
    shared: Arc<Shared>,
}

impl Jobs {
    /// Opens the data directory: reads the journal, finds the shims that live, decides what became of the other jobs
    /// (ending what they left behind), and starts those that were accepted and not begun.
    ///
    /// A damaged journal is set aside and a new one begun, with another incarnation.
    ///
    /// # Errors
    /// [`JobsError::InUse`] where another agent has the directory; the kernel's.
    pub async fn open(config: JobsConfig, clock: Clock, boot: BootReader) -> Result<Self, JobsError> {
        Ok(Self { shared: open::open(config, clock, boot).await? })
    }

    /// The random name of this host's journal; jobs are bound to it.
    pub fn incarnation(&self) -> &str {
        self.shared.journal.incarnation()
    }

    /// How far the journal is on disk; never goes back within an incarnation.
    pub fn high_water(&self) -> u64 {
        self.shared.journal.high_water()
    }

    /// Cancelled when the journal has failed: this host takes nothing until its jobs are opened again.
    pub fn failed(&self) -> &CancellationToken {
        self.shared.journal.failed()
    }

    /// The boot's identity.
    pub fn boot_id(&self) -> String {
        self.shared.boot.clone()
    }

    /// How often the disk was waited for, by what for. For tests and benchmarks.
    pub fn syncs(&self) -> SyncCounts {
        self.shared.syncs()
    }

    /// Takes a job: it is in the journal when this returns, and its process is being started. A job that is known
    /// already is answered with its report.
    ///
    /// # Errors
    /// `invalid` for a command that can never be executed, `too_large`, `conflict` for another incarnation, `limited`
    /// with [`JobsConfig::max_jobs`] not released, `unavailable` where the journal cannot be written. What the host
    /// itself decides (a full disk, [`Refuse`]) is no error but an outcome.
    pub async fn offer(&self, offer: Offer) -> Result<JobReport, Error> {
        self.shared.clone().offer(offer).await
    }

    /// Ends a job, or makes sure that it never begins: a job that has not come leaves a tombstone. The first of start
    /// and cancel in the journal wins. The report may say that it has not ended yet.
    ///
    /// # Errors
    /// As for [`Self::offer`].
    pub async fn cancel(&self, job: JobId, run: RunId, by: &str) -> Result<JobReport, Error> {
        let by = by[..by.floor_char_boundary(MAX_BY)].to_owned();
        self.shared.clone().cancel(job, run, by).await
    }

    /// Sends a signal to every process of a job.
    ///
    /// # Errors
    /// `invalid` for no signal's number, `not_found`, `conflict` where it does not run, `unavailable` where its shim
    /// cannot be reached.
    pub async fn signal(&self, job: JobId, signal: i32) -> Result<(), Error> {
        if !(1..=MAX_SIGNAL).contains(&signal) {
            return Err(Error::invalid(format!(
                "{signal} is not a signal; use a number from 1 to {MAX_SIGNAL}"
            )));
        }
        let job = self.shared.find(job)?;
        if job.is_ended() || !job.is_started() {
            return Err(Error::conflict(format!("job {} is not running; look at its report", job.id)));
        }
        job.signal(signal).await.map(|_| ())
    }

    /// Gives a job's terminal another window; its foreground program is told by the kernel.
    ///
    /// # Errors
    /// `invalid` for a window beyond [`Window::MAX`] or of nothing and for a job without a terminal, `not_found`,
    /// `conflict` where it has ended or was hung up, `unavailable` where its shim cannot be reached.
    pub async fn resize(&self, job: JobId, window: Window) -> Result<(), Error> {
        admit::check_window(window)?;
        if self.spec(job).await?.spec.terminal.is_none() {
            return Err(Error::invalid(format!("job {job} has no terminal; only terminals have a window")));
        }
        let job = self.shared.find(job)?;
        if job.is_ended() {
            return Err(Error::conflict(format!("the terminal of job {} has ended", job.id)));
        }
        job.resize(window).await
    }

    /// A page of the jobs that were not released, by id.
    pub fn list(&self, after: Option<JobId>, limit: usize) -> ListReply {
        self.shared.list(after, limit)
    }

    /// One job's report.
    pub fn report(&self, job: JobId) -> Option<JobReport> {
        self.shared.find(job).ok().map(|job| self.shared.report(&job))
    }

    /// How many jobs have not ended.
    pub fn active(&self) -> usize {
        self.shared.all().iter().filter(|job| !job.is_ended()).count()
    }

    /// What a job was.
    ///
    /// # Errors
    /// `not_found` for a job that is not known or was never accepted.
    pub async fn spec(&self, job: JobId) -> Result<Offer, Error> {
        self.shared.find(job)?;
        let offer = self.shared.journal.offer(job).await.map_err(|error| error::wire(&error))?;
        offer.ok_or_else(|| {
            Error::not_found(format!("job {job} was not accepted here, so there is no command"))
        })
    }

    /// Tells which jobs' reports change from now on.
    pub fn changes(&self) -> Changes {
        self.shared.changes.subscribe()
    }

    /// Reads a job's output from an offset on, and as it is written.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn output(&self, job: JobId, from: u64) -> Result<OutputReader, Error> {
        Ok(OutputReader::new(self.shared.find(job)?, from, self.shared.stop.clone()))
    }

    /// The hub has the output below `upto` on its disk: the space may be used again.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn ack(&self, job: JobId, upto: u64) -> Result<(), Error> {
        let job = self.shared.find(job)?;
        let upto = job.ack(upto);
        if job.flow().borrow().durable {
            let dir = job.dir.clone();
            // Nobody writes there any more. What cannot be removed now goes with the release.
            let _ = tokio::task::spawn_blocking(move || crate::spool::discard_acked(&dir, upto)).await;
        } else {
            job.nudge(Command::Acked);
        }
        Ok(())
    }

    /// Writes a job's standard input, or types into its terminal.
    ///
    /// # Errors
    /// `not_found`; `invalid` for a job without standard input.
    pub async fn input(&self, job: JobId) -> Result<InputWriter, Error> {
        let spec = self.spec(job).await?.spec;
        if !spec.stdin && spec.terminal.is_none() {
            return Err(Error::invalid(format!("job {job} was not given a standard input; run it with one")));
        }
        let job = self.shared.find(job)?;
        Ok(InputWriter::new(job, self.shared.config.max_stdin, self.shared.stop.clone()))
    }

    /// Forgets jobs that have ended, with their output: the hub has all of it on its disk. Unknown ones are forgotten
    /// already. Waits until their outcomes are on this host's disk.
    ///
    /// # Errors
    /// `conflict` where one has not ended; the others are forgotten all the same.
    pub async fn release(&self, jobs: &[JobId]) -> Result<(), Error> {
        self.shared.clone().release(jobs).await
    }

    /// Leaves: all tasks end, every shim goes on.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

//! What all parts of the job manager share: the table of jobs, and taking, cancelling and deciding.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datacentered_link::clock::Clock;
use datacentered_proto::limits::MAX_PAGE;
use datacentered_proto::ops::job::{JobReport, ListReply, Offer};
use datacentered_proto::outcome::StartFailure;
use datacentered_proto::{Error, JobId, RunId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::JobsConfig;
use super::changes::Publisher;
use super::error::wire;
use super::examine::{Case, Verdict};
use super::job::{Command, Job};
use super::start::Shim;
use super::supervise::Supervisor;
use crate::cgroup::Placement;
use crate::journal::slots::Contents;
use crate::journal::{Entry, Journal, JournalError, Record};
use crate::process::Identity;
use crate::process::failure::Failure;
use crate::shim::wire::Syncs;

/// How often the disk was waited for, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncCounts {
    /// The journal: accepts, refusals, tombstones, cancels.
    pub journal: u64,
    /// Shims, before an exec.
    pub starting: u64,
    /// Shims, for output.
    pub spool: u64,
    /// Outcomes.
    pub end: u64,
}

#[derive(Debug, Default)]
struct Counters {
    starting: AtomicU64,
    spool: AtomicU64,
    end: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    jobs: BTreeMap<JobId, Arc<Job>>,
    /// Jobs that are on their way into the journal; dropping the sender wakes who waits for that.
    arriving: HashMap<JobId, watch::Receiver<()>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: JobsConfig,
    pub(super) clock: Clock,
    pub(super) boot: String,
    pub(super) journal: Journal,
    pub(super) placement: Placement,
    pub(super) changes: Publisher,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    own: Identity,
    table: Mutex<Table>,
    counters: Counters,
    /// Keeps other agents out. Last, so that it is given back when all else is closed.
    _lock: File,
}

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

enum Claimed {
    Known(Arc<Job>),
    Claim(Claim),
}

impl Shared {
    pub(super) fn new(
        config: JobsConfig,
        clock: Clock,
        boot: String,
        journal: Journal,
        placement: Placement,
        own: Identity,
        lock: File,
    ) -> Self {
        Self {
            config,
            clock,
            boot,
            journal,
            placement,
            changes: Publisher::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            own,
            table: Mutex::default(),
            counters: Counters::default(),
            _lock: lock,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn job_dir(&self, job: JobId) -> PathBuf {
        super::open::jobs_dir(&self.config.dir).join(job.to_string())
    }

    pub(super) fn find(&self, job: JobId) -> Result<Arc<Job>, Error> {
        let found = self.table().jobs.get(&job).cloned();
        found.ok_or_else(|| {
            Error::not_found(format!("this host has no job {job}; it never came or was released"))
        })
    }

    pub(super) fn all(&self) -> Vec<Arc<Job>> {
        self.table().jobs.values().cloned().collect()
    }

    pub(super) fn insert(&self, job: Arc<Job>) {
        self.table().jobs.insert(job.id, job);
    }

    pub(super) fn remove(&self, job: JobId) {
        self.table().jobs.remove(&job);
    }

    pub(super) fn list(&self, after: Option<JobId>, limit: usize) -> ListReply {
        let limit = limit.clamp(1, MAX_PAGE as usize);
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page: Vec<Arc<Job>> = self
            .table()
            .jobs
            .range((begin, Bound::Unbounded))
            .take(limit + 1)
            .map(|(_, job)| job.clone())
            .collect();
        let jobs: Vec<JobReport> = page.iter().take(limit).map(|job| job.report()).collect();
        let next = (page.len() > limit).then(|| jobs.last().map(|last| last.job)).flatten();
        ListReply { jobs, next }
    }

    pub(super) fn syncs(&self) -> SyncCounts {
        SyncCounts {
            journal: self.journal.syncs(),
            starting: self.counters.starting.load(Ordering::Relaxed),
            spool: self.counters.spool.load(Ordering::Relaxed),
            end: self.counters.end.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count(&self, syncs: &Syncs) {
        self.counters.starting.fetch_add(u64::from(syncs.starting), Ordering::Relaxed);
        self.counters.spool.fetch_add(u64::from(syncs.spool), Ordering::Relaxed);
        self.counters.end.fetch_add(u64::from(syncs.end), Ordering::Relaxed);
    }

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
            Claimed::Known(job) => Ok(job.report()),
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
        if spec.argv.is_empty() && spec.script.is_none() {
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
        if let Some(why) = self.config.refuse.why(&offer) {
            return self.decided(claim, Record::Refused { at, job, run, why }).await;
        }
        // The shim's own start overlaps with the journal's sync; it waits for the word.
        let prepared = match self.resolve(&offer).await {
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
        Ok(job.report())
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
        Ok(job.report())
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
        Ok(job.report())
    }

    /// Who a job runs as. The agent's own user is known; others are looked up off the runtime's thread.
    pub(super) async fn resolve(&self, offer: &Offer) -> Result<Identity, Failure> {
        let Some(user) = offer.spec.user.clone() else { return Ok(self.own.clone()) };
        let looked_up = tokio::task::spawn_blocking(move || Identity::resolve(Some(&user))).await;
        looked_up.unwrap_or_else(|error| {
            Err(Failure { why: StartFailure::Other, detail: format!("cannot look the user up: {error}") })
        })
    }

    fn case(&self, job: &Job) -> Option<Case> {
        Some(Case {
            job: job.id,
            dir: job.dir.clone(),
            slots: self.journal.slots().to_path_buf(),
            slot: job.slot?,
            boot: self.boot.clone(),
            placement: self.placement.clone(),
            cancelled_by: job.cancelled_by(),
            now: self.clock.wall(),
        })
    }

    /// What became of a job; `None` where the disk does not say for now.
    pub(super) async fn examine(&self, job: &Job) -> Option<Verdict> {
        let case = self.case(job)?;
        self.judge(job, move || case.decide()).await
    }

    /// A job could not be started.
    pub(super) async fn fail(&self, job: &Job, failure: Failure) {
        let Some(case) = self.case(job) else { return };
        if let Some(Verdict::Ended(contents)) = self.judge(job, move || case.fail(&failure)).await {
            self.restored(job, &contents);
        }
    }

    async fn judge(
        &self,
        job: &Job,
        decide: impl FnOnce() -> std::io::Result<Verdict> + Send + 'static,
    ) -> Option<Verdict> {
        match tokio::task::spawn_blocking(decide).await {
            Ok(Ok(verdict)) => {
                if let Verdict::Ended(_) = &verdict {
                    self.counters.end.fetch_add(1, Ordering::Relaxed);
                }
                Some(verdict)
            }
            Ok(Err(error)) => {
                tracing::warn!(job = %job.id, %error, "cannot read what became of a job; trying again");
                None
            }
            Err(_) => None,
        }
    }

    /// The job has ended and that is on disk.
    pub(super) fn restored(&self, job: &Job, contents: &Contents) {
        let Some(end) = contents.end.clone() else { return };
        job.restore(&Contents { end: None, ..contents.clone() });
        if job.ended(end, true) {
            self.changes.publish(job.id);
        }
    }

    /// A shim lives: what it has written so far. An end that it is still making durable is an end all the same.
    pub(super) fn seen_alive(&self, job: &Job, contents: &Contents) {
        let started = contents.started.clone().is_some_and(|started| job.started(started));
        let ended = contents.end.clone().is_some_and(|end| job.ended(end, false));
        if started || ended {
            self.changes.publish(job.id);
        }
    }
}

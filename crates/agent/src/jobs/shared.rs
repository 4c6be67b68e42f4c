//! What all parts of the job manager share: the table of jobs, and what became of one.

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
use datacentered_proto::{Error, JobId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::JobsConfig;
use super::changes::Publisher;
use super::examine::{Case, Verdict};
use super::job::Job;
use crate::cgroup::Placement;
use crate::journal::Journal;
use crate::journal::slots::Contents;
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
pub(super) struct Table {
    pub(super) jobs: BTreeMap<JobId, Arc<Job>>,
    /// Jobs that are on their way into the journal; dropping the sender wakes who waits for that.
    pub(super) arriving: HashMap<JobId, watch::Receiver<()>>,
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

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
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

    /// A job's report for the hub. The only place where one is made, so that each carries the journal's mark.
    pub(super) fn report(&self, job: &Job) -> JobReport {
        job.report(self.journal.high_water())
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
        let jobs: Vec<JobReport> = page.iter().take(limit).map(|job| self.report(job)).collect();
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

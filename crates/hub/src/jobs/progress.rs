//! Where running jobs stand, in memory: written down only for jobs that last, so that short ones cost no sync for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datacentered_engine::kv::Expect;
use datacentered_proto::{Evidence, JobId, JobState, RunId, Timestamp};
use tokio::sync::broadcast;

use crate::hub::Hub;
use crate::store::Change;
use crate::store::records::JobRecord;

/// How often progress is written down.
const PERIOD: Duration = Duration::from_secs(1);

/// Jobs written in one batch.
const BATCH: usize = 100;

/// Changes that a watcher may fall behind before it looks at everything again.
const BACKLOG: usize = 4096;

/// What a host said last about a job that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Where it stands.
    pub state: JobState,
    /// The facts behind it, as the host told them.
    pub evidence: Vec<Evidence>,
    /// When its process was started.
    pub started: Option<Timestamp>,
    /// Bytes of standard output so far.
    pub stdout_bytes: u64,
    /// Bytes of standard error so far.
    pub stderr_bytes: u64,
    /// Bytes of a terminal's marks so far.
    pub mark_bytes: u64,
}

impl Progress {
    /// The record with this progress.
    pub fn applied_to(&self, job: &JobRecord) -> JobRecord {
        JobRecord {
            state: self.state,
            evidence: super::machine::merge(&job.evidence, &self.evidence),
            started: self.started,
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            mark_bytes: self.mark_bytes,
            ..job.clone()
        }
    }
}

/// The progress of every job that has not ended.
#[derive(Debug)]
pub struct Progresses {
    by_job: Mutex<HashMap<JobId, Entry>>,
    changed: broadcast::Sender<(RunId, JobId)>,
}

#[derive(Debug)]
struct Entry {
    progress: Arc<Progress>,
    /// Learnt before the last look of [`persist_progress`], and not written down since.
    ripe: bool,
    dirty: bool,
}

impl Default for Progresses {
    fn default() -> Self {
        Self { by_job: Mutex::default(), changed: broadcast::channel(BACKLOG).0 }
    }
}

impl Progresses {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Entry>> {
        // A plain map: whole after any panic.
        self.by_job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job's progress.
    pub fn get(&self, job: JobId) -> Option<Arc<Progress>> {
        self.lock().get(&job).map(|entry| entry.progress.clone())
    }

    /// Keeps what was learnt; a report that was overtaken by a later one is dropped.
    pub fn learn(&self, run: RunId, job: JobId, progress: Progress) {
        {
            let mut all = self.lock();
            if all
                .get(&job)
                .is_some_and(|old| old.progress.state > progress.state || *old.progress == progress)
            {
                return;
            }
            all.insert(job, Entry { progress: Arc::new(progress), ripe: false, dirty: true });
        }
        // No watcher is fine.
        let _ = self.changed.send((run, job));
    }

    /// The job has ended: its record says everything.
    pub fn forget(&self, job: JobId) {
        self.lock().remove(&job);
    }

    /// What is learnt from now on.
    pub fn changes(&self) -> broadcast::Receiver<(RunId, JobId)> {
        self.changed.subscribe()
    }

    /// These were not written down.
    fn again(&self, jobs: impl Iterator<Item = JobId>) {
        let mut all = self.lock();
        for job in jobs {
            if let Some(entry) = all.get_mut(&job) {
                entry.dirty = true;
            }
        }
    }

    fn ripe(&self, limit: usize) -> Vec<(JobId, Arc<Progress>)> {
        let mut all = self.lock();
        let mut ripe = Vec::new();
        for (job, entry) in all.iter_mut().filter(|(_, entry)| entry.dirty) {
            if !entry.ripe {
                entry.ripe = true;
            } else if ripe.len() < limit {
                entry.dirty = false;
                ripe.push((*job, entry.progress.clone()));
            }
        }
        ripe
    }
}

/// Writes down the progress of jobs that have not ended within a period.
pub async fn persist_progress(hub: Arc<Hub>) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = period.tick() => {}
        }
        let ripe = hub.progress.ripe(usize::MAX);
        for batch in ripe.chunks(BATCH) {
            let mut change = Change::new(&hub.clock, "hub", None);
            for (job, progress) in batch {
                let record = hub.store.view(|view| view.jobs.get(job).cloned());
                let Some(record) = record.filter(|record| record.outcome.is_none()) else { continue };
                change.put(&progress.applied_to(&record), Expect::Revision(record.revision));
            }
            if change.is_empty() {
                continue;
            }
            // A conflict means that one of them has just ended or changed; the others are tried again.
            if let Err(error) = hub.store.commit(change).await {
                tracing::debug!(%error, "progress was not written down");
                hub.progress.again(batch.iter().map(|(job, _)| *job));
            }
        }
    }
}

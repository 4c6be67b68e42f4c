//! Forgetting jobs.

use std::sync::Arc;
use std::time::Duration;

use datacentered_proto::{Error, JobId};

use super::error::wire;
use super::job::Job;
use super::shared::Shared;
use crate::cgroup::JobGroup;
use crate::journal::Record;

/// How long a release waits for an outcome to be on disk.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

impl Shared {
    pub(super) async fn release(self: Arc<Self>, jobs: &[JobId]) -> Result<(), Error> {
        let mut failed = None;
        for id in jobs {
            let Ok(job) = self.find(*id) else { continue };
            if let Err(error) = self.release_one(&job).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn release_one(&self, job: &Arc<Job>) -> Result<(), Error> {
        if !job.is_ended() {
            return Err(Error::conflict(format!("job {} has not ended; release it when it has", job.id)));
        }
        let mut flow = job.flow();
        let durable = tokio::time::timeout(SYNC_PATIENCE, flow.wait_for(|flow| flow.durable))
            .await
            .is_ok_and(|waited| waited.is_ok());
        if !durable {
            let text =
                format!("the outcome of job {} is not on the host's disk yet; release it later", job.id);
            return Err(Error::unavailable(text));
        }
        // Not synced: after a crash the job is there again, ended, and is released again. Its slot is used for another
        // only when this record is on disk.
        self.journal.append(Record::Released { job: job.id }, false).await.map_err(|error| wire(&error))?;
        self.remove(job.id);
        job.released();
        let dir = job.dir.clone();
        let group = JobGroup::existing(&self.placement, &job.id.to_string());
        // What remains after a failure is swept at the next start.
        let _ = tokio::task::spawn_blocking(move || {
            group.remove();
            std::fs::remove_dir_all(dir)
        })
        .await;
        self.changes.publish(job.id);
        Ok(())
    }
}

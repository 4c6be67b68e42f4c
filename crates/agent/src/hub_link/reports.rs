//! Forwards every change of a job to the hub, until the hub has answered.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use datacentered_link::Link;
use datacentered_proto::operations::JobReport as JobReportOperation;
use datacentered_proto::ops::job::JobReport;
use datacentered_proto::{Code, Error, JobId};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};

use super::config::HubConfig;
use super::pending::Pending;
use crate::jobs::{Changes, Jobs};

/// Jobs looked at in one go.
const PAGE: usize = 64;

/// What the hub has yet to be told; outlives every link.
#[derive(Debug)]
pub(super) struct Reports {
    jobs: Arc<Jobs>,
    changes: Changes,
    pending: Pending,
    /// Jobs that the hub says it does not know. It may adopt them after a restore, so that they are told again at the
    /// next greeting. Bounded by the number of jobs that the host holds, as released ones are dropped there.
    unknown: BTreeSet<JobId>,
    most: usize,
    answer_timeout: Duration,
    retry: Duration,
}

impl Reports {
    pub(super) fn new(jobs: Arc<Jobs>, config: &HubConfig) -> Self {
        Self {
            changes: jobs.changes(),
            jobs,
            pending: Pending::default(),
            unknown: BTreeSet::new(),
            most: config.reports_in_flight,
            answer_timeout: config.answer_timeout(),
            retry: config.report_retry(),
        }
    }

    /// Every job is told once more.
    pub(super) fn tell_all(&mut self) {
        let mut after = None;
        loop {
            let page = self.jobs.list(after, PAGE);
            page.jobs.iter().for_each(|report| self.pending.changed(report.job));
            after = page.next;
            if after.is_none() {
                return;
            }
        }
    }

    /// The hub greeted: what it did not know the last time, it may know now.
    pub(super) fn greeted(&mut self) {
        for job in std::mem::take(&mut self.unknown) {
            self.pending.changed(job);
        }
    }

    /// How many jobs the hub has yet to be told about, as far as their changes have been looked at.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// What was in flight may not have arrived.
    pub(super) fn link_lost(&mut self) {
        self.pending.link_lost();
    }

    /// Tells the hub over one link for as long as it is polled.
    pub(super) async fn forward(&mut self, link: &Link) -> Infallible {
        let mut in_flight = FuturesUnordered::new();
        loop {
            while let Some(job) = self.pending.next(Instant::now(), self.most) {
                // The newest state, read when there is room to send it.
                if let Some(report) = self.jobs.report(job) {
                    in_flight.push(tell(link, report, self.answer_timeout));
                } else {
                    // Released meanwhile: the hub is through with it.
                    self.unknown.remove(&job);
                    self.pending.answered(job);
                }
            }
            let wake_at = self.pending.wake_at();
            tokio::select! {
                job = self.changes.next() => self.pending.changed(job),
                Some((job, result)) = in_flight.next() => self.told(job, result),
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
        }
    }

    fn told(&mut self, job: JobId, result: Result<(), Error>) {
        let Err(error) = result else {
            self.unknown.remove(&job);
            return self.pending.answered(job);
        };
        if error.code == Code::NotFound {
            if self.unknown.insert(job) {
                tracing::warn!(%job, %error, "the hub does not know a job of this host; it is told again at the next connection");
            }
            return self.pending.answered(job);
        }
        if is_final(error.code) {
            // Repeating it cannot help; the hub sees the job in its list until it releases it.
            tracing::warn!(%job, code = %error.code, %error, "the hub refuses the report of a job");
            return self.pending.answered(job);
        }
        let wait =
            error.retry_after_ms.map_or(self.retry, Duration::from_millis).clamp(self.retry, self.retry * 30);
        tracing::debug!(%job, code = %error.code, %error, ?wait, "the hub could not take the report of a job");
        self.pending.failed(job, Instant::now() + wait);
    }
}

/// Whether the same report will be refused again, by this hub and by a later one.
fn is_final(code: Code) -> bool {
    match code {
        Code::Invalid | Code::Conflict | Code::Forbidden | Code::TooLarge => true,
        // A hub that adopts the job (after a restore) takes it then.
        Code::NotFound
        | Code::Unauthenticated
        | Code::Offline
        | Code::Limited
        | Code::Unavailable
        | Code::Indeterminate
        | Code::Internal => false,
    }
}

async fn tell(link: &Link, report: JobReport, longest: Duration) -> (JobId, Result<(), Error>) {
    let job = report.job;
    let answered = timeout(longest, link.call::<JobReportOperation>(&report)).await;
    let result = match answered {
        Ok(result) => result.map(|_| ()),
        Err(_) => Err(Error::indeterminate("the hub did not answer in time")),
    };
    (job, result)
}

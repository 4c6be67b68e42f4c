//! The life of a simulated job: accepted, running, ended, each told to the hub until it has answered.

use std::sync::Arc;
use std::time::Duration;

use datacentered_proto::operations::JobReport as JobReportOperation;
use datacentered_proto::ops::job::JobReport;
use datacentered_proto::{Code, JobId, Outcome};
use tokio::time::sleep;

use crate::host::Host;
use crate::stats::count;

/// Pause before a report that could not be taken is made again, where the hub names none.
const RETRY: Duration = Duration::from_millis(200);

/// How long a flooding host goes on about a job.
const FLOOD_FOR: Duration = Duration::from_millis(500);

impl Host {
    /// How much a job of this host's prints.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.faults.flood.unwrap_or(self.shared.script.output_bytes)
    }

    /// Lives a job that was just accepted to its end.
    pub(crate) async fn live(self: Arc<Self>, job: JobId) {
        let Some(ended) = self.journal().end_of(job) else { return };
        self.journal().started(job, self.output_bytes(), self.clock.wall());
        if !self.tell(job).await {
            return;
        }
        let runs_for = self.shared.script.runs_for;
        tokio::select! {
            () = sleep(runs_for) => {}
            () = self.go_on_about(job), if self.faults.flood.is_some() => {}
            () = ended.cancelled() => {}
            () = self.shared.stop.cancelled() => return,
        }
        let code = self.shared.script.exit_code;
        self.journal().end(job, Outcome::Exited { code }, self.clock.wall());
        count(&self.shared.stats.ended);
        self.tell(job).await;
    }

    /// Reports a running job as fast as the hub answers.
    async fn go_on_about(&self, job: JobId) {
        let over_and_over = async { while self.tell(job).await {} };
        // That it is over is what is waited for.
        let _ = tokio::time::timeout(FLOOD_FOR, over_and_over).await;
    }

    /// Tells the hub how a job stands, over this link or the next, until it has answered. False where there is nothing
    /// more to tell.
    async fn tell(&self, job: JobId) -> bool {
        loop {
            let Some(link) = self.up().await else { return false };
            let Some(report) = self.journal().report(job) else { return false };
            let report = self.dressed_up(report);
            let Err(error) = link.call::<JobReportOperation>(&report).await else {
                count(&self.shared.stats.reports);
                return true;
            };
            let wait = error.retry_after_ms.map_or(RETRY, Duration::from_millis);
            match error.code {
                Code::Unavailable | Code::Indeterminate | Code::Limited | Code::Internal => {
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = self.shared.stop.cancelled() => return false,
                    }
                }
                _ => {
                    tracing::debug!(host = self.index, %job, %error, "the hub does not take a report");
                    return false;
                }
            }
        }
    }

    /// A liar's mark is anything.
    fn dressed_up(&self, report: JobReport) -> JobReport {
        if !self.faults.lie {
            return report;
        }
        let high_water = self.clock.random() % (1 << 40);
        JobReport { high_water, ..report }
    }
}

//! What no honest agent says: reports of jobs that the host does not have.

use std::time::Duration;

use datacentered_link::Link;
use datacentered_proto::operations::JobReport as JobReportOperation;
use datacentered_proto::ops::job::JobReport;
use datacentered_proto::{Code, JobId, JobState, Outcome};
use tokio::time::sleep;

use crate::host::Host;
use crate::journal::blank;
use crate::stats::count;

/// The exit code of every lie: no scripted command ends so.
pub(crate) const LIE: i32 = 99;

/// The longest pause between two lies, in milliseconds.
const PAUSE_MS: u64 = 400;

impl Host {
    /// Lies for as long as the link is up.
    pub(crate) async fn lie_over(&self, link: &Link) {
        let stats = &self.shared.stats;
        loop {
            sleep(Duration::from_millis(self.clock.random() % PAUSE_MS)).await;
            match link.call::<JobReportOperation>(&self.a_lie()).await {
                Ok(_) => {
                    count(&stats.lies_told);
                    count(&stats.lies_believed);
                }
                Err(error) => match error.code {
                    Code::NotFound | Code::Forbidden | Code::Invalid => {
                        count(&stats.lies_told);
                        count(&stats.lies_refused);
                    }
                    // Whether it arrived nobody knows.
                    _ if link.is_closed() => return,
                    _ => {}
                },
            }
        }
    }

    /// Another host's job has ended, or one that never was.
    fn a_lie(&self) -> JobReport {
        let foreign = self.shared.board.of_another(self.index, self.clock.random());
        let (job, run) = match foreign {
            Some(offered) if self.clock.random().is_multiple_of(2) => (offered.job, offered.run),
            _ => (JobId::from_uuid(self.clock.uuid()), self.clock.run_id()),
        };
        JobReport {
            state: JobState::Ended,
            outcome: Some(Outcome::Exited { code: LIE }),
            ended: Some(self.clock.wall()),
            high_water: self.clock.random() % (1 << 40),
            ..blank(job, run)
        }
    }
}

//! `job.list`: every job that the hub has not released, in pages that fit a message.

use datacentered_proto::Error;
use datacentered_proto::ops::job::{ListParams, ListReply};

use super::ServeConfig;
use crate::jobs::Jobs;

/// One page, by the jobs' ids, behind `params.next`.
///
/// Evidence can be long, so that a page is bounded by its size as well as by its number of jobs; a report that is larger
/// than a page stands alone on its own.
pub(super) fn page(jobs: &Jobs, params: &ListParams, config: &ServeConfig) -> Result<ListReply, Error> {
    let mut reports = jobs.list();
    reports.sort_unstable_by_key(|report| report.job);
    let first = params.next.map_or(0, |next| reports.partition_point(|report| report.job <= next));
    let mut reply = ListReply::default();
    let mut bytes = 0;
    for report in reports.into_iter().skip(first) {
        let size = serde_json::to_vec(&report).map_err(|error| Error::internal(error.to_string()))?.len();
        let full = bytes + size > config.list_page_bytes || reply.jobs.len() >= config.list_page_jobs;
        if full && let Some(last) = reply.jobs.last() {
            reply.next = Some(last.job);
            break;
        }
        bytes += size;
        reply.jobs.push(report);
    }
    Ok(reply)
}

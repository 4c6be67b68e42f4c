//! `job.list`: every job that the hub has not released, in pages that fit a message.

use datacentered_proto::Error;
use datacentered_proto::ops::job::{ListParams, ListReply};

use super::ServeConfig;
use crate::jobs::Jobs;

/// Jobs looked at in one go: a page that is full after a few does not cost a walk over all of them.
const PIECE: usize = 64;

/// One page, by the jobs' ids, behind `params.next`.
///
/// Evidence can be long, so that a page is bounded by its size as well as by its number of jobs; a report that is larger
/// than a page stands alone on its own.
pub(super) fn page(jobs: &Jobs, params: &ListParams, config: &ServeConfig) -> Result<ListReply, Error> {
    let mut reply = ListReply::default();
    let mut bytes = 0;
    let mut after = params.next;
    loop {
        let piece = jobs.list(after, PIECE.min(config.list_page_jobs));
        for report in piece.jobs {
            let size = serde_json::to_vec(&report).map_err(|error| Error::internal(error.to_string()))?.len();
            let full = bytes + size > config.list_page_bytes || reply.jobs.len() >= config.list_page_jobs;
            if full && let Some(last) = reply.jobs.last() {
                reply.next = Some(last.job);
                return Ok(reply);
            }
            bytes += size;
            reply.jobs.push(report);
        }
        after = piece.next;
        if after.is_none() {
            return Ok(reply);
        }
    }
}

//! What a host says about a job, from whichever side it comes.

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::Link;
use datacentered_proto::operations::{JobRelease, JobReport as JobReportOperation};
use datacentered_proto::ops::Done;
use datacentered_proto::ops::job::{JobReport, ReleaseParams};
use datacentered_proto::{Error, HostId, JobId};

use super::machine::{self, Learnt};
use super::{end, output};
use crate::dispatch::{Ctx, Table};
use crate::hub::Hub;
use crate::store::Versioned;
use crate::store::records::JobRecord;

/// How long an ended job's output may take to arrive before its outcome is written without waiting for it.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(50);

/// Registers this noun's operations.
pub fn register(table: &mut Table) {
    table.read::<JobReportOperation, _, _>(|ctx: Ctx, report: JobReport| async move {
        let (Some(host), Some(link)) = (ctx.who.host(), ctx.link.clone()) else {
            return Err(Error::forbidden("only agents report jobs, over their link"));
        };
        learn(&ctx.hub, host, &link, report).await?;
        Ok(Done {})
    });
}

/// The host's own job, or an error: no host learns or changes anything about another's.
pub(super) fn own_job(hub: &Hub, host: HostId, job: JobId) -> Result<Versioned<JobRecord>, Error> {
    let found = hub.store.view(|view| view.jobs.get(&job).cloned());
    match found {
        Some(record) if record.host == host => Ok(record),
        Some(record) => {
            tracing::warn!(%host, %job, owner = %record.host, "a host claims another host's job");
            Err(Error::forbidden(format!("job {job} is not a job of this host")))
        }
        None => Err(Error::not_found(format!("there is no job {job}"))),
    }
}

/// Takes in a report of the host's. Returns when everything final in it is on the hub's disk.
pub(super) async fn learn(hub: &Arc<Hub>, host: HostId, link: &Link, report: JobReport) -> Result<(), Error> {
    let report = machine::clean_report(report)?;
    let id = report.job;
    let job = own_job(hub, host, id)?;
    match machine::learn(&job, &report) {
        Learnt::Known => {
            if report.outcome.is_some() {
                output::settle(hub, id, host, link).await;
            }
        }
        Learnt::Progress(progress) => {
            hub.progress.learn(job.run, id, progress);
            if hub.store.view(|view| view.jobs.get(&id).is_none_or(|job| job.outcome.is_some())) {
                // It ended while this was taken in.
                hub.progress.forget(id);
            }
            output::ensure_pulling(hub, id, host, link);
        }
        Learnt::Ended(ended) => {
            let total = ended.record_bytes();
            if total > 0 {
                output::ensure_pulling(hub, id, host, link);
            }
            let complete = total == 0 || hub.outputs.wait_until_complete(id, total, OUTPUT_PATIENCE).await;
            let held = if complete && total > 0 { hub.outputs.held(id) } else { None };
            // The log and the outcome reach the disk together; the host is told to forget only after both.
            let barrier = async { if complete && total > 0 { output::sync(hub, id).await } else { Ok(()) } };
            let high_water = report.high_water;
            let journal =
                job.incarnation.clone().map(|incarnation| end::Mark { host, incarnation, high_water });
            let outcome = end::write_end(hub, id, journal, |job, _, _| match machine::learn(job, &report) {
                Learnt::Ended(mut record) => {
                    record.output_complete = complete;
                    record.held_bytes = held;
                    Some(*record)
                }
                _ => None,
            });
            let (synced, written) = tokio::join!(barrier, outcome);
            synced?;
            written?;
            if complete {
                release(hub, id, link);
            } else {
                output::ensure_pulling(hub, id, host, link);
            }
        }
    }
    Ok(())
}

/// Tells the host to forget a job, once no offer of it is on its way any more. Should that get lost, the next connect says
/// it again.
pub(super) fn release(hub: &Arc<Hub>, job: JobId, link: &Link) {
    let (hub, link) = (hub.clone(), link.clone());
    hub.outputs.forget(job);
    let tasks = hub.tasks.clone();
    tasks.spawn("job release", async move {
        tokio::select! {
            () = hub.offers.none_of(job) => {}
            _ = link.closed() => return,
            () = hub.stop.cancelled() => return,
        }
        if let Err(error) = link.call::<JobRelease>(&ReleaseParams { jobs: vec![job] }).await {
            tracing::debug!(%job, %error, "a job could not be released now");
        }
    });
}

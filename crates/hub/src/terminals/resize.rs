//! `terminal.resize`: the latest size counts. It is kept with the job, so that a host that is away learns it when it is
//! back.

use datacentered_engine::kv::Expect;
use datacentered_link::Link;
use datacentered_proto::operations::JobResize;
use datacentered_proto::ops::job;
use datacentered_proto::ops::run::ReachedReply;
use datacentered_proto::ops::terminal::ResizeParams;
use datacentered_proto::{Code, Error, JobId};

use super::ops::{find, target_of};
use crate::dispatch::ChangeCtx;
use crate::hub::Hub;
use crate::runs::check_window;
use crate::store::records::JobRecord;

pub(super) async fn resize(ctx: ChangeCtx, params: ResizeParams) -> Result<ReachedReply, Error> {
    check_window(params.window)?;
    let hub = &ctx.hub;
    let run = find(hub, &ctx.scope, params.run)?;
    let id = target_of(&run)?.job;
    let terminal = hub.terminals.get(params.run);
    let _turn = terminal.resizing.lock().await;
    loop {
        let job = hub.store.view(|view| view.jobs.get(&id).cloned());
        let Some(job) = job.filter(|job| job.outcome.is_none()) else {
            return Err(Error::conflict("this terminal has ended"));
        };
        let live = hub.live.get(job.host);
        let pending = u32::from(live.is_none());
        let reply = ReachedReply { targets: 1 - pending, pending };
        let mut change = ctx.change();
        let record = JobRecord { window: Some(params.window), ..(*job.record).clone() };
        change.put(&record, Expect::Revision(job.revision));
        let size = format!("terminal {} {}x{}", params.run, params.window.cols, params.window.rows);
        match ctx.commit(change, size, vec![job.host_name.clone()], &reply).await {
            // The job's record has moved on meanwhile, unless this very call was made twice.
            Err(error) if error.code == Code::Conflict && !is_remembered(&ctx) => continue,
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        if let Some(live) = live {
            tell_window(hub, id, &live.link).await;
        }
        return Ok(reply);
    }
}

fn is_remembered(ctx: &ChangeCtx) -> bool {
    ctx.hub.store.view(|view| view.dedupe.contains_key(&(ctx.caller().to_owned(), ctx.key())))
}

/// Tells a host the size that a terminal's window has now, where it was changed.
pub(crate) async fn tell_window(hub: &Hub, job: JobId, link: &Link) {
    let Some(window) = hub.store.view(|view| view.jobs.get(&job).and_then(|job| job.window)) else { return };
    if let Err(error) = link.call::<JobResize>(&job::ResizeParams { job, window }).await {
        // A link that was lost is followed by another one, which begins with this.
        tracing::debug!(%job, %error, "the size of a window could not be told now");
    }
}

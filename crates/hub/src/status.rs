//! `hub.status` and `operation.list`: how the hub is, and what it can do.

use datacentered_proto::operations::{HubStatus, OPERATIONS, OperationList};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::hub::{OperationView, OperationsReply, StatusReply};
use datacentered_proto::{Error, JobState, Served};

use crate::access::is_set_up;
use crate::dispatch::{Ctx, Table};

/// Registers this noun's operations.
pub(crate) fn register(table: &mut Table) {
    table.read::<HubStatus, _, _>(status);
    table.read::<OperationList, _, _>(|_, _: NoParams| async { Ok(operations()) });
}

async fn status(ctx: Ctx, _: NoParams) -> Result<StatusReply, Error> {
    let hub = &ctx.hub;
    let engine = hub.engine.stats();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (hosts, online, runs, jobs, set_up) = hub.store.view(|view| {
        let open = view.open_jobs.values().flatten().filter_map(|id| view.jobs.get(id));
        (
            view.hosts.len(),
            view.presence.values().filter(|presence| presence.online).count(),
            view.active_runs.len(),
            open.filter(|job| job.state != JobState::Ended).count(),
            is_set_up(view),
        )
    });
    let durability = "every change is synced to disk before it is answered (group commit)";
    Ok(StatusReply {
        version: env!("CARGO_PKG_VERSION").into(),
        started: hub.started,
        epoch: hub.store.epoch().into(),
        ca_fingerprint: hub.identity.ca_fingerprint().into(),
        web_fingerprint: hub.identity.web_fingerprint(),
        engine: hub.config.engine.clone(),
        durability: durability.into(),
        hosts: count(hosts),
        hosts_online: count(online),
        clients: count(hub.sessions.clients()),
        runs_active: count(runs),
        jobs_active: count(jobs),
        resident_bytes: resident_bytes(),
        fsyncs: engine.kv_syncs.saturating_add(engine.log_syncs),
        set_up,
    })
}

fn operations() -> OperationsReply {
    let view = |spec: &&datacentered_proto::OperationSpec| OperationView {
        name: spec.name.into(),
        doc: spec.doc.trim().into(),
        permission: spec.permission.as_str().into(),
        effect: spec.effect.as_str().into(),
    };
    let served = OPERATIONS.iter().filter(|spec| spec.served == Served::Hub);
    OperationsReply { operations: served.map(view).collect() }
}

/// This process's resident memory; 0 where the kernel does not say.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told() {
        assert!(resident_bytes() > 1024 * 1024);
    }

    #[test]
    fn every_operation_of_the_hub_is_listed() {
        let operations = operations().operations;
        assert!(operations.iter().any(|row| row.name == "run.create" && row.permission == "operate"));
        assert!(operations.iter().all(|row| row.name != "job.offer" && !row.doc.is_empty()));
    }
}

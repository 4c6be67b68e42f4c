//! The operations on hosts.

use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_proto::limits::{DEFAULT_PAGE, MAX_LABELS, MAX_PAGE};
use datacentered_proto::operations::{
    HostEnrol, HostLabel, HostList, HostRemove, HostRename, HostReport, HostRevoke, HostShow, HostWatch,
};
use datacentered_proto::ops::Done;
use datacentered_proto::ops::host::{
    ChangeParams, Host, HostParams, LabelParams, ListParams, ListReply, RenameParams, ReportParams,
};
use datacentered_proto::{Code, Error};
use serde_json::json;

use super::text::{check_labels, check_name, clean_facts};
use super::views::{host_view, parse_selectors, with_traits};
use super::{enrol, watch};
use crate::dispatch::{ChangeCtx, Ctx, Table};
use crate::hub::Hub;
use crate::jobs;
use crate::store::records::{BurntKeyRecord, HostNameRecord, HostRecord, JournalRecord, PresenceRecord};
use crate::store::{Change, Versioned};

/// Bytes of hosts in one reply: well below the largest message.
const PAGE_BYTES: usize = 160 * 1024;

/// Tries at a record that others change at the same time.
const TRIES: usize = 16;

/// Registers this noun's operations.
pub fn register(table: &mut Table) {
    table.read::<HostList, _, _>(list);
    table.read::<HostShow, _, _>(show);
    table.read::<HostEnrol, _, _>(enrol::enrol);
    table.read::<HostReport, _, _>(report);
    table.stream::<HostWatch, _, _, _, _>(watch::watch);
    table.change::<HostLabel, _, _>(label);
    table.change::<HostRename, _, _>(rename);
    table.change::<HostRevoke, _, _>(revoke);
    table.change::<HostRemove, _, _>(remove);
}

fn find(hub: &Hub, name_or_id: &str) -> Result<Versioned<HostRecord>, Error> {
    hub.store.view(|view| view.find_host(name_or_id).cloned()).ok_or_else(|| {
        let shown: String = name_or_id.chars().filter(|c| !c.is_control()).take(64).collect();
        Error::not_found(format!("there is no host '{shown}'; 'datacentered host list' shows them all"))
    })
}

/// A host that the caller may touch with this call.
fn find_allowed(ctx: &Ctx, name_or_id: &str) -> Result<Versioned<HostRecord>, Error> {
    let record = find(&ctx.hub, name_or_id)?;
    ctx.scope.require(&ctx.hub, &record)?;
    Ok(record)
}

async fn list(ctx: Ctx, params: ListParams) -> Result<ListReply, Error> {
    let selectors = parse_selectors(&ctx.hub, &params.on)?;
    let limit = params.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
    Ok(ctx.hub.store.view(|view| {
        let mut reply = ListReply::default();
        let mut bytes = 0;
        let start = match &params.next {
            Some(name) => std::ops::Bound::Excluded(name.clone()),
            None => std::ops::Bound::Unbounded,
        };
        for (name, id) in view.host_names.range((start, std::ops::Bound::Unbounded)) {
            let Some(record) = view.hosts.get(id) else { continue };
            let chosen = selectors.is_empty()
                || with_traits(&ctx.hub, record, |traits| selectors.iter().any(|one| one.matches(traits)));
            if !chosen || !ctx.scope.allows(&ctx.hub, record) {
                continue;
            }
            if reply.hosts.len() >= limit || bytes >= PAGE_BYTES {
                reply.next = reply.hosts.last().map(|host: &Host| host.name.clone());
                break;
            }
            let host = host_view(&ctx.hub, view, record);
            bytes += name.len() + serde_json::to_string(&host).map_or(0, |json| json.len());
            reply.hosts.push(host);
        }
        reply
    }))
}

async fn show(ctx: Ctx, params: HostParams) -> Result<Host, Error> {
    let record = find_allowed(&ctx, &params.host)?;
    Ok(ctx.hub.store.view(|view| host_view(&ctx.hub, view, &record)))
}

/// An agent's facts. Only its own: the session says which host it is.
async fn report(ctx: Ctx, params: ReportParams) -> Result<Done, Error> {
    let Some(host) = ctx.who.host() else { return Err(Error::forbidden("only agents report facts")) };
    let facts = clean_facts(params.facts);
    for _ in 0..TRIES {
        let record = find(&ctx.hub, &host.to_string())?;
        if record.facts == facts {
            return Ok(Done {});
        }
        let mut change = ctx.change();
        change.event("host.facts_changed", &record.name, json!({"host": host}));
        let updated = HostRecord { facts: facts.clone(), ..(*record.record).clone() };
        change.put(&updated, Expect::Revision(record.revision));
        match ctx.hub.store.commit(change).await {
            Ok(_) => return Ok(Done {}),
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(busy())
}

fn busy() -> Error {
    Error::unavailable("the host's record is changed by others at this moment; try again")
        .with_retry_after_ms(100)
}

/// Changes a host's record with compare-and-set; `edit` gets the record and adds what belongs to the change.
async fn update(
    ctx: &ChangeCtx,
    name_or_id: &str,
    object: &str,
    edit: impl Fn(&mut Change, &HostRecord) -> Result<HostRecord, Error>,
) -> Result<Host, Error> {
    for _ in 0..TRIES {
        let record = find_allowed(ctx, name_or_id)?;
        let mut change = ctx.change();
        let updated = edit(&mut change, &record)?;
        change.put(&updated, Expect::Revision(record.revision));
        let reply = ctx.hub.store.view(|view| host_view(&ctx.hub, view, &updated));
        match ctx.commit(change, object, vec![record.name.clone()], &reply).await {
            Ok(_) => return Ok(reply),
            Err(error) if error.code == Code::Conflict && still_there(ctx, &record) => {}
            Err(error) => return Err(error),
        }
    }
    Err(busy())
}

/// Whether a conflict came from this record having changed, and so another try makes sense.
fn still_there(ctx: &ChangeCtx, record: &Versioned<HostRecord>) -> bool {
    ctx.hub.store.view(|view| view.hosts.get(&record.id).is_some_and(|now| now.revision != record.revision))
}

async fn label(ctx: ChangeCtx, params: LabelParams) -> Result<Host, Error> {
    check_labels(&params.set)?;
    let shown: Vec<String> = (params.set.iter().map(|(key, value)| format!("{key}={value}")))
        .chain(params.remove.iter().map(|key| format!("{key}-")))
        .collect();
    update(&ctx, &params.host, &shown.join(" "), |change, record| {
        let mut updated = record.clone();
        for key in &params.remove {
            updated.labels.remove(key);
        }
        updated.labels.extend(params.set.clone());
        if updated.labels.len() > MAX_LABELS {
            return Err(Error::limited(format!("a host has at most {MAX_LABELS} labels")));
        }
        change.event("host.labelled", &record.name, json!({"host": record.id, "labels": updated.labels}));
        Ok(updated)
    })
    .await
}

async fn rename(ctx: ChangeCtx, params: RenameParams) -> Result<Host, Error> {
    check_name(&params.name)?;
    let taken = ctx.hub.store.view(|view| view.host_names.get(&params.name).copied());
    if let Some(owner) = taken {
        let host = find_allowed(&ctx, &params.host)?;
        if owner != host.id {
            return Err(Error::conflict(format!(
                "another host is called '{}'; choose another name",
                params.name
            )));
        }
    }
    update(&ctx, &params.host, &format!("new name {}", params.name), |change, record| {
        if record.name != params.name {
            change.delete::<HostNameRecord>(std::slice::from_ref(&record.name));
            change.put(&HostNameRecord { name: params.name.clone(), host: record.id }, Expect::Absent);
            change.event("host.renamed", &params.name, json!({"host": record.id, "old_name": record.name}));
        }
        Ok(HostRecord { name: params.name.clone(), ..record.clone() })
    })
    .await
}

fn burnt(record: &HostRecord) -> BurntKeyRecord {
    BurntKeyRecord { fingerprint: record.key_fingerprint.clone(), host: record.id, name: record.name.clone() }
}

async fn revoke(ctx: ChangeCtx, params: ChangeParams) -> Result<Host, Error> {
    update(&ctx, &params.host, "key revoked", |change, record| {
        change.put_unchecked(&burnt(record));
        change.event("host.revoked", &record.name, json!({"host": record.id, "key": record.key_fingerprint}));
        Ok(HostRecord { revoked: Some(record.revoked.unwrap_or(change.at())), ..record.clone() })
    })
    .await
}

async fn remove(ctx: ChangeCtx, params: ChangeParams) -> Result<Done, Error> {
    let record = find_allowed(&ctx, &params.host)?;
    let mut change = ctx.change();
    change.check::<HostRecord>(&[record.id.to_string()], Expect::Revision(record.revision));
    change.delete::<HostRecord>(&[record.id.to_string()]);
    change.delete::<HostNameRecord>(std::slice::from_ref(&record.name));
    change.delete::<PresenceRecord>(&[record.id.to_string()]);
    change.delete::<JournalRecord>(&[record.id.to_string()]);
    change.put_unchecked(&burnt(&record));
    change.event("host.removed", &record.name, json!({"host": record.id, "key": record.key_fingerprint}));
    ctx.commit(change, "removed", vec![record.name.clone()], &Done {}).await?;
    let hub: Arc<Hub> = ctx.hub.clone();
    if let Some(live) = hub.live.forget(record.id) {
        live.link.close("this host was removed from the registry");
    }
    jobs::host_removed(&hub, record.id).await;
    Ok(Done {})
}

//! Files on hosts: the hub passes on what client and host say to each other, and keeps nothing of it but the audit.
//!
//! Bytes go from one link's window into the other's lane: a slow reader holds up its own file and costs one window.

mod relay;

use datacentered_link::{BoxFuture, Link, StreamReader};
use datacentered_proto::operations::{
    FileList, FilePlace, FileRead, FileStat, FileWrite, HostfileList, HostfilePlace, HostfileRead,
    HostfileStat, HostfileWrite,
};
use datacentered_proto::ops::StreamOpened;
use datacentered_proto::ops::audit::Phase;
use datacentered_proto::ops::file::{
    FILE_WINDOW, ListParams, ListReply, MAX_PLACED, PlaceEntry, PlaceParams, PlaceReply, Placing, ReadParams,
    StatParams, StatReply, WriteParams,
};
use datacentered_proto::{AuditId, Code, Error, HostId, Operation};

use crate::access::Scope;
use crate::dispatch::{ChangeCtx, Ctx, Table};
use crate::hub::Hub;
use crate::outlet::Body;

/// When a caller that met a limit may try again, in milliseconds.
const RETRY_AFTER_MS: u64 = 200;

/// Paths that an audit entry names before it only counts.
const AUDIT_PATHS: usize = 3;

/// Registers this noun's operations.
pub(crate) fn register(table: &mut Table) {
    table.read::<FileStat, _, _>(stat);
    table.read::<FileList, _, _>(list);
    table.stream::<FileRead, _, _, _, _>(read);
    table.upload::<FileWrite, _, _, _, _>(write);
    table.change::<FilePlace, _, _>(place);
}

/// A host that can be asked.
struct Target {
    id: HostId,
    name: String,
    link: Link,
}

fn target(hub: &Hub, scope: &Scope, name_or_id: &str) -> Result<Target, Error> {
    let found = hub.store.view(|view| view.find_host(name_or_id).cloned());
    let shown: String = name_or_id.chars().filter(|c| !c.is_control()).take(64).collect();
    let Some(host) = found else {
        return Err(Error::not_found(format!(
            "there is no host '{shown}'; 'datacentered host list' shows them all"
        )));
    };
    scope.require(hub, &host)?;
    let (id, name) = (host.id, host.name.clone());
    if host.revoked.is_some() {
        return Err(Error::conflict(format!("the key of host '{name}' is revoked; enrol it anew")));
    }
    match hub.live.get(id) {
        Some(live) => Ok(Target { id, name, link: live.link }),
        None => Err(Error::offline(format!("host '{name}' is not connected; try again when it is online"))),
    }
}

impl Target {
    /// Agents from before there were copies do not know the operation.
    fn explain<O: Operation>(&self, error: Error) -> Error {
        if error.code == Code::NotFound
            && error.file_fault().is_none()
            && error.message.contains(O::SPEC.name)
        {
            return Error::conflict(format!("the agent of '{}' is too old for files; upgrade it", self.name));
        }
        error
    }
}

async fn stat(ctx: Ctx, params: StatParams) -> Result<StatReply, Error> {
    let target = target(&ctx.hub, &ctx.scope, &params.host)?;
    let asked = target.link.call_with_cause::<HostfileStat>(&params, ctx.cause.clone()).await;
    asked.map_err(|error| target.explain::<HostfileStat>(error))
}

async fn list(ctx: Ctx, params: ListParams) -> Result<ListReply, Error> {
    let target = target(&ctx.hub, &ctx.scope, &params.host)?;
    let asked = target.link.call_with_cause::<HostfileList>(&params, ctx.cause.clone()).await;
    asked.map_err(|error| target.explain::<HostfileList>(error))
}

/// Room for one more stream.
fn slot(hub: &Hub) -> Result<tokio::sync::OwnedSemaphorePermit, Error> {
    hub.file_streams.clone().try_acquire_owned().map_err(|_| {
        Error::limited(format!(
            "the hub passes on {} files at once, as many as it may (limits.file_streams); try later",
            hub.config.limits.file_streams
        ))
        .with_retry_after_ms(RETRY_AFTER_MS)
    })
}

async fn read(ctx: Ctx, params: ReadParams) -> Result<(StreamOpened, Body), Error> {
    let slot = slot(&ctx.hub)?;
    let target = target(&ctx.hub, &ctx.scope, &params.host)?;
    let from = params.cursor.as_ref().map_or(params.from, |cursor| cursor.offset);
    let object = shown(params.root.as_bytes(), params.path.as_bytes());
    let resumed = params.cursor.is_some();
    let opened = target
        .link
        .open_with_cause::<HostfileRead>(from, ctx.cause.clone(), |stream| ReadParams { stream, ..params })
        .await
        .map_err(|error| target.explain::<HostfileRead>(error));
    let (opened, mut reader) = opened?;
    reader.widen(FILE_WINDOW);
    if !resumed {
        audit(&ctx, &object, &target.name, "read").await?;
    }
    let hub = ctx.hub.clone();
    let body: Body = Box::new(move |outlet| {
        Box::pin(async move {
            relay::down(&hub, target.id, from, reader, outlet).await;
            drop(slot);
        })
    });
    Ok((opened, body))
}

/// Reading and preparing to write change nothing that lasts, and are in the audit all the same: what they move is.
async fn audit(ctx: &Ctx, object: &str, host: &str, outcome: &str) -> Result<(), Error> {
    let mut change = ctx.change();
    let id = AuditId::from_uuid(ctx.hub.clock.uuid());
    let mut entry = ctx.audit_entry(id, Phase::Outcome, object, vec![host.to_owned()]);
    entry.outcome = Some(outcome.into());
    change.audit(&entry);
    ctx.hub.store.commit(change).await.map(drop)
}

type Upload = Box<dyn FnOnce(StreamReader) -> BoxFuture<'static, ()> + Send>;

async fn write(ctx: Ctx, params: WriteParams) -> Result<(StreamOpened, u64, Upload), Error> {
    let slot = slot(&ctx.hub)?;
    let target = target(&ctx.hub, &ctx.scope, &params.host)?;
    let opened = target
        .link
        .upload_with_cause::<HostfileWrite>(ctx.cause.clone(), |stream| WriteParams { stream, ..params })
        .await
        .map_err(|error| target.explain::<HostfileWrite>(error));
    let (opened, writer) = opened?;
    let held = opened.cursor.as_ref().map_or(0, |cursor| cursor.offset);
    let opened = StreamOpened { cursor: opened.cursor, credit: Some(held + FILE_WINDOW) };
    let body: Upload = Box::new(move |reader| {
        Box::pin(async move {
            relay::up(reader, writer).await;
            drop(slot);
        })
    });
    Ok((opened, held, body))
}

async fn place(ctx: ChangeCtx, params: PlaceParams) -> Result<PlaceReply, Error> {
    if params.entries.is_empty() || params.entries.len() > MAX_PLACED {
        return Err(Error::invalid(format!("give between 1 and {MAX_PLACED} entries")));
    }
    let target = target(&ctx.hub, &ctx.scope, &params.host)?;
    let intent = ctx.intend(object(&params), vec![target.name.clone()]).await?;
    let placed = target.link.call_with_cause::<HostfilePlace>(&params, ctx.cause.clone()).await;
    let reply = placed.map_err(|error| target.explain::<HostfilePlace>(error))?;
    let failed = reply.results.iter().filter(|placed| placed.error.is_some()).count();
    let outcome = match failed {
        0 => "ok".to_owned(),
        failed => format!("{failed} of {} failed", reply.results.len()),
    };
    ctx.commit_intended_as(ctx.change(), intent, &reply, &outcome).await?;
    Ok(reply)
}

/// What the audit says about a placing.
fn object(params: &PlaceParams) -> String {
    let paths: Vec<String> = params
        .entries
        .iter()
        .take(AUDIT_PATHS)
        .map(|PlaceEntry { path, placing }| {
            let what = match placing {
                Placing::Directory { .. } => "directory ",
                Placing::Attributes { .. } => "attributes of ",
                Placing::Symlink { .. } => "symbolic link ",
                Placing::File { .. } => "",
                Placing::Discard { .. } => "part of ",
            };
            format!("{what}{}", shown(params.root.as_bytes(), path.as_bytes()))
        })
        .collect();
    let more = match params.entries.len().saturating_sub(AUDIT_PATHS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", paths.join(", "))
}

/// A path for people, without what a terminal would take for commands.
fn shown(root: &[u8], path: &[u8]) -> String {
    let mut shown = String::from_utf8_lossy(root).into_owned();
    if !path.is_empty() {
        if !shown.ends_with('/') {
            shown.push('/');
        }
        shown.push_str(&String::from_utf8_lossy(path));
    }
    shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(160).collect()
}

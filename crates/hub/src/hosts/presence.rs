//! Online and offline: what a link's coming and going means for its host.

use std::sync::Arc;
use std::time::Duration;

use datacentered_engine::kv::Expect;
use datacentered_link::{CloseReason, Link};
use datacentered_proto::operations::AgentDrain;
use datacentered_proto::ops::job::DrainParams;
use datacentered_proto::ops::session::{AgentHello, HelloParams};
use datacentered_proto::{Code, Error, HostId, SessionId};
use serde_json::json;

use super::live::Live;
use crate::dispatch::Ctx;
use crate::hub::Hub;
use crate::jobs::{self, Journal};
use crate::runs;
use crate::sessions::Session;
use crate::store::Change;
use crate::store::records::{HostRecord, JournalRecord, PresenceRecord};

/// How long an agent may take to hear that the hub is going down.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

/// Hosts written in one batch when the hub starts.
const OFFLINE_BATCH: usize = 100;

/// An enrolled agent has said hello: both sides compare their jobs, then its host is online.
///
/// Nothing new is offered to it before they have compared, so that what is missing from its list was never there.
///
/// Errors: `invalid` where the hello is not an agent's, `unavailable` where the store is.
pub async fn attach(ctx: &Ctx, hello: &HelloParams) -> Result<(), Error> {
    let (Some(host), Some(link)) = (ctx.session.who().host(), ctx.link.clone()) else { return Ok(()) };
    // An agent that only wants its enrolment repeated has no journal to speak of.
    let Some(agent) = &hello.agent else { return Ok(()) };
    check_incarnation(&agent.incarnation)?;
    let hub = &ctx.hub;
    let journal = Journal::at_hello(hub, host, agent);
    let compared = jobs::compare(hub, host, &link, &journal).await?;
    let now = hub.clock.wall();
    let live = Live {
        link: link.clone(),
        session: ctx.session.clone(),
        incarnation: agent.incarnation.as_str().into(),
        clock_skew_ms: hello.now.map_or(0, |theirs| theirs.as_millis() - now.as_millis()),
    };
    let replaced = hub.live.insert(host, live);
    let open = jobs::open_jobs(hub, host);
    if let Some(older) = &replaced {
        older.link.close("a newer link with the same key took its place");
    }
    record_online(ctx, host, agent, &journal, replaced.as_ref()).await?;
    if link.is_closed() {
        // It went away while it was being written down as online.
        detach(hub, host, &link, &CloseReason::Dropped).await;
        return Ok(());
    }
    jobs::catch_up(hub, &link, &journal, compared, &open).await?;
    runs::host_connected(hub, host);
    Ok(())
}

fn check_incarnation(incarnation: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if incarnation.is_empty() || incarnation.len() > 32 || !incarnation.bytes().all(plain) {
        return Err(Error::invalid("the journal's incarnation must be 1 to 32 of a-z 0-9"));
    }
    Ok(())
}

/// Writes down that the host is online, and the journal that it is online with.
async fn record_online(
    ctx: &Ctx,
    host: HostId,
    agent: &AgentHello,
    journal: &Journal,
    replaced: Option<&Live>,
) -> Result<(), Error> {
    let hub = &ctx.hub;
    let name = hub.store.view(|view| view.hosts.get(&host).map(|host| host.name.clone()));
    let Some(name) = name else {
        return Err(Error::forbidden(
            "this host has left the registry; enrol it again with a new data directory",
        ));
    };
    let mut change = Change::new(&hub.clock, format!("host:{name}"), None);
    let now = change.at();
    change.check::<HostRecord>(&[host.to_string()], Expect::Exists);
    change.put_unchecked(&JournalRecord {
        host,
        incarnation: agent.incarnation.clone(),
        high_water: agent.high_water,
        compared: Some(hub.store.engine().epoch().to_owned()),
    });
    change.put_unchecked(&PresenceRecord { host, online: true, since: now, last_seen: now, reason: None });
    let peer = ctx.session.peer.to_string();
    change.event("host.online", &name, json!({"host": host, "peer": peer, "agent_version": agent.version}));
    if let Some(older) = replaced {
        let detail = json!({"host": host, "old_peer": older.session.peer.to_string(), "new_peer": peer});
        change.event("host.link_replaced", &name, detail);
    }
    if journal.replaced {
        let detail = json!({"host": host, "incarnation": agent.incarnation, "high_water": agent.high_water});
        change.event("host.journal_replaced", &name, detail);
    }
    hub.store.commit(change).await?;
    tracing::info!(%host, name, peer, version = agent.version, "an agent has connected");
    Ok(())
}

/// A host's link has ended.
pub async fn detach(hub: &Arc<Hub>, host: HostId, link: &Link, reason: &CloseReason) {
    let Some(live) = hub.live.remove(host, link) else { return };
    let Some(name) = hub.store.view(|view| view.hosts.get(&host).map(|host| host.name.clone())) else {
        return;
    };
    tracing::info!(%host, name, peer = %live.session.peer, %reason, "an agent has left");
    let word = if hub.stop.is_cancelled() { "hub_stopped" } else { word_of(reason) };
    let Some(presence) = hub.store.view(|view| view.presence.get(&host).cloned()) else { return };
    if hub.live.is_online(host) {
        return;
    }
    let mut change = Change::new(&hub.clock, "hub", None);
    let now = change.at();
    let offline =
        PresenceRecord { host, online: false, since: now, last_seen: now, reason: Some(word.into()) };
    // A conflict means that a newer link has written down that the host is online.
    change.put(&offline, Expect::Revision(presence.revision));
    change.event("host.offline", name, json!({"host": host, "reason": word, "detail": reason.to_string()}));
    match hub.store.commit(change).await {
        Err(error) if error.code != Code::Conflict => {
            tracing::warn!(%host, %error, "could not write down that a host went offline");
        }
        _ => {}
    }
}

/// The stable word for why a link ended.
fn word_of(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Closed { .. } => "closed_by_hub",
        CloseReason::ClosedByPeer { .. } => "closed_by_agent",
        CloseReason::Silent { .. } => "silent",
        CloseReason::Protocol { .. } | CloseReason::TooLarge { .. } => "protocol_error",
        CloseReason::Lost { .. } | CloseReason::Dropped => "link_lost",
    }
}

/// At the start no link is up, whatever was written last.
pub async fn mark_all_offline(hub: &Arc<Hub>) -> Result<(), Error> {
    let stale: Vec<_> = hub.store.view(|view| {
        view.presence
            .values()
            .filter(|presence| presence.online)
            .map(|presence| presence.record.clone())
            .collect()
    });
    for batch in stale.chunks(OFFLINE_BATCH) {
        let mut change = Change::new(&hub.clock, "hub", None);
        let now = change.at();
        for presence in batch {
            change.put_unchecked(&PresenceRecord {
                online: false,
                since: now,
                reason: Some("hub_restarted".into()),
                ..(**presence).clone()
            });
        }
        hub.store.commit(change).await?;
    }
    Ok(())
}

/// Tells an agent that the hub is going down and when to come back.
pub async fn say_goodbye(hub: &Arc<Hub>, session: &Session, link: &Link) {
    if session.who().host().is_none() {
        return;
    }
    let params = DrainParams { reconnect_after_ms: reconnect_slot_ms(hub, session.id) };
    // An agent that does not answer in time finds out by itself.
    let _ = tokio::time::timeout(GOODBYE_PATIENCE, link.call::<AgentDrain>(&params)).await;
}

/// When this host should come back after a loss: the fleet is spread over a window that the hub can take in.
pub fn reconnect_slot_ms(hub: &Hub, session: SessionId) -> u64 {
    let hosts = hub.store.view(|view| view.hosts.len()) as u64;
    let window_ms = hosts * 1000 / hub.config.limits.accepts_per_second.max(1);
    // The session's id ends in random bits.
    (session.uuid().as_u128() as u64) % (window_ms + 1)
}

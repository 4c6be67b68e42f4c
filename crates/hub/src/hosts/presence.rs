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
use crate::jobs;
use crate::sessions::Session;
use crate::store::Change;
use crate::store::records::{HostRecord, PresenceRecord};

/// How long an agent may take to hear that the hub is going down.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

/// Hosts written in one batch when the hub starts.
const OFFLINE_BATCH: usize = 100;

/// An enrolled agent has said hello: its host is online.
///
/// Errors: `invalid` where the hello is not an agent's, `unavailable` where the store is.
pub async fn attach(ctx: &Ctx, hello: &HelloParams) -> Result<(), Error> {
    let (Some(host), Some(link)) = (ctx.session.who().host(), ctx.link.clone()) else { return Ok(()) };
    // An agent that only wants its enrolment repeated has no journal to speak of.
    let Some(agent) = &hello.agent else { return Ok(()) };
    check_incarnation(&agent.incarnation)?;
    let hub = &ctx.hub;
    let now = hub.clock.wall();
    let live = Live {
        link: link.clone(),
        session: ctx.session.clone(),
        up: hub.clock.boot(),
        incarnation: agent.incarnation.as_str().into(),
        clock_skew_ms: hello.now.map_or(0, |theirs| theirs.as_millis() - now.as_millis()),
    };
    let replaced = hub.live.insert(host, live);
    if let Some(older) = &replaced {
        older.link.close("a newer link with the same key took its place");
    }
    let journal_replaced = record_online(hub, host, agent, replaced.as_ref(), ctx).await?;
    if link.is_closed() {
        // It went away while it was being written down as online.
        detach(hub, host, &link, &CloseReason::Dropped).await;
        return Ok(());
    }
    let hub = hub.clone();
    let tasks = hub.tasks.clone();
    tasks.spawn("host connected", async move { jobs::connected(&hub, host, &link, journal_replaced).await });
    Ok(())
}

fn check_incarnation(incarnation: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if incarnation.is_empty() || incarnation.len() > 32 || !incarnation.bytes().all(plain) {
        return Err(Error::invalid("the journal's incarnation must be 1 to 32 of a-z 0-9"));
    }
    Ok(())
}

/// Writes down that the host is online. Says whether its journal is another one than before.
async fn record_online(
    hub: &Arc<Hub>,
    host: HostId,
    agent: &AgentHello,
    replaced: Option<&Live>,
    ctx: &Ctx,
) -> Result<bool, Error> {
    loop {
        let found = hub.store.view(|view| view.hosts.get(&host).cloned());
        let Some(record) = found else {
            return Err(Error::forbidden(
                "this host has left the registry; enrol it again with a new data directory",
            ));
        };
        let known = record.incarnation.as_deref();
        let journal_replaced = known.is_some_and(|known| known != agent.incarnation)
            || (known.is_some() && agent.high_water < record.high_water);
        let mut change = Change::new(&hub.clock, format!("host:{}", record.name), None);
        let now = change.at();
        if known != Some(agent.incarnation.as_str()) || agent.high_water != record.high_water {
            let updated = HostRecord {
                incarnation: Some(agent.incarnation.clone()),
                high_water: agent.high_water,
                ..(*record.record).clone()
            };
            change.put(&updated, Expect::Revision(record.revision));
        }
        change.put_unchecked(&PresenceRecord {
            host,
            online: true,
            since: now,
            last_seen: now,
            reason: None,
        });
        change.event(
            "host.online",
            &record.name,
            json!({"host": host, "peer": ctx.session.peer.to_string(), "agent_version": agent.version}),
        );
        if let Some(older) = replaced {
            let detail = json!({"host": host, "old_peer": older.session.peer.to_string(),
                                "new_peer": ctx.session.peer.to_string()});
            change.event("host.link_replaced", &record.name, detail);
        }
        if journal_replaced {
            let detail = json!({"host": host, "incarnation": agent.incarnation, "high_water": agent.high_water,
                                "known_high_water": record.high_water});
            change.event("host.journal_replaced", &record.name, detail);
        }
        match hub.store.commit(change).await {
            Ok(_) => return Ok(journal_replaced),
            // Its record changed meanwhile (a label, a name): look again.
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

/// A host's link has ended.
pub async fn detach(hub: &Arc<Hub>, host: HostId, link: &Link, reason: &CloseReason) {
    if !hub.live.remove(host, link) {
        return;
    }
    let Some(name) = hub.store.view(|view| view.hosts.get(&host).map(|host| host.name.clone())) else {
        return;
    };
    let word = if hub.stop.is_cancelled() { "hub_stopped" } else { word_of(reason) };
    let mut change = Change::new(&hub.clock, "hub", None);
    let now = change.at();
    change.put_unchecked(&PresenceRecord {
        host,
        online: false,
        since: now,
        last_seen: now,
        reason: Some(word.into()),
    });
    change.event("host.offline", name, json!({"host": host, "reason": word, "detail": reason.to_string()}));
    if let Err(error) = hub.store.commit(change).await {
        tracing::warn!(%host, %error, "could not write down that a host went offline");
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

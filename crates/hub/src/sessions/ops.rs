//! `session.hello` and `session.whoami`.

use datacentered_proto::operations::{SessionHello, SessionWhoami};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::session::{HelloParams, HelloReply, Subject, WhoamiReply};
use datacentered_proto::{CAPABILITIES, Error, PROTOCOL, PROTOCOL_OLDEST};

use super::{Credential, Who};
use crate::access;
use crate::dispatch::{Ctx, Table};
use crate::hosts;

/// Longest client name kept.
const MAX_CLIENT: usize = 128;

/// Registers this noun's operations.
pub fn register(table: &mut Table) {
    table.read::<SessionHello, _, _>(hello);
    table.read::<SessionWhoami, _, _>(|ctx, _: NoParams| async move {
        Ok(WhoamiReply { subject: ctx.who.subject.clone(), session: ctx.session.id })
    });
}

async fn hello(ctx: Ctx, params: HelloParams) -> Result<HelloReply, Error> {
    if params.protocol < PROTOCOL_OLDEST {
        return Err(Error::invalid(format!(
            "protocol version {} is too old for this hub, which speaks {PROTOCOL_OLDEST} to {PROTOCOL}; upgrade the \
             other end",
            params.protocol
        )));
    }
    if params.client.len() > MAX_CLIENT {
        return Err(Error::invalid(format!("the member 'client' is longer than {MAX_CLIENT} bytes")));
    }
    let who = identify(&ctx, &params).await?;
    let is_host = who.host().is_some();
    ctx.session.set_who(who.clone());
    if is_host {
        hosts::attach(&ctx, &params).await?;
    }
    Ok(HelloReply {
        protocol: params.protocol.min(PROTOCOL),
        capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
        session: ctx.session.id,
        version: env!("CARGO_PKG_VERSION").into(),
        epoch: ctx.hub.store.epoch().into(),
        subject: who.subject,
        heartbeat_ms: ctx.hub.config.limits.link.heartbeat_ms,
        reconnect_slot_ms: hosts::reconnect_slot_ms(&ctx.hub, ctx.session.id),
        now: ctx.hub.clock.wall(),
    })
}

/// Who the other end is: by its host key, its token, or its place on this machine.
async fn identify(ctx: &Ctx, params: &HelloParams) -> Result<Who, Error> {
    if let Some(key) = &ctx.session.host_key {
        if params.token.is_some() {
            return Err(Error::invalid("a host proves itself with its key; leave the token out"));
        }
        return host_of(ctx, &key.fingerprint);
    }
    if params.agent.is_some() {
        return Err(Error::invalid(
            "agents connect with the ALPN protocol 'datacentered/1' and their key; see 'datacentered agent join'",
        ));
    }
    match &params.token {
        Some(token) => access::authenticate(&ctx.hub, token, &ctx.session.peer).await,
        // The local socket and cookies are known from the connection itself; nobody may still set up or log in.
        None => Ok((*ctx.session.who()).clone()),
    }
}

fn host_of(ctx: &Ctx, fingerprint: &str) -> Result<Who, Error> {
    ctx.hub.store.view(|view| {
        let found = view.host_keys.get(fingerprint).and_then(|id| view.hosts.get(id));
        if let Some(host) = found.filter(|host| host.revoked.is_none()) {
            return Ok(Who {
                subject: Subject::Host { id: host.id, name: host.name.clone() },
                rights: access::Rights::none(),
                credential: Credential::HostKey,
                user: None,
            });
        }
        if found.is_some() || view.burnt_keys.contains_key(fingerprint) {
            return Err(Error::forbidden(
                "this host's key has been revoked and never returns; to bring the host back, give it a new data \
                 directory and enrol it again",
            )
            .with_details(serde_json::json!({"reason": "revoked"})));
        }
        Ok(Who {
            subject: Subject::UnknownHost,
            rights: access::Rights::none(),
            credential: Credential::HostKey,
            user: None,
        })
    })
}

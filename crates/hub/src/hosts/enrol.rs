//! Enrolment: a host's key and a join token become a host in the registry.

use datacentered_engine::kv::Expect;
use datacentered_proto::limits::MAX_LABELS;
use datacentered_proto::ops::audit::Phase;
use datacentered_proto::ops::host::{EnrolParams, EnrolReply};
use datacentered_proto::{AuditId, Code, Error, HostId};
use serde_json::json;

use super::text::{clean_facts, fitting_labels, fitting_name};
use crate::access;
use crate::dispatch::Ctx;
use crate::store::Versioned;
use crate::store::records::{HostNameRecord, HostRecord, TokenRecord};

/// Tries at a name or token that others change at the same time.
const TRIES: usize = 64;

/// `host.enrol`.
pub(super) async fn enrol(ctx: Ctx, params: EnrolParams) -> Result<EnrolReply, Error> {
    let Some(key) = ctx.session.host_key.clone() else {
        return Err(Error::forbidden("only an agent can enrol, with its key; see 'datacentered agent join'"));
    };
    for _ in 0..TRIES {
        let token = access::find_join_token(&ctx.hub, &params.token, &ctx.session.peer)?;
        let known = ctx.hub.store.view(|view| {
            view.host_keys
                .get(&key.fingerprint)
                .and_then(|id| view.hosts.get(id))
                .map(|host| host.record.clone())
        });
        if let Some(host) = known {
            // A repeat whose first reply was lost; by now the token may be used up.
            if host.enrolled_by == token.id {
                return reply(&ctx, &host);
            }
            return Err(Error::conflict(format!("this key is already enrolled as '{}'", host.name)));
        }
        access::check_join_token(&ctx.hub, &token)?;
        match register(&ctx, &params, &key.fingerprint, &token).await {
            Ok(host) => return reply(&ctx, &host),
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::unavailable("too many hosts enrol at this moment; try again").with_retry_after_ms(1000))
}

fn reply(ctx: &Ctx, host: &HostRecord) -> Result<EnrolReply, Error> {
    let key = ctx.session.host_key.as_ref().ok_or_else(|| Error::internal("the session has lost its key"))?;
    let certificate = ctx
        .hub
        .identity
        .issue_host_certificate(host.id, &key.spki)
        .map_err(|error| Error::internal(format!("cannot issue a certificate: {error}")))?;
    Ok(EnrolReply {
        host: host.id,
        name: host.name.clone(),
        certificate,
        ca_certificate: ctx.hub.identity.ca_certificate_pem().to_owned(),
    })
}

/// One try: the first free name like the wanted one, one use of the token, the record, the event: all or nothing.
async fn register(
    ctx: &Ctx,
    params: &EnrolParams,
    fingerprint: &str,
    token: &Versioned<TokenRecord>,
) -> Result<HostRecord, Error> {
    let wanted = fitting_name(&params.name);
    let (name, room) = ctx.hub.store.view(|view| {
        let name = std::iter::once(wanted.clone())
            .chain((2..=view.host_names.len() + 2).map(|n| format!("{wanted}-{n}")))
            .find(|name| !view.host_names.contains_key(name));
        (name, view.hosts.len() < ctx.hub.config.limits.hosts)
    });
    if !room {
        return Err(Error::limited("the registry is full (limits.hosts); remove hosts or raise the limit"));
    }
    let name = name.unwrap_or(wanted);
    let mut change = ctx.change();
    let mut labels = fitting_labels(params.labels.clone());
    labels.extend(token.labels.clone());
    while labels.len() > MAX_LABELS {
        labels.pop_last();
    }
    let host = HostRecord {
        id: HostId::from_uuid(ctx.hub.clock.uuid()),
        name: name.clone(),
        labels,
        key_fingerprint: fingerprint.to_owned(),
        revoked: None,
        enrolled: change.at(),
        enrolled_by: token.id,
        facts: clean_facts(params.facts.clone()),
    };
    change.put(&HostNameRecord { name: name.clone(), host: host.id }, Expect::Absent);
    change.put(&host, Expect::Absent);
    let mut spent = (*token.record).clone();
    spent.uses_left = spent.uses_left.map(|left| left.saturating_sub(1));
    spent.last_used = Some(change.at());
    change.put(&spent, Expect::Revision(token.revision));
    change.event(
        "host.enrolled",
        &name,
        json!({"host": host.id, "token": token.id, "token_name": token.name, "key": fingerprint,
               "peer": ctx.session.peer.to_string()}),
    );
    let mut audit = ctx.audit_entry(
        AuditId::from_uuid(ctx.hub.clock.uuid()),
        Phase::Outcome,
        &format!("token {} ({})", token.id, token.name),
        vec![name],
    );
    audit.outcome = Some("ok".into());
    change.audit(&audit);
    ctx.hub.store.commit(change).await?;
    Ok(host)
}

//! `session.login` and `session.logout`.

use std::net::IpAddr;

use datacentered_engine::kv::Expect;
use datacentered_proto::ids::uuid_v7;
use datacentered_proto::operations::{SessionLogin, SessionLogout};
use datacentered_proto::ops::Done;
use datacentered_proto::ops::access::TokenKind;
use datacentered_proto::ops::audit::Phase;
use datacentered_proto::ops::session::{LoginParams, LoginReply, LogoutParams};
use datacentered_proto::{AuditId, Code, Error, OperationKey, TokenId, UserId};

use super::limiter::{Taken, address_key};
use super::tokens::{secret_hash, stands, token_text};
use crate::dispatch::{ChangeCtx, Ctx, Table};
use crate::hub::Hub;
use crate::sessions::{Credential, Peer};
use crate::store::records::{Keyed as _, TokenRecord, UserRecord};
use crate::store::{Change, Versioned};

/// Longest name that is written to the audit after a failed login, in characters.
const MAX_TRIED_NAME: usize = 64;

/// Registers these operations.
pub(super) fn register(table: &mut Table) {
    // The token of a login is named after its account and key, so a repeat finds it; the password is checked each time.
    table.change_self_keyed::<SessionLogin, _, _>(login);
    table.change::<SessionLogout, _, _>(logout);
}

/// What a failed attempt costs whom.
pub(super) struct Attempt<'a> {
    address: Option<Taken<'a>>,
    account: Option<Taken<'a>>,
}

impl<'a> Attempt<'a> {
    /// Takes the attempt from the limits of the address and, where it has one, the account.
    ///
    /// Errors: `limited` with when to try again.
    pub(super) fn begin(hub: &'a Hub, peer: &Peer, account: Option<&str>) -> Result<Self, Error> {
        let now = i64::try_from(hub.clock.boot().as_millis()).unwrap_or(i64::MAX);
        let limited = |what: &str, retry_after_ms: u64| {
            hub.metrics.login_refused();
            Error::limited(format!(
                "too many failed logins {what}; try again in {} s",
                retry_after_ms.div_ceil(1000).max(1)
            ))
            .with_retry_after_ms(retry_after_ms)
        };
        let address: Option<IpAddr> = match peer {
            Peer::Tcp(address) => Some(address_key(address.ip())),
            // The hub's own user could read the store itself.
            Peer::Local { .. } => None,
        };
        let address = match address {
            Some(key) => Some(
                hub.access.by_address.take(&key, now).map_err(|wait| limited("from this address", wait))?,
            ),
            None => None,
        };
        let account = match account.map(|name| hub.access.by_account.take(&name, now)) {
            Some(Ok(taken)) => Some(taken),
            Some(Err(wait)) => {
                if let Some(address) = address {
                    address.give_back();
                }
                return Err(limited("of this account", wait));
            }
            None => None,
        };
        Ok(Self { address, account })
    }

    /// It was no failed login.
    pub(super) fn forgive(self) {
        for taken in [self.address, self.account].into_iter().flatten() {
            taken.give_back();
        }
    }
}

/// Writes a failed login to the audit. The limits bound how often.
pub(super) async fn audit_failure(ctx: &Ctx, tried: &str, error: &Error) {
    ctx.hub.metrics.login_refused();
    let name: String = tried.chars().filter(|c| !c.is_control()).take(MAX_TRIED_NAME).collect();
    tracing::warn!(operation = ctx.spec.name, peer = %ctx.session.peer, name, "a login failed");
    let mut entry =
        ctx.audit_entry(AuditId::from_uuid(ctx.hub.clock.uuid()), Phase::Refused, &name, Vec::new());
    entry.code = Some(error.code);
    entry.outcome = Some(error.code.to_string());
    let mut change = ctx.change();
    change.audit(&entry);
    if let Err(error) = ctx.hub.store.commit(change).await {
        tracing::warn!(%error, "a failed login could not be written to the audit");
    }
}

/// The public id of the token that a login makes.
fn login_id(hub: &Hub, user: UserId, key: OperationKey) -> TokenId {
    let mut input = [0; 32];
    input[..16].copy_from_slice(user.uuid().as_bytes());
    input[16..].copy_from_slice(key.uuid().as_bytes());
    let derived = hub.identity.derive("login", &input);
    let mut random = [0; 10];
    random.copy_from_slice(&derived[..10]);
    // The time of the key keeps ids in the order of their making; its value is not trusted for anything.
    let millis = key.uuid().get_timestamp().map_or(0, |stamp| {
        let (seconds, nanos) = stamp.to_unix();
        seconds.saturating_mul(1000).saturating_add(u64::from(nanos) / 1_000_000)
    });
    TokenId::from_uuid(uuid_v7(millis, random))
}

/// The token record of a login.
pub(super) fn login_record(hub: &Hub, id: TokenId, user: &UserRecord) -> TokenRecord {
    let now = hub.clock.wall();
    let ttl = i64::try_from(hub.config.limits.login_ttl_ms).unwrap_or(i64::MAX);
    TokenRecord {
        id,
        kind: TokenKind::Session,
        name: "login".into(),
        by: user.name.clone(),
        user: Some(user.id),
        user_name: Some(user.name.clone()),
        role: Some(user.role.clone()),
        secret_hash: secret_hash(&hub.identity, id),
        created: now,
        expires: now.plus_millis(ttl),
        last_used: None,
        uses_left: None,
        labels: std::collections::BTreeMap::new(),
        revoked: false,
    }
}

/// What the login's caller gets.
pub(super) fn login_reply(hub: &Hub, record: &TokenRecord, user: &UserRecord) -> LoginReply {
    LoginReply {
        id: record.id,
        token: token_text(&hub.identity, TokenKind::Session, record.id),
        expires: record.expires,
        role: user.role.clone(),
        name: user.name.clone(),
    }
}

/// Refuses another token where all are taken.
pub(super) fn check_room(hub: &Hub) -> Result<(), Error> {
    let limit = hub.config.limits.tokens;
    if hub.store.view(|view| view.tokens.len()) >= limit {
        return Err(Error::limited(format!(
            "the hub has {limit} tokens (limits.tokens); revoke some, wait until some end, or raise the limit"
        )));
    }
    Ok(())
}

async fn check_password(ctx: &Ctx, name: &str, password: String) -> Result<Versioned<UserRecord>, Error> {
    let attempt = Attempt::begin(&ctx.hub, &ctx.session.peer, Some(name))?;
    let user = ctx.hub.store.view(|view| view.users.get(name).cloned());
    let stored = user.as_ref().map(|user| user.password.clone());
    let right = match ctx.hub.access.passwords.verify(password, stored).await {
        Ok(right) => right,
        Err(busy) => {
            // The hub had no time to look: that is no failed login.
            attempt.forgive();
            return Err(busy);
        }
    };
    if let Some(user) = user.filter(|_| right) {
        attempt.forgive();
        return Ok(user);
    }
    let error = Error::unauthenticated("wrong name or password");
    audit_failure(ctx, name, &error).await;
    Err(error)
}

async fn login(ctx: Ctx, params: LoginParams) -> Result<LoginReply, Error> {
    let user = check_password(&ctx, &params.name, params.password).await?;
    let hub = &ctx.hub;
    let id = login_id(hub, user.id, params.key);
    if let Some(reply) = repeated(hub, id, &user)? {
        return Ok(reply);
    }
    check_room(hub)?;
    let record = login_record(hub, id, &user);
    let mut change = Change::new(&hub.clock, user.name.clone(), ctx.cause.request.clone());
    change.put(&record, Expect::Absent);
    // An account that was revoked or got another password meanwhile gets no login for the old one.
    change.check::<UserRecord>(&user.id(), Expect::Revision(user.revision));
    for oldest in surplus_logins(hub, &user) {
        change.delete::<TokenRecord>(&oldest.id());
    }
    let audit = AuditId::from_uuid(hub.clock.uuid());
    for phase in [Phase::Intent, Phase::Outcome] {
        let mut entry = ctx.audit_entry(audit, phase, &user.name, Vec::new());
        entry.by.clone_from(&user.name);
        entry.outcome = (phase == Phase::Outcome).then(|| "ok".into());
        change.audit(&entry);
    }
    match hub.store.commit(change).await {
        Ok(_) => Ok(login_reply(hub, &record, &user)),
        // The same call twice at once: the other one has made the token.
        Err(error) if error.code == Code::Conflict => repeated(hub, id, &user)?.ok_or_else(|| {
            Error::conflict("the account was changed at this moment; log in again with a new key")
        }),
        Err(error) => Err(error),
    }
}

fn repeated(hub: &Hub, id: TokenId, user: &UserRecord) -> Result<Option<LoginReply>, Error> {
    let now = hub.clock.wall();
    hub.store.view(|view| match view.tokens.get(&id) {
        Some(token) if stands(view, token, now) => Ok(Some(login_reply(hub, token, user))),
        Some(_) => Err(Error::conflict("the login with this key has ended; log in with a new key")),
        None => Ok(None),
    })
}

/// The oldest logins of an account that has as many as it may.
fn surplus_logins(hub: &Hub, user: &UserRecord) -> Vec<Versioned<TokenRecord>> {
    let mut logins: Vec<_> = hub.store.view(|view| {
        let of_user =
            |token: &&Versioned<TokenRecord>| token.kind == TokenKind::Session && token.user == Some(user.id);
        view.tokens.values().filter(of_user).cloned().collect()
    });
    logins.sort_by_key(|token| token.created);
    logins.truncate((logins.len() + 1).saturating_sub(hub.config.limits.logins_per_account));
    logins
}

async fn logout(ctx: ChangeCtx, _: LogoutParams) -> Result<Done, Error> {
    let Credential::Token(id) = ctx.who.credential else {
        return Err(Error::invalid("this session has no credential that could end: it came without a token"));
    };
    let Some(token) = ctx.hub.store.view(|view| view.tokens.get(&id).cloned()) else {
        return Ok(Done {});
    };
    let mut change = ctx.change();
    if token.kind == TokenKind::Session {
        change.check::<TokenRecord>(&token.id(), Expect::Revision(token.revision));
        change.delete::<TokenRecord>(&token.id());
    } else {
        super::token_ops::revoke(&mut change, &token);
    }
    let object = ctx.who.name();
    ctx.commit(change, object, Vec::new(), &Done {}).await?;
    Ok(Done {})
}

//! `token.create`, `token.list`, `token.revoke`.

use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_proto::limits::{MAX_LABEL_VALUE, MAX_LABELS, MAX_NAME};
use datacentered_proto::operations::{TokenCreate, TokenList, TokenRevoke};
use datacentered_proto::ops::access::{
    Token, TokenCreateParams, TokenCreateReply, TokenKind, TokenListReply, TokenRevokeParams,
};
use datacentered_proto::ops::role::RoleName;
use datacentered_proto::ops::{Done, NoParams};
use datacentered_proto::{Error, TokenId};
use serde_json::{Value, json};

use super::login::check_room;
use super::roles;
use super::tokens::{secret_hash, token_text};
use crate::dispatch::{ChangeCtx, Ctx, Table};
use crate::hub::Hub;
use crate::store::records::TokenRecord;
use crate::store::{Change, Versioned};

/// Longest name of a token, in bytes.
const MAX_TOKEN_NAME: usize = 128;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// How long a join token lives where its maker does not say.
const JOIN_TTL_MS: u64 = 24 * HOUR_MS;

/// How long an API token lives where its maker does not say.
const API_TTL_MS: u64 = 90 * 24 * HOUR_MS;

/// Shortest life of a token.
const MIN_TTL_MS: u64 = 1000;

/// Registers these operations.
pub(super) fn register(table: &mut Table) {
    table.change_replayed::<TokenCreate, _, _>(create, replay);
    table.read::<TokenList, _, _>(list);
    table.change::<TokenRevoke, _, _>(revoke_token);
}

/// Puts the secret back into a remembered reply.
fn replay(hub: &Arc<Hub>, reply: Value) -> Result<Value, Error> {
    let mut reply: TokenCreateReply = serde_json::from_value(reply)
        .map_err(|error| Error::internal(format!("the first reply cannot be read: {error}")))?;
    reply.token = token_text(&hub.identity, reply.kind, reply.id);
    serde_json::to_value(reply)
        .map_err(|error| Error::internal(format!("the reply cannot be encoded: {error}")))
}

fn ttl(hub: &Hub, params: &TokenCreateParams) -> Result<i64, Error> {
    let limits = &hub.config.limits;
    let (default, most) = match params.kind {
        TokenKind::Join => (JOIN_TTL_MS, limits.join_token_ttl_ms),
        TokenKind::Api | TokenKind::Session => (API_TTL_MS, limits.token_ttl_ms),
    };
    let ttl = params.ttl_ms.unwrap_or_else(|| default.min(most));
    if ttl < MIN_TTL_MS || ttl > most {
        return Err(Error::invalid(format!("'ttl_ms' is {ttl}, it must be between {MIN_TTL_MS} and {most}")));
    }
    i64::try_from(ttl).map_err(|_| Error::invalid("'ttl_ms' is too large"))
}

/// A token's role: never more than its maker's, and the maker's own where none is asked for.
fn role(ctx: &Ctx, params: &TokenCreateParams) -> Result<Option<RoleName>, Error> {
    let rights = &ctx.who.rights;
    match (params.kind, params.role.clone(), rights.first()) {
        (TokenKind::Session, ..) => {
            Err(Error::invalid("session tokens are made by session.login; 'kind' is 'api' or 'join'"))
        }
        (TokenKind::Join, None, _) => Ok(None),
        (TokenKind::Join, Some(_), _) => {
            Err(Error::invalid("a join token has no role: it enrols hosts only"))
        }
        (TokenKind::Api, _, None) => Err(Error::forbidden("who has no role cannot make a token with one")),
        (TokenKind::Api, None, Some(own)) => Ok(Some(own.clone())),
        // The account behind the maker is behind the new token too, and limits it in the same way.
        (TokenKind::Api, Some(role), Some(own)) if rights.cover(&role) || role == *own => Ok(Some(role)),
        (TokenKind::Api, Some(role), Some(_)) => Err(Error::forbidden(format!(
            "a token never has more rights than its maker: {role} was asked for, the maker has {rights}"
        ))),
    }
}

fn uses(hub: &Hub, params: &TokenCreateParams) -> Result<Option<u32>, Error> {
    let most = hub.config.limits.join_token_uses;
    match (params.kind, params.uses) {
        (TokenKind::Join, uses) => match uses.unwrap_or(1) {
            uses if (1..=most).contains(&uses) => Ok(Some(uses)),
            uses => Err(Error::invalid(format!("'uses' is {uses}, it must be between 1 and {most}"))),
        },
        (_, None) => Ok(None),
        (_, Some(_)) => Err(Error::invalid("only join tokens count their uses; leave 'uses' out")),
    }
}

fn check_texts(params: &TokenCreateParams) -> Result<(), Error> {
    let clean = |text: &str| !text.chars().any(char::is_control);
    if params.name.len() > MAX_TOKEN_NAME || !clean(&params.name) {
        return Err(Error::invalid(format!(
            "a token's name has at most {MAX_TOKEN_NAME} bytes and no control characters"
        )));
    }
    if params.kind != TokenKind::Join && !params.labels.is_empty() {
        return Err(Error::invalid("only join tokens give labels; leave 'labels' out"));
    }
    if params.labels.len() > MAX_LABELS {
        return Err(Error::invalid(format!("at most {MAX_LABELS} labels")));
    }
    for (key, value) in &params.labels {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
        if key.is_empty() || key.len() > MAX_NAME || !key.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "a label's key is 1 to {MAX_NAME} of a-z A-Z 0-9 . _ - /, unlike '{}'",
                key.escape_debug().take(MAX_NAME).collect::<String>()
            )));
        }
        if value.len() > MAX_LABEL_VALUE || !clean(value) {
            return Err(Error::invalid(format!(
                "the value of the label '{key}' has at most {MAX_LABEL_VALUE} bytes and no control characters"
            )));
        }
    }
    Ok(())
}

async fn create(ctx: ChangeCtx, params: TokenCreateParams) -> Result<TokenCreateReply, Error> {
    let hub = &ctx.hub;
    let role = role(&ctx, &params)?;
    let uses_left = uses(hub, &params)?;
    let ttl = ttl(hub, &params)?;
    check_texts(&params)?;
    check_room(hub)?;
    let _role_stays = hub.access.role_users.lock().await;
    if let Some(role) = &role {
        roles::require(hub, role)?;
    }
    let id = TokenId::from_uuid(hub.clock.uuid());
    let now = hub.clock.wall();
    // A token belongs to the account behind its maker and ends with it.
    let user_name = ctx.who.user.and_then(|user| {
        hub.store.view(|view| view.users.values().find(|account| account.id == user).map(|u| u.name.clone()))
    });
    let record = TokenRecord {
        id,
        kind: params.kind,
        name: params.name,
        by: ctx.who.name(),
        user: ctx.who.user.filter(|_| user_name.is_some()),
        user_name,
        role: role.clone(),
        secret_hash: secret_hash(&hub.identity, id),
        created: now,
        expires: now.plus_millis(ttl),
        last_used: None,
        uses_left,
        labels: params.labels,
        revoked: false,
    };
    let mut change = ctx.change();
    change.put(&record, Expect::Absent);
    let about = about(&record);
    change.event(
        "token.created",
        about.clone(),
        json!({"id": id, "kind": record.kind, "role": role, "by": record.by}),
    );
    let remembered =
        TokenCreateReply { id, token: String::new(), kind: record.kind, expires: record.expires };
    ctx.commit(change, about, Vec::new(), &remembered).await?;
    Ok(TokenCreateReply { token: token_text(&hub.identity, record.kind, id), ..remembered })
}

/// What a token is called in events and the audit.
fn about(token: &TokenRecord) -> String {
    if token.name.is_empty() { token.id.to_string() } else { format!("{} ({})", token.name, token.id) }
}

async fn list(ctx: Ctx, _: NoParams) -> Result<TokenListReply, Error> {
    let mut tokens: Vec<Token> = ctx.hub.store.view(|view| {
        let show = |token: &Versioned<TokenRecord>| Token {
            id: token.id,
            kind: token.kind,
            name: token.name.clone(),
            by: token.by.clone(),
            role: token.role.clone(),
            created: token.created,
            expires: token.expires,
            last_used: token.last_used,
            uses_left: token.uses_left,
            labels: token.labels.clone(),
            revoked: token.revoked,
        };
        view.tokens.values().map(show).collect()
    });
    tokens.sort_by(|a, b| b.created.cmp(&a.created).then(b.id.cmp(&a.id)));
    Ok(TokenListReply { tokens })
}

/// Ends a token; it stays in listings for a while.
pub(super) fn revoke(change: &mut Change, token: &Versioned<TokenRecord>) {
    let expires = token.expires.min(change.at());
    let record = TokenRecord { revoked: true, expires, ..TokenRecord::clone(token) };
    change.put(&record, Expect::Revision(token.revision));
}

async fn revoke_token(ctx: ChangeCtx, params: TokenRevokeParams) -> Result<Done, Error> {
    let token = ctx.hub.store.view(|view| view.tokens.get(&params.id).cloned()).ok_or_else(|| {
        Error::not_found(format!("there is no token {}; 'datacentered token list' shows all", params.id))
    })?;
    let mut change = ctx.change();
    if !token.revoked {
        revoke(&mut change, &token);
        change.event("token.revoked", about(&token), json!({"id": token.id, "by": ctx.who.name()}));
    }
    ctx.commit(change, about(&token), Vec::new(), &Done {}).await?;
    Ok(Done {})
}

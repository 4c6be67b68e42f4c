//! Tokens: their secrets, and whom they speak for.
//!
//! A secret is derived from the hub's master secret and the token's public id, so that the first reply of
//! `token.create` can be given again without being stored. What is stored is its SHA-256.

use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datacentered_proto::ops::access::TokenKind;
use datacentered_proto::ops::role::RoleName;
use datacentered_proto::ops::session::Subject;
use datacentered_proto::{Error, Timestamp, TokenId};

use super::Rights;
use crate::hub::Hub;
use crate::identity::{Identity, sha256_hex};
use crate::sessions::{Credential, Peer, Who};
use crate::store::records::TokenRecord;
use crate::store::{Versioned, View};

/// What API and session tokens begin with.
pub(super) const API_PREFIX: &str = "dc_";

/// What join tokens begin with.
const JOIN_PREFIX: &str = "dcj_";

/// Longest text that is looked at as a token, in bytes.
const MAX_TOKEN: usize = 256;

/// Length of a fingerprint in hexadecimal.
const FINGERPRINT_LEN: usize = 64;

/// Uses are written down to the minute.
const MINUTE_MS: i64 = 60 * 1000;

/// The secret part of a token.
fn secret(identity: &Identity, id: TokenId) -> String {
    URL_SAFE_NO_PAD.encode(identity.derive("token", id.uuid().as_bytes()))
}

/// The text that its owner keeps. A join token also carries the fingerprint of the hub's CA key.
pub(super) fn token_text(identity: &Identity, kind: TokenKind, id: TokenId) -> String {
    let secret = secret(identity, id);
    match kind {
        TokenKind::Join => format!("{JOIN_PREFIX}{secret}_{}", identity.ca_fingerprint()),
        TokenKind::Api | TokenKind::Session => format!("{API_PREFIX}{secret}"),
    }
}

/// What is stored of it.
pub(super) fn secret_hash(identity: &Identity, id: TokenId) -> String {
    sha256_hex(secret(identity, id).as_bytes())
}

/// Whether a token is still good.
pub(super) fn stands(view: &View, token: &TokenRecord, now: Timestamp) -> bool {
    let account_stands = match (&token.user, &token.user_name) {
        (Some(user), Some(name)) => view.users.get(name).is_some_and(|account| account.id == *user),
        _ => true,
    };
    !token.revoked && token.expires > now && account_stands
}

fn find(hub: &Hub, secret: &str) -> Option<(Versioned<TokenRecord>, bool, Option<RoleName>)> {
    let hash = sha256_hex(secret.as_bytes());
    let now = hub.clock.wall();
    hub.store.view(|view| {
        let token = view.tokens.get(view.token_hashes.get(&hash)?)?.clone();
        let account_role = token
            .user_name
            .as_ref()
            .and_then(|name| view.users.get(name))
            .map(|account| account.role.clone());
        Some((token.clone(), stands(view, &token, now), account_role))
    })
}

/// Whom an API or session token speaks for.
///
/// Errors: `unauthenticated`, saying what to do. It costs one hash and one look-up, whatever the text.
pub async fn authenticate(hub: &Arc<Hub>, token: &str, peer: &Peer) -> Result<Who, Error> {
    let refused = |message: &str| {
        hub.metrics.credential_refused();
        tracing::debug!(%peer, message, "a token was refused");
        Err(Error::unauthenticated(message))
    };
    let token = token.trim();
    if token.starts_with(JOIN_PREFIX) {
        return refused("this is a join token: it enrols hosts and nothing else; make one without --join");
    }
    let secret =
        token.strip_prefix(API_PREFIX).filter(|secret| !secret.is_empty() && token.len() <= MAX_TOKEN);
    let Some(secret) = secret else {
        return refused("this is not a token: one begins with 'dc_'; log in with 'datacentered login'");
    };
    let Some((record, stands, account_role)) = find(hub, secret) else {
        return refused("this token is not known to this hub; log in again with 'datacentered login'");
    };
    if record.kind == TokenKind::Join {
        return refused("this is a join token: it enrols hosts and nothing else; make one without --join");
    }
    if !stands {
        return refused("this token has ended or was revoked; log in again, or ask an admin for a new one");
    }
    let name = match (&record.kind, &record.user_name) {
        (TokenKind::Session, Some(name)) => name.clone(),
        _ if record.name.is_empty() => format!("token:{}", record.id),
        _ => format!("token:{}", record.name),
    };
    // Never more than the account behind it, whatever the token was made with.
    let rights = match (record.role.clone(), account_role) {
        (Some(role), account) => Rights::of_token(role, account),
        (None, Some(role)) => Rights::of(role),
        (None, None) => return refused("this token has no role; revoke it and make a new one"),
    };
    let Some(role) = rights.first().cloned() else {
        return refused("this token has no role; revoke it and make a new one");
    };
    note_use(hub, &record);
    Ok(Who {
        subject: Subject::User { name, role },
        rights,
        credential: Credential::Token(record.id),
        user: record.user,
    })
}

/// The moment a use is written down as.
pub(super) fn minute(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.as_millis().div_euclid(MINUTE_MS) * MINUTE_MS)
}

/// Remembers that a token was used, for [`super::maintain()`] to write down.
fn note_use(hub: &Hub, token: &TokenRecord) {
    let now = minute(hub.clock.wall());
    if token.last_used.is_none_or(|last| last < now) {
        hub.access.used.lock().unwrap_or_else(PoisonError::into_inner).insert(token.id, now);
    }
}

/// The join token with this secret (or the whole `dcj_...` text), whether it may still enrol a host or not.
///
/// Errors: `unauthenticated`, saying what to do.
pub fn find_join_token(hub: &Hub, secret: &str, peer: &Peer) -> Result<Versioned<TokenRecord>, Error> {
    let refused = |message: &str| {
        hub.metrics.credential_refused();
        tracing::info!(%peer, message, "a join token was refused");
        Err(Error::unauthenticated(message))
    };
    let secret = secret.trim();
    if secret.starts_with(API_PREFIX) {
        return refused("this is an API token; make a join token with 'datacentered token create --join'");
    }
    let found = (secret.len() <= MAX_TOKEN).then(|| find(hub, join_secret(secret))).flatten();
    match found {
        Some((token, ..)) if token.kind == TokenKind::Join => Ok(token),
        _ => refused(
            "this join token is not known to this hub; make one with 'datacentered token create --join'",
        ),
    }
}

/// Refuses a join token that may not enrol any more.
///
/// Errors: `unauthenticated`, saying what to do.
pub fn check_join_token(hub: &Hub, token: &TokenRecord) -> Result<(), Error> {
    let now = hub.clock.wall();
    let message = if token.uses_left == Some(0) {
        "this join token has been used up; make a new one with 'datacentered token create --join'"
    } else if !hub.store.view(|view| stands(view, token, now)) {
        "this join token has expired or was revoked; make a new one with 'datacentered token create --join'"
    } else {
        return Ok(());
    };
    hub.metrics.credential_refused();
    Err(Error::unauthenticated(message))
}

/// The secret in the middle of a join token; the text itself where it is nothing more.
pub(super) fn join_secret(text: &str) -> &str {
    let Some(rest) = text.strip_prefix(JOIN_PREFIX) else { return text };
    match rest.rsplit_once('_') {
        Some((secret, fingerprint)) if fingerprint.len() == FINGERPRINT_LEN => secret,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_a_join_token_may_have_underscores() {
        let fingerprint = "0".repeat(64);
        assert_eq!(join_secret(&format!("dcj_ab_c-_{fingerprint}")), "ab_c-");
        assert_eq!(join_secret("ab_c-"), "ab_c-");
        assert_eq!(join_secret("dcj_abc"), "abc");
    }

    #[test]
    fn minutes() {
        assert_eq!(minute(Timestamp::from_millis(119_999)).as_millis(), 60_000);
    }
}

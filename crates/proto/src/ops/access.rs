//! Accounts, tokens and roles.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::RoleName;
use crate::ids::{OperationKey, TokenId, UserId};
use crate::time::Timestamp;

/// What a person or program may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Runs commands and changes hosts.
    Operator,
    /// Everything, accounts and tokens included.
    Admin,
}

impl Role {
    /// Every role, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Its identity.
    pub id: UserId,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: RoleName,
    /// When it was made.
    pub created: Timestamp,
}

/// `user.create`.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreateParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The name to log in with: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    pub name: String,
    /// The password, at least 10 characters.
    pub password: String,
    /// What it may do.
    pub role: RoleName,
}

impl std::fmt::Debug for UserCreateParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserCreateParams")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// `user.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserListReply {
    /// The accounts, by name.
    pub users: Vec<User>,
}

/// `user.revoke`: the account ends, with all its tokens and open connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRevokeParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// Its name.
    pub name: String,
}

/// `user.password`: a new password; every session of the account ends. Admins for anyone, others for themselves.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPasswordParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The account's name.
    pub name: String,
    /// The new password.
    pub password: String,
}

impl std::fmt::Debug for UserPasswordParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserPasswordParams").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Calls operations.
    Api,
    /// Enrols hosts, and nothing else.
    Join,
    /// A person's login.
    Session,
}

impl TokenKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Join => "join",
            Self::Session => "session",
        }
    }
}

/// `token.create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreateParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// `api` or `join`.
    pub kind: TokenKind,
    /// A name for listings and the audit.
    #[serde(default)]
    pub name: String,
    /// What an API token may do; never more than its maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// How long it lives, in milliseconds; 24 h for join tokens and 90 days for API tokens where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// How many hosts a join token may enrol; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Labels that a join token gives its hosts.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A token; its secret is shown this once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreateReply {
    /// Its public id.
    pub id: TokenId,
    /// The secret. A join token carries the fingerprint of the hub's CA key.
    pub token: String,
    /// What it is good for.
    pub kind: TokenKind,
    /// When it ends.
    pub expires: Timestamp,
}

impl std::fmt::Debug for TokenCreateReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreateReply")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A token in a list; never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its public id.
    pub id: TokenId,
    /// What it is good for.
    pub kind: TokenKind,
    /// Its name.
    pub name: String,
    /// Who made it.
    pub by: String,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was last used (kept to the minute).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// Uses left, for join tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// Labels it gives, for join tokens.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it has been revoked.
    #[serde(default)]
    pub revoked: bool,
}

/// `token.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenListReply {
    /// The tokens, newest first.
    pub tokens: Vec<Token>,
}

/// `token.revoke`: it ends now, and every connection that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRevokeParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// Its public id.
    pub id: TokenId,
}

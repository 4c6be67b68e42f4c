//! Roles: the three that every hub has, and own ones made of operation patterns and host selectors.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::access::Role;
use crate::ids::OperationKey;
use crate::time::Timestamp;

/// Longest name of an own role, in bytes.
pub const MAX_ROLE_NAME: usize = 64;

/// Which role: one that every hub has, or an own one by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum RoleName {
    /// `viewer`, `operator` or `admin`.
    BuiltIn(Role),
    /// One that was made with `role.create`.
    Own(String),
}

/// Why a text is no role's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a role is viewer, operator, admin, or an own one, whose name is 1 to {MAX_ROLE_NAME} of a-z 0-9 . _ - and begins \
     with a letter"
)]
pub struct InvalidRoleName;

impl RoleName {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::BuiltIn(role) => role.as_str(),
            Self::Own(name) => name,
        }
    }

    /// Whether it is this built-in role.
    pub fn is(&self, role: Role) -> bool {
        *self == Self::BuiltIn(role)
    }
}

impl FromStr for RoleName {
    type Err = InvalidRoleName;

    fn from_str(text: &str) -> Result<Self, InvalidRoleName> {
        if let Some(role) = Role::ALL.into_iter().find(|role| role.as_str() == text) {
            return Ok(Self::BuiltIn(role));
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if first && text.len() <= MAX_ROLE_NAME && text.bytes().all(plain) {
            return Ok(Self::Own(text.to_owned()));
        }
        Err(InvalidRoleName)
    }
}

impl TryFrom<String> for RoleName {
    type Error = InvalidRoleName;

    fn try_from(text: String) -> Result<Self, InvalidRoleName> {
        text.parse()
    }
}

impl From<RoleName> for String {
    fn from(name: RoleName) -> Self {
        name.as_str().to_owned()
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        Self::BuiltIn(role)
    }
}

impl std::fmt::Display for RoleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl JsonSchema for RoleName {
    fn schema_name() -> Cow<'static, str> {
        "RoleName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Which role: `viewer`, `operator`, `admin`, or an own one by its name.",
            "type": "string",
            "pattern": "^[a-z][a-z0-9._-]{0,63}$"
        })
    }
}

/// `role.create`: an own role. It cannot be changed later: make another, or revoke it once nobody has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleCreateParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// Its name: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter; not one of the built-in ones.
    pub name: String,
    /// The operations that it may call: names, or patterns such as `run.*`. What only admins may do has to be named
    /// in full, by an admin.
    pub allow: Vec<String>,
    /// Operations that it may not call, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Selectors of the hosts that it is for; all hosts where empty.
    #[serde(default)]
    pub on: Vec<String>,
}

/// `role.revoke`: an own role goes. Refused while an account or a token has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRevokeParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// Its name.
    pub name: String,
}

/// A role and what it allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleView {
    /// Its name.
    pub name: RoleName,
    /// Whether every hub has it.
    #[serde(default)]
    pub built_in: bool,
    /// The operations that it may call.
    pub operations: Vec<String>,
    /// What an own role allows, as it was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What it denies, as it was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// The hosts that it is for; all where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
}

/// `role.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleListReply {
    /// The built-in roles, least first; then the own ones by name.
    pub roles: Vec<RoleView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roles() {
        assert_eq!("admin".parse(), Ok(RoleName::BuiltIn(Role::Admin)));
        assert_eq!("web-team.1_x".parse(), Ok(RoleName::Own("web-team.1_x".into())));
        for bad in ["", "Admin", "1a", "-a", ".a", "a b", "a*", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<RoleName>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&RoleName::BuiltIn(Role::Viewer)).expect("json"), "\"viewer\"");
        assert!(serde_json::from_str::<RoleName>("\"no such\"").is_err());
    }
}

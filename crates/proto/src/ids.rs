//! Typed identifiers: a host's can never be handed in where a run's is meant.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error)]
#[error("not an identifier: expected a lower-case UUID such as '0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f'")]
pub struct InvalidId;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// From a UUID.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.as_hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                // Exactly the one canonical spelling, so that an id is also a unique key.
                let uuid = Uuid::try_parse(text).map_err(|_| InvalidId)?;
                let id = Self(uuid);
                if text.len() == 36 && id.to_string() == text { Ok(id) } else { Err(InvalidId) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": "uuid"})
            }
        }
    )*};
}

ids! {
    /// A host in the hub's registry. Given at enrolment; it stays when keys rotate and is never given again.
    HostId,
    /// A run; made by the client (UUIDv7), and the idempotency key of its creation.
    RunId,
    /// The part of a run on one host.
    JobId,
    /// A person's account.
    UserId,
    /// An API token, session token or join token.
    TokenId,
    /// One connection's session.
    SessionId,
    /// The client-made idempotency key of a change (UUIDv7).
    OperationKey,
    /// One entry of the audit.
    AuditId,
}

impl From<RunId> for OperationKey {
    fn from(run: RunId) -> Self {
        Self::from_uuid(run.uuid())
    }
}

/// A fresh time-ordered UUID (version 7) from a clock reading and randomness that the caller supplies.
pub fn uuid_v7(unix_millis: u64, random: [u8; 10]) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_parses() {
        let id = HostId::from_uuid(uuid_v7(1, [7; 10]));
        let text = id.to_string();
        assert_eq!(text.parse::<HostId>().expect("parses"), id);
        assert!(text.to_uppercase().parse::<HostId>().is_err() || text.to_uppercase() == text);
        assert!(text.replace('-', "").parse::<HostId>().is_err());
        assert!("../../etc/passwd".parse::<HostId>().is_err());
    }

    #[test]
    fn version_7_sorts_by_time() {
        assert!(uuid_v7(1, [255; 10]) < uuid_v7(2, [0; 10]));
        assert_eq!(uuid_v7(5, [0; 10]).get_version_num(), 7);
    }
}

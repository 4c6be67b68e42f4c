//! Sessions: one connection's identity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::RoleName;
use crate::ids::{HostId, OperationKey, SessionId, TokenId};
use crate::time::Timestamp;

/// `session.hello`: the first call on every link.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HelloParams {
    /// The protocol version that the caller speaks.
    pub protocol: u32,
    /// Named additions that the caller understands.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Program name and version, for listings.
    #[serde(default)]
    pub client: String,
    /// An API or session token; left out on the local socket, with a session cookie, and by agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What an agent says about its journal; required of enrolled agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentHello>,
    /// The caller's clock, to measure its skew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Timestamp>,
}

impl std::fmt::Debug for HelloParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HelloParams")
            .field("protocol", &self.protocol)
            .field("client", &self.client)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// The agent's journal, at hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentHello {
    /// Random name of the journal, made when it was created: `[a-z0-9]{1,32}`.
    pub incarnation: String,
    /// Records ever written to it; one that went back is another journal.
    pub high_water: u64,
    /// Identifier of the host's current boot.
    pub boot_id: String,
    /// The agent's version.
    pub version: String,
}

/// Who a session speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// Nobody yet.
    Anonymous,
    /// A key that is not in the registry: it may enrol.
    UnknownHost,
    /// An enrolled host.
    Host {
        /// Its identity.
        id: HostId,
        /// Its name.
        name: String,
    },
    /// A person or program with an account or token.
    User {
        /// The account's name, or `token:NAME`.
        name: String,
        /// What it may do.
        role: RoleName,
    },
    /// A process of the hub's user on the hub's machine.
    Local {
        /// Its user number.
        uid: u32,
        /// Its process number.
        pid: u32,
    },
}

/// The hub's answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloReply {
    /// The protocol version that this link speaks.
    pub protocol: u32,
    /// Named additions that the hub understands.
    pub capabilities: Vec<String>,
    /// This session.
    pub session: SessionId,
    /// The hub's version.
    pub version: String,
    /// The hub's epoch: it changes on restore.
    pub epoch: String,
    /// Who the session speaks for.
    pub subject: Subject,
    /// A quiet link is pinged after this long, in milliseconds; silence of three times as long means that it is dead.
    pub heartbeat_ms: u64,
    /// When lost links should come back: a delay drawn by the hub for this peer, in milliseconds.
    pub reconnect_slot_ms: u64,
    /// The hub's clock.
    pub now: Timestamp,
}

/// `session.login`: a session token for a name and password.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The account's name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for LoginParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginParams").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A session token; shown once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct LoginReply {
    /// The token's public id.
    pub id: TokenId,
    /// The secret.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
    /// What it may do.
    pub role: RoleName,
    /// The account's name.
    pub name: String,
}

impl std::fmt::Debug for LoginReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginReply").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// `session.logout`: the credential that this session used ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogoutParams {
    /// Idempotency key.
    pub key: OperationKey,
}

/// `session.whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhoamiReply {
    /// Who the session speaks for.
    pub subject: Subject,
    /// The session.
    pub session: SessionId,
}

/// `session.setup`: the first account, with the one-time secret that the hub printed.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetupParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// The one-time secret of the setup link.
    pub secret: String,
    /// Name of the first administrator.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for SetupParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetupParams").field("name", &self.name).finish_non_exhaustive()
    }
}

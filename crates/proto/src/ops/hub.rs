//! The hub itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StreamOpen;
use crate::time::Timestamp;

/// `hub.status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusReply {
    /// The hub's version.
    pub version: String,
    /// When it was started.
    pub started: Timestamp,
    /// Its epoch.
    pub epoch: String,
    /// SHA-256 of the hub's CA key (SPKI), lower-case hex: what agents pin.
    pub ca_fingerprint: String,
    /// SHA-256 of the web certificate's key (SPKI), lower-case hex: what `login` shows and asks.
    pub web_fingerprint: String,
    /// Where it keeps its state: `embedded` or the NATS servers.
    pub engine: String,
    /// How writes reach the disk, for a person.
    pub durability: String,
    /// Hosts in the registry.
    pub hosts: u32,
    /// Hosts online.
    pub hosts_online: u32,
    /// Links of clients.
    pub clients: u32,
    /// Runs that have not ended.
    pub runs_active: u32,
    /// Jobs that have not ended.
    pub jobs_active: u32,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Durable syncs of the engine since the start.
    pub fsyncs: u64,
    /// Whether the first account has been made.
    pub set_up: bool,
}

/// `hub.backup`: one consistent copy of everything, as a stream of kind file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupParams {
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// `operation.list`: the table of operations with their schemas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationsReply {
    /// The names, in order; `/api/openapi.json` has the schemas.
    pub operations: Vec<OperationView>,
}

/// One operation in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    /// Its name.
    pub name: String,
    /// What it does.
    pub doc: String,
    /// Which permission it needs.
    pub permission: String,
    /// Whether it reads, changes or streams.
    pub effect: String,
}

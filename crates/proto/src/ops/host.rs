//! Hosts: registry, facts, presence, enrolment.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StreamOpen;
use crate::cursor::Cursor;
use crate::ids::{HostId, OperationKey};
use crate::time::Timestamp;

/// What a host says about itself. Every text is length-capped and stripped of control characters by the hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Facts {
    /// The host's own name for itself.
    #[serde(default)]
    pub hostname: String,
    /// Distribution, by its id such as `debian`.
    #[serde(default)]
    pub os_id: String,
    /// Version of the distribution, such as `12`.
    #[serde(default)]
    pub os_version: String,
    /// The distribution's full name.
    #[serde(default)]
    pub os_name: String,
    /// Kernel release.
    #[serde(default)]
    pub kernel: String,
    /// Machine architecture, such as `x86_64`.
    #[serde(default)]
    pub arch: String,
    /// Processor model.
    #[serde(default)]
    pub cpu_model: String,
    /// Logical processors.
    #[serde(default)]
    pub cpus: u32,
    /// Memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Swap in bytes.
    #[serde(default)]
    pub swap_bytes: u64,
    /// Mounted file systems on disks.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Addresses, loopback left out.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// What the host itself is virtualised by (`kvm`, `lxc`, ...), `none` on bare metal.
    #[serde(default)]
    pub virtualisation: String,
    /// The agent's version.
    #[serde(default)]
    pub agent_version: String,
    /// Identifier of the current boot.
    #[serde(default)]
    pub boot_id: String,
    /// When the host booted, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted: Option<Timestamp>,
    /// The host's own policy; absent where it has none.
    #[serde(default, skip_serializing_if = "PolicyFacts::is_none")]
    pub policy: PolicyFacts,
}

/// What a host says about its policy, by which it may refuse jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyFacts {
    /// The file on the host.
    #[serde(default)]
    pub file: String,
    /// How many rules are in force.
    #[serde(default)]
    pub rules: u32,
    /// What holds where no rule matches: `allow` or `refuse`.
    #[serde(default)]
    pub default: String,
    /// What is wrong with the file as it stands; the last good one holds, or everything is refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl PolicyFacts {
    /// Whether the host has no policy.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// One mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Device.
    pub device: String,
    /// File system type.
    pub fs: String,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Free for ordinary users, in bytes.
    pub free_bytes: u64,
}

/// One address of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// Network interface.
    pub interface: String,
    /// IPv4 or IPv6 address.
    pub address: String,
}

/// How good the link to a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkQuality {
    /// Latest round-trip time in microseconds.
    pub rtt_us: u64,
    /// The host's clock minus the hub's, in milliseconds.
    pub clock_skew_ms: i64,
    /// The peer address of the link.
    pub peer: String,
    /// Links that were lost since the hub's start.
    pub losses: u32,
}

/// A host as the hub knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Its identity in the registry.
    pub id: HostId,
    /// Its name; a label, not an identity.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its link is up.
    pub online: bool,
    /// Since when it is online or offline; absent where it never connected.
    pub since: Option<Timestamp>,
    /// When it was last heard of; absent where it never connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Why it is offline, as a stable word such as `link_lost`, `closed`, `hub_restarted`, `revoked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether its key has been revoked.
    #[serde(default)]
    pub revoked: bool,
    /// When it was enrolled.
    pub enrolled: Timestamp,
    /// SHA-256 of its public key (SPKI), lower-case hex.
    pub key_fingerprint: String,
    /// What it says about itself.
    #[serde(default)]
    pub facts: Facts,
    /// Present while it is online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkQuality>,
}

/// `host.list`: by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only hosts that any of these selectors matches; all where empty.
    #[serde(default)]
    pub on: Vec<String>,
    /// Most hosts in the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Go on behind this name (the `next` of the page before).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A page of hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListReply {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Where the next page begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `host.show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostParams {
    /// Name or id.
    pub host: String,
}

/// `host.label`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// Name or id.
    pub host: String,
    /// Labels to set.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Labels to take away.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// `host.rename`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// Name or id.
    pub host: String,
    /// The new name; no other host may have it.
    pub name: String,
}

/// `host.revoke` (its key never returns) and `host.remove` (and it leaves the registry).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeParams {
    /// Idempotency key.
    pub key: OperationKey,
    /// Name or id.
    pub host: String,
}

/// `host.watch`: every host as it stands, then each change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchParams {
    /// Only hosts that any of these selectors matches; all where empty.
    #[serde(default)]
    pub on: Vec<String>,
    /// Only what changed behind this cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// One step of `host.watch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum WatchItem {
    /// The host as it stands now.
    Host {
        /// The host.
        host: Box<Host>,
    },
    /// It left the registry, or the selection.
    Removed {
        /// Its identity.
        id: HostId,
        /// Its last name.
        name: String,
    },
    /// Everything that stood at the opening has been sent.
    CaughtUp,
}

/// `host.enrol`: an agent whose key is not in the registry proves a join token.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolParams {
    /// The join token's secret.
    pub token: String,
    /// The name it would like; the hub may give another where it is taken.
    pub name: String,
    /// Labels it would like; the token's own win.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Facts, so that selectors work from the first moment.
    #[serde(default)]
    pub facts: Facts,
}

impl std::fmt::Debug for EnrolParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolParams")
            .field("name", &self.name)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// What an enrolled agent keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnrolReply {
    /// Its identity.
    pub host: HostId,
    /// The name it was given.
    pub name: String,
    /// Its certificate (PEM), signed by the hub's CA.
    pub certificate: String,
    /// The hub's CA certificate (PEM).
    pub ca_certificate: String,
}

/// `host.report`: the agent's facts, when they changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportParams {
    /// What it says about itself.
    pub facts: Facts,
}

//! What the hub keeps in the `control` bucket: one record type per kind of key.

use std::collections::BTreeMap;

use datacentered_engine::Key;
use datacentered_engine::record::Stored;
use datacentered_proto::ops::access::TokenKind;
use datacentered_proto::ops::host::Facts;
use datacentered_proto::ops::job::{ExecSpec, Window};
use datacentered_proto::ops::role::RoleName;
use datacentered_proto::ops::run::OfflinePolicy;
use datacentered_proto::{
    AuditId, Evidence, HostId, JobId, JobState, OperationKey, Outcome, RunId, Timestamp, TokenId, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A record that lives under a key of its own.
pub trait Keyed: Stored + Clone + Send + Sync + 'static {
    /// The first token of its keys.
    const KIND: &'static str;

    /// The tokens behind the kind.
    fn id(&self) -> Vec<String>;

    /// Its key. Ids are bounded where they enter, so that a key is never too long.
    fn key(&self) -> datacentered_engine::Result<Key> {
        key_of::<Self>(&self.id())
    }
}

/// The key of the record of kind `R` with this id.
pub fn key_of<R: Keyed>(id: &[String]) -> datacentered_engine::Result<Key> {
    Key::from_tokens(std::iter::once(R::KIND).chain(id.iter().map(String::as_str)))
}

macro_rules! keyed {
    ($($type:ident = $kind:literal v $version:literal, |$this:ident| $id:expr;)*) => {$(
        impl Stored for $type {
            const VERSION: u32 = $version;
            const NAME: &'static str = $kind;
        }

        impl Keyed for $type {
            const KIND: &'static str = $kind;

            fn id(&self) -> Vec<String> {
                let $this = self;
                $id
            }
        }
    )*};
}

keyed! {
    HostRecord = "host" v 1, |r| vec![r.id.to_string()];
    HostNameRecord = "hostname" v 1, |r| vec![r.name.clone()];
    BurntKeyRecord = "burntkey" v 1, |r| vec![r.fingerprint.clone()];
    JournalRecord = "journal" v 1, |r| vec![r.host.to_string()];
    PresenceRecord = "presence" v 1, |r| vec![r.host.to_string()];
    UserRecord = "user" v 1, |r| vec![r.name.clone()];
    TokenRecord = "token" v 1, |r| vec![r.id.to_string()];
    RoleRecord = "role" v 1, |r| vec![r.name.clone()];
    RunRecord = "run" v 1, |r| vec![r.run.to_string()];
    RunTargetsRecord = "runtargets" v 1, |r| vec![r.run.to_string(), r.chunk.to_string()];
    JobRecord = "job" v 1, |r| vec![r.job.to_string()];
    DedupeRecord = "dedupe" v 1, |r| vec![r.caller.clone(), r.key.to_string()];
    SetupRecord = "setup" v 1, |_r| vec!["first".into()];
    HubRecord = "hub" v 1, |_r| vec!["self".into()];
}

/// A host in the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its identity.
    pub id: HostId,
    /// Its name, unique in the registry.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of its public key, lower-case hex.
    pub key_fingerprint: String,
    /// When its key was revoked.
    pub revoked: Option<Timestamp>,
    /// When it was enrolled.
    pub enrolled: Timestamp,
    /// The join token that enrolled it.
    pub enrolled_by: TokenId,
    /// What it said about itself last.
    pub facts: Facts,
}

/// What the hub knows of a host's journal: the one that its jobs are bound to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The host.
    pub host: HostId,
    /// The journal's name.
    pub incarnation: String,
    /// The highest mark of it that the hub has seen.
    pub high_water: u64,
    /// The epoch of the hub's state in which both sides' jobs were last compared. Another one than today's: not since the
    /// hub was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<String>,
}

/// Holds a host's name, so that no two have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostNameRecord {
    /// The name.
    pub name: String,
    /// Whose it is.
    pub host: HostId,
}

/// A key that never returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurntKeyRecord {
    /// SHA-256 of the public key, lower-case hex.
    pub fingerprint: String,
    /// Whose it was.
    pub host: HostId,
    /// Its last name.
    pub name: String,
}

/// Whether a host's link is up, as of its last change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PresenceRecord {
    /// The host.
    pub host: HostId,
    /// Whether it is online.
    pub online: bool,
    /// Since when.
    pub since: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Why it is offline, as a stable word.
    pub reason: Option<String>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserRecord {
    /// Its identity: an account of the same name made later has another.
    pub id: UserId,
    /// The name to log in with.
    pub name: String,
    /// What it may do.
    pub role: RoleName,
    /// Its password, as an argon2id PHC string.
    pub password: String,
    /// When it was made.
    pub created: Timestamp,
}

/// An own role. It never changes: what somebody was given is what was seen when it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// Its name.
    pub name: String,
    /// Patterns of the operations that it allows.
    pub allow: Vec<String>,
    /// Patterns of those that it denies all the same.
    pub deny: Vec<String>,
    /// Selectors of the hosts that it is for; all where empty.
    pub on: Vec<String>,
    /// Who made it.
    pub by: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A token. The secret itself is never kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its public id.
    pub id: TokenId,
    /// What it is good for.
    pub kind: TokenKind,
    /// A name for listings.
    pub name: String,
    /// Who made it.
    pub by: String,
    /// The account it belongs to: a person's session, or the account that made an API token.
    pub user: Option<UserId>,
    /// That account's name.
    pub user_name: Option<String>,
    /// What it may do.
    pub role: Option<RoleName>,
    /// SHA-256 of the secret, lower-case hex.
    pub secret_hash: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
    /// Hosts it may still enrol.
    pub uses_left: Option<u32>,
    /// Labels it gives its hosts.
    pub labels: BTreeMap<String, String>,
    /// Whether it has been revoked.
    pub revoked: bool,
}

/// One target of a run, frozen at its creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRef {
    /// The job.
    pub job: JobId,
    /// The host.
    pub host: HostId,
    /// The host's name at that moment.
    pub name: String,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub run: RunId,
    /// Who asked for it, for people.
    pub by: String,
    /// Whose idempotency scope its id is in.
    pub caller: String,
    /// Hash of the parameters it was created with.
    pub params_hash: String,
    /// When it was created.
    pub created: Timestamp,
    /// When its last target ended.
    pub ended: Option<Timestamp>,
    /// The selectors.
    pub on: Vec<String>,
    /// What is executed.
    pub exec: ExecSpec,
    /// What happens to targets whose host is not connected.
    pub offline: OfflinePolicy,
    /// How long queued targets wait, in milliseconds.
    pub expires_ms: u64,
    /// Most targets under way at a time.
    pub max_parallel: Option<u32>,
    /// How many targets it has.
    pub target_count: u32,
    /// The targets, where they fit; else they are in `target_chunks` records of their own.
    pub targets: Vec<TargetRef>,
    /// How many [`RunTargetsRecord`]s hold the targets.
    pub target_chunks: u32,
    /// Joins its audit entries.
    pub audit: AuditId,
    /// The epoch of the hub's state in which it was created. Absent where it is older than this member, or adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

/// A piece of a long list of targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunTargetsRecord {
    /// The run.
    pub run: RunId,
    /// Which piece, from 0.
    pub chunk: u32,
    /// The targets.
    pub targets: Vec<TargetRef>,
}

/// A job: the part of a run on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub job: JobId,
    /// The run.
    pub run: RunId,
    /// The host.
    pub host: HostId,
    /// The host's name at the run's creation.
    pub host_name: String,
    /// Where it stands.
    pub state: JobState,
    /// The journal it was offered to; it is never offered to another.
    pub incarnation: Option<String>,
    /// When it stops waiting for its host.
    pub expires: Option<Timestamp>,
    /// Who asked to cancel it.
    pub cancel: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The facts behind it.
    pub evidence: Vec<Evidence>,
    /// When its process was started, by the host's clock.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Bytes of standard output.
    pub stdout_bytes: u64,
    /// Bytes of standard error.
    pub stderr_bytes: u64,
    /// Bytes of a terminal's marks.
    #[serde(default)]
    pub mark_bytes: u64,
    /// Whether the hub holds all of its output that it will ever get.
    pub output_complete: bool,
    /// Bytes of output that the hub keeps, where all is there; what was discarded on the host does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_bytes: Option<u64>,
    /// A terminal's: most bytes of its recording that are kept; the oldest go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording_bytes: Option<u64>,
    /// A terminal's: the size of its window, where it was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

impl JobRecord {
    /// The length of its one record of output: both streams and a terminal's marks, discarded ones included.
    pub fn record_bytes(&self) -> u64 {
        self.stdout_bytes.saturating_add(self.stderr_bytes).saturating_add(self.mark_bytes)
    }

    /// Whether the hub ended it by itself, so that the host's own end of it was never taken in.
    pub fn ended_by_hub(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Expired | Outcome::Offline { .. } | Outcome::Lost { .. }))
    }
}

/// The first reply to a change, for its repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DedupeRecord {
    /// Whose key it is.
    pub caller: String,
    /// The key.
    pub key: OperationKey,
    /// The operation.
    pub operation: String,
    /// Hash of the parameters.
    pub params_hash: String,
    /// The reply.
    pub reply: Value,
    /// When it was given.
    pub at: Timestamp,
}

/// The one-time secret of the first account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetupRecord {
    /// SHA-256 of the secret, lower-case hex; absent once the account has been made.
    pub secret_hash: Option<String>,
}

/// What the hub knows about its own history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HubRecord {
    /// The epoch of its last start. Another one than the engine's means that it was restored since.
    pub epoch: String,
    /// When it was first started after its last restore. Jobs made before that may be known to hosts only.
    pub restored: Option<Timestamp>,
}

//! Changes happen once: the client-made key, the remembered first reply, and the two phases of the audit.

use std::sync::Arc;

use datacentered_engine::kv::Expect;
use datacentered_proto::operations::Effect;
use datacentered_proto::ops::audit::{AuditEntry, Phase};
use datacentered_proto::ops::session::Subject;
use datacentered_proto::{AuditId, Code, Error, OperationKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Ctx;
use super::table::Replay;
use crate::store::Change;
use crate::store::records::DedupeRecord;

/// Longest object text in the audit.
const MAX_OBJECT: usize = 512;

#[derive(Deserialize)]
struct KeyMember {
    key: OperationKey,
}

/// What the handler of a change gets.
#[derive(Clone, Debug)]
pub struct ChangeCtx {
    ctx: Ctx,
    key: OperationKey,
    params_hash: Arc<str>,
    caller: Arc<str>,
}

impl std::ops::Deref for ChangeCtx {
    type Target = Ctx;

    fn deref(&self) -> &Ctx {
        &self.ctx
    }
}

impl Ctx {
    /// A change made by this caller.
    pub fn change(&self) -> Change {
        Change::new(&self.hub.clock, self.who.name(), self.cause.request.clone())
    }

    /// An audit entry of this call.
    pub fn audit_entry(&self, id: AuditId, phase: Phase, object: &str, hosts: Vec<String>) -> AuditEntry {
        AuditEntry {
            id,
            phase,
            at: self.hub.clock.wall(),
            by: self.who.name(),
            from: self.session.peer.to_string(),
            operation: self.spec.name.into(),
            object: object.chars().take(MAX_OBJECT).collect(),
            hosts,
            outcome: None,
            code: None,
        }
    }
}

impl ChangeCtx {
    /// The client-made key.
    pub fn key(&self) -> OperationKey {
        self.key
    }

    /// Whose key it is.
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// Commits the effect, with its audit and the reply for its repeats, in one step.
    ///
    /// Errors: as [`crate::store::Store::commit`]; `limited` when no more replies can be remembered.
    pub async fn commit<R: Serialize>(
        &self,
        mut change: Change,
        object: impl Into<String>,
        hosts: Vec<String>,
        reply: &R,
    ) -> Result<u64, Error> {
        let audit = self.add_intent(&mut change, object.into(), hosts);
        self.commit_intended(change, audit, reply).await
    }

    /// Writes down what is about to be done, for a change whose effects are more than one step.
    pub async fn intend(&self, object: impl Into<String>, hosts: Vec<String>) -> Result<Intent, Error> {
        let mut change = self.change();
        let intent = self.add_intent(&mut change, object.into(), hosts);
        self.hub.store.commit(change).await?;
        Ok(intent)
    }

    fn add_intent(&self, change: &mut Change, object: String, hosts: Vec<String>) -> Intent {
        let audit = AuditId::from_uuid(self.hub.clock.uuid());
        if hosts.is_empty() {
            change.audit(&self.audit_entry(audit, Phase::Intent, &object, hosts));
        } else {
            for some in hosts.chunks(AUDIT_HOSTS) {
                change.audit(&self.audit_entry(audit, Phase::Intent, &object, some.to_vec()));
            }
        }
        Intent { audit, object }
    }

    /// Commits the last step of what was intended, with the outcome and the reply for its repeats.
    pub async fn commit_intended<R: Serialize>(
        &self,
        change: Change,
        intent: Intent,
        reply: &R,
    ) -> Result<u64, Error> {
        self.commit_intended_as(change, intent, reply, "ok").await
    }

    /// As [`Self::commit_intended`], where the outcome is not simply that it went well.
    pub async fn commit_intended_as<R: Serialize>(
        &self,
        mut change: Change,
        intent: Intent,
        reply: &R,
        told: &str,
    ) -> Result<u64, Error> {
        let limit = self.hub.config.limits.remembered_replies;
        if self.hub.store.view(|view| view.dedupe.len()) >= limit {
            return Err(Error::limited(format!(
                "the hub remembers {limit} replies (limits.remembered_replies) and forgets none before 24 h; try \
                 again later or raise the limit"
            ))
            .with_retry_after_ms(60_000));
        }
        let reply = serde_json::to_value(reply)
            .map_err(|error| Error::internal(format!("cannot encode the reply: {error}")))?;
        let record = DedupeRecord {
            caller: self.caller.to_string(),
            key: self.key,
            operation: self.spec.name.into(),
            params_hash: self.params_hash.to_string(),
            reply,
            at: change.at(),
        };
        change.put(&record, Expect::Absent);
        let mut outcome = self.audit_entry(intent.audit, Phase::Outcome, &intent.object, Vec::new());
        outcome.outcome = Some(told.into());
        change.audit(&outcome);
        self.hub.store.commit(change).await
    }
}

/// What was written down before it was done.
#[derive(Debug)]
pub struct Intent {
    audit: AuditId,
    object: String,
}

/// Host names in one audit entry.
const AUDIT_HOSTS: usize = 1000;

/// Runs `work` at most once for the caller's key; a repeat gets the first reply.
pub(super) async fn once<W, F>(ctx: Ctx, work: W, replay: Replay) -> Result<Box<RawValue>, Error>
where
    W: FnOnce(ChangeCtx) -> F + Send,
    F: Future<Output = Result<Box<RawValue>, Error>> + Send,
{
    let params = ctx.raw_params.clone();
    let key = serde_json::from_str::<KeyMember>(params.get())
        .map_err(|error| Error::invalid(format!("wrong parameters: {error}")))?
        .key;
    let params_hash: Arc<str> = params_hash(&ctx, &params)?.into();
    let caller: Arc<str> = caller_of(&ctx).into();
    let ctx = ChangeCtx { ctx, key, params_hash, caller };
    if let Some(first) = remembered(&ctx, replay)? {
        return Ok(first);
    }
    match work(ctx.clone()).await {
        Err(error) if error.code == Code::Conflict => {
            // The same call may have been under way twice; then the other one's reply is ours.
            match remembered(&ctx, replay)? {
                Some(first) => Ok(first),
                None => Err(failed(&ctx, error).await),
            }
        }
        Err(error) => Err(failed(&ctx, error).await),
        result => result,
    }
}

/// A change that came to nothing is in the audit too.
async fn failed(ctx: &ChangeCtx, error: Error) -> Error {
    audit_refusal(ctx, &error).await;
    error
}

/// Strangers share no scope: theirs is their address.
fn caller_of(ctx: &Ctx) -> String {
    match (&ctx.who.subject, &ctx.session.peer) {
        (Subject::Anonymous, crate::sessions::Peer::Tcp(address)) => format!("anonymous-{}", address.ip()),
        _ => ctx.who.caller(),
    }
}

/// A hash of the parameters that does not depend on the order of their members, and from which secrets in them cannot
/// be guessed without the hub's own key.
pub fn params_hash(ctx: &Ctx, params: &RawValue) -> Result<String, Error> {
    let value: Value = serde_json::from_str(params.get())
        .map_err(|error| Error::invalid(format!("wrong parameters: {error}")))?;
    Ok(ctx.hub.identity.keyed_hash("params", canonical(&value).as_bytes()))
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            let inner: Vec<String> = sorted
                .iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => {
            let inner: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", inner.join(","))
        }
        plain => plain.to_string(),
    }
}

fn remembered(ctx: &ChangeCtx, replay: Replay) -> Result<Option<Box<RawValue>>, Error> {
    let found = ctx.hub.store.view(|view| view.dedupe.get(&(ctx.caller.to_string(), ctx.key)).cloned());
    let Some(first) = found else { return Ok(None) };
    if first.params_hash != *ctx.params_hash || first.operation != ctx.spec.name {
        return Err(Error::conflict(
            "this key was already used for another call; make a new UUIDv7 for each new change",
        ));
    }
    let reply = replay(&ctx.hub, first.reply.clone())?;
    datacentered_proto::rpc::raw(&reply).map(Some)
}

/// Writes down that a change was not allowed or failed. Strangers are only counted, and nobody fills the audit with it.
pub(super) async fn audit_refusal(ctx: &Ctx, error: &Error) {
    if ctx.spec.effect != Effect::Change
        || matches!(ctx.who.subject, Subject::Anonymous | Subject::UnknownHost | Subject::Host { .. })
    {
        return;
    }
    if !ctx.session.may_be_refused_again() {
        return;
    }
    let mut change = ctx.change();
    let mut entry = ctx.audit_entry(AuditId::from_uuid(ctx.hub.clock.uuid()), Phase::Refused, "", Vec::new());
    entry.code = Some(error.code);
    entry.outcome = Some(error.code.to_string());
    change.audit(&entry);
    if let Err(error) = ctx.hub.store.commit(change).await {
        tracing::warn!(%error, "a refusal could not be written to the audit");
    }
}

/// Forgets replies that are older than their time.
pub fn expired_replies(hub: &crate::hub::Hub, limit: usize) -> Vec<Vec<String>> {
    let oldest = hub.clock.wall().plus_millis(-REMEMBERED_MS);
    hub.store.view(|view| {
        view.dedupe
            .values()
            .filter(|record| record.at < oldest)
            .take(limit)
            .map(|record| vec![record.caller.clone(), record.key.to_string()])
            .collect()
    })
}

/// How long a first reply is remembered: 24 h.
const REMEMBERED_MS: i64 = 24 * 3600 * 1000;

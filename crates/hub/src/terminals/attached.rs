//! Who is at a terminal: counted while they are, with an event and an audit entry when they come and when they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datacentered_proto::ops::audit::Phase;
use datacentered_proto::{AuditId, Error, RunId};
use serde_json::json;

use super::Terminal;
use crate::dispatch::Ctx;
use crate::store::Change;
use crate::store::records::RunRecord;

/// What a client does at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It sees what is printed.
    Watcher,
    /// It types.
    Writer,
}

/// A client at a terminal; dropped when it leaves, however it does.
#[derive(Debug)]
pub(super) struct Attached {
    ctx: Ctx,
    run: RunId,
    host: String,
    role: Role,
    audit: AuditId,
    pub(super) terminal: Arc<Terminal>,
}

impl Attached {
    /// A client comes. Returns when that is on disk.
    pub(super) async fn new(ctx: &Ctx, run: &RunRecord, role: Role) -> Result<Self, Error> {
        let terminal = ctx.hub.terminals.get(run.run);
        let count = counter(&terminal, role);
        let most = ctx.hub.config.terminals.writers as u32;
        let before = count.fetch_add(1, Ordering::Relaxed);
        // From here on leaving is told, whatever happens.
        let attached = Self {
            ctx: ctx.clone(),
            run: run.run,
            host: run.on.first().cloned().unwrap_or_default(),
            role,
            audit: AuditId::from_uuid(ctx.hub.clock.uuid()),
            terminal,
        };
        if role == Role::Writer && before >= most {
            return Err(Error::limited(format!(
                "{before} clients type into this terminal already (terminals.writers); attach with --read-only"
            )));
        }
        let mut change = ctx.change();
        attached.add_notices(&mut change, "terminal.attached", Phase::Intent);
        ctx.hub.store.commit(change).await?;
        Ok(attached)
    }

    fn add_notices(&self, change: &mut Change, event: &str, phase: Phase) {
        let detail =
            json!({"by": self.ctx.who.name(), "host": self.host, "types": self.role == Role::Writer});
        change.event(event, self.run.to_string(), detail);
        let object = format!("terminal {}", self.run);
        let mut entry = self.ctx.audit_entry(self.audit, phase, &object, vec![self.host.clone()]);
        entry.outcome = (phase == Phase::Outcome).then(|| "left".into());
        change.audit(&entry);
    }
}

fn counter(terminal: &Terminal, role: Role) -> &AtomicU32 {
    match role {
        Role::Watcher => &terminal.watchers,
        Role::Writer => &terminal.writers,
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        counter(&self.terminal, self.role).fetch_sub(1, Ordering::Relaxed);
        let mut change = self.ctx.change();
        self.add_notices(&mut change, "terminal.detached", Phase::Outcome);
        let hub = self.ctx.hub.clone();
        let run = self.run;
        self.ctx.hub.tasks.spawn("terminal detach", async move {
            if let Err(error) = hub.store.commit(change).await {
                tracing::warn!(%run, %error, "that a client left a terminal could not be written down");
            }
        });
    }
}

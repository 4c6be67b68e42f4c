//! What has to be done about tokens from time to time: writing down their uses, forgetting those that ended.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use datacentered_engine::kv::Expect;
use datacentered_proto::ops::access::TokenKind;
use datacentered_proto::{Timestamp, TokenId};
use futures_util::future::join_all;

use super::tokens::stands;
use crate::hub::Hub;
use crate::store::records::{Keyed as _, TokenRecord};
use crate::store::{Change, Versioned};

/// How often uses are written down.
const FLUSH: Duration = Duration::from_mins(1);

/// Every how many flushes ended tokens are looked for.
const SWEEP_EVERY: u32 = 10;

/// Tokens written in one step.
const STEP: usize = 200;

/// Does it until the hub stops.
pub async fn maintain(hub: Arc<Hub>) {
    let mut round = 0_u32;
    loop {
        let stopping = tokio::select! {
            () = hub.stop.cancelled() => true,
            () = tokio::time::sleep(FLUSH) => false,
        };
        write_uses(&hub).await;
        if stopping {
            return;
        }
        round = round.wrapping_add(1);
        if round.is_multiple_of(SWEEP_EVERY) {
            forget_ended(&hub).await;
        }
    }
}

/// Writes down when tokens were last used.
pub(super) async fn write_uses(hub: &Arc<Hub>) {
    let used: HashMap<TokenId, Timestamp> =
        std::mem::take(&mut *hub.access.used.lock().unwrap_or_else(PoisonError::into_inner));
    let used: Vec<_> = used.into_iter().collect();
    join_all(used.chunks(STEP).map(|step| write_step(hub, step))).await;
}

async fn write_step(hub: &Arc<Hub>, step: &[(TokenId, Timestamp)]) {
    let mut change = Change::new(&hub.clock, "hub", None);
    hub.store.view(|view| {
        for (id, at) in step {
            if let Some(token) = view.tokens.get(id).filter(|token| token.last_used < Some(*at)) {
                let record = TokenRecord { last_used: Some(*at), ..TokenRecord::clone(token) };
                change.put(&record, Expect::Revision(token.revision));
            }
        }
    });
    if !change.is_empty()
        && let Err(error) = hub.store.commit(change).await
    {
        // A token of this step changed meanwhile; its next use is written down again.
        tracing::debug!(%error, "uses of tokens were not written down");
    }
}

/// Deletes tokens that ended: logins at once, others after they have been listed for a while.
pub(super) async fn forget_ended(hub: &Arc<Hub>) {
    let now = hub.clock.wall();
    let keep = i64::try_from(hub.config.retention.ended_token_age_ms).unwrap_or(i64::MAX);
    loop {
        let ended: Vec<Versioned<TokenRecord>> = hub.store.view(|view| {
            let over = |token: &&Versioned<TokenRecord>| {
                if stands(view, token, now) {
                    return false;
                }
                token.kind == TokenKind::Session || token.expires.plus_millis(keep) <= now
            };
            view.tokens.values().filter(over).take(STEP).cloned().collect()
        });
        if ended.is_empty() {
            return;
        }
        let mut change = Change::new(&hub.clock, "hub", None);
        for token in &ended {
            change.check::<TokenRecord>(&token.id(), Expect::Revision(token.revision));
            change.delete::<TokenRecord>(&token.id());
        }
        if let Err(error) = hub.store.commit(change).await {
            tracing::debug!(%error, "ended tokens were not forgotten; trying again later");
            return;
        }
    }
}

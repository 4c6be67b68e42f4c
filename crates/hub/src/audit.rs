//! The audit log, read back. It is written through the outbox, in the same step as each effect.

use datacentered_engine::{Error as EngineError, LogName};
use datacentered_proto::limits::{DEFAULT_PAGE, MAX_PAGE};
use datacentered_proto::operations::AuditList;
use datacentered_proto::ops::audit::{AuditEntry, ListParams, ListReply};
use datacentered_proto::{Cursor, Error};

use crate::dispatch::{Ctx, Table};
use crate::store::{AUDIT_LOG, engine_error};

/// Bytes of entries in one reply: well below the largest message.
const PAGE_BYTES: usize = 128 * 1024;

/// Registers this noun's operations.
pub(crate) fn register(table: &mut Table) {
    table.read::<AuditList, _, _>(list);
}

async fn list(ctx: Ctx, params: ListParams) -> Result<ListReply, Error> {
    let limit = u64::from(params.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE));
    let log = LogName::parse(AUDIT_LOG).map_err(engine_error)?;
    let epoch = ctx.hub.engine.epoch().to_owned();
    let state = ctx.hub.engine.log().state(&log).await.map_err(engine_error)?;
    let (oldest, end) = state.map_or((0, 0), |state| (state.oldest, state.end));
    let mut from = match &params.cursor {
        Some(cursor) if cursor.epoch != epoch => {
            return Err(Error::conflict(
                "the cursor belongs to a history that is gone (the hub was restored); list again without it",
            ));
        }
        Some(cursor) => cursor.offset.max(oldest),
        None => end.saturating_sub(limit).max(oldest),
    };
    let mut entries = Vec::new();
    let mut bytes = 0;
    while from < end && (entries.len() as u64) < limit && bytes < PAGE_BYTES {
        let page = match ctx.hub.engine.log().read(&log, from, PAGE_BYTES).await {
            Ok(page) => page,
            Err(EngineError::Gap { oldest }) => {
                from = oldest;
                continue;
            }
            Err(error) => return Err(engine_error(error)),
        };
        if page.items.is_empty() {
            break;
        }
        for item in page.items {
            if entries.len() as u64 >= limit || bytes >= PAGE_BYTES {
                break;
            }
            from = item.offset + item.span;
            bytes += item.payload.len();
            if let Ok(entry) = serde_json::from_slice::<AuditEntry>(&item.payload) {
                entries.push(entry);
            }
        }
    }
    Ok(ListReply { entries, cursor: Cursor::new(epoch.clone(), from), oldest: Cursor::new(epoch, oldest) })
}

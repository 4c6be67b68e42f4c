//! The writer of logs: it alone changes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::super::queue::Writer;
use super::super::snapshot::Barrier;
use super::super::store::{Ops, Store, read_error};
use super::Shared;
use super::layout::{self, HEADS, Head, ITEMS, ItemKey};
use crate::error::{Error, Result};
use crate::key::LogName;
use crate::log::{Append, LogState, MAX_OFFSET, Position};

/// Most items trimmed or reclaimed in one request, so that others get their turn.
pub(crate) const FORGET_PIECE: usize = 2000;

/// What the writer is asked.
pub(crate) enum Request {
    Append {
        log: LogName,
        items: Vec<Append>,
        always: bool,
        reply: oneshot::Sender<Result<LogState>>,
    },
    /// Answers whether more is to be trimmed.
    Trim {
        log: LogName,
        before: u64,
        reply: oneshot::Sender<Result<bool>>,
    },
    Remove {
        log: LogName,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Answers whether more is to be reclaimed.
    Reclaim {
        reply: oneshot::Sender<Result<bool>>,
    },
    Barrier(Barrier),
    Stop,
}

/// A judged request, waiting for the group's write.
enum Pending {
    Append { reply: oneshot::Sender<Result<LogState>>, result: Result<LogState> },
    More { reply: oneshot::Sender<Result<bool>>, result: Result<bool> },
    Remove { log: LogName, reply: oneshot::Sender<Result<()>>, result: Result<()> },
}

/// A group as it grows.
#[derive(Default)]
struct Group {
    ops: Ops,
    sync: bool,
    /// Heads as this group leaves them; `None`: removed.
    heads: HashMap<LogName, Option<Head>>,
    /// Items this group wrote or trimmed count as such although the store does not show it yet.
    touched: std::collections::HashSet<u64>,
    pending: Vec<Pending>,
}

impl Group {
    fn set_head(&mut self, log: &LogName, head: Head) {
        self.ops.put(HEADS, layout::head_key(log), layout::encode_head(&head));
        self.heads.insert(log.clone(), Some(head));
    }
}

pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    store: Arc<Store>,
    last_id: u64,
}

impl LogWriter {
    pub(crate) fn load(shared: Arc<Shared>, store: Arc<Store>) -> Result<Self> {
        let last_id =
            store.get(HEADS, layout::LAST_ID)?.map_or(Ok(0), |stored| layout::decode_id(&stored))?;
        Ok(Self { shared, store, last_id })
    }

    fn head(&self, group: &Group, log: &LogName) -> Result<Option<Head>> {
        match group.heads.get(log) {
            Some(head) => Ok(*head),
            None => self
                .store
                .get(HEADS, &layout::head_key(log))?
                .map(|stored| layout::decode_head(&stored))
                .transpose(),
        }
    }

    fn append(&mut self, group: &mut Group, log: &LogName, items: Vec<Append>) -> Result<LogState> {
        let known = self.head(group, log)?;
        let before = known.map(|head| head.state).unwrap_or_default();
        let mut state = before;
        let mut stored = Vec::with_capacity(items.len());
        let mut repeats = 0;
        for item in items {
            let end = state.end + item.span;
            let repeat = match item.position {
                Position::At(offset) if offset.saturating_add(item.span) <= state.end => true,
                Position::At(offset) if offset != state.end => return Err(Error::Hole { end: before.end }),
                Position::Next { source_id } if source_id <= state.last_source_id => true,
                Position::Next { source_id } => {
                    state.last_source_id = source_id;
                    false
                }
                Position::At(_) | Position::End => false,
            };
            if repeat {
                repeats += 1;
                continue;
            }
            if end >= MAX_OFFSET {
                return Err(Error::Limited { what: "log offsets" });
            }
            let length = item.payload.len();
            stored.push((state.end, length as u32, item.payload));
            state.end = end;
            state.bytes += length as u64;
        }
        self.shared.stats.log_repeats.fetch_add(repeats, Ordering::Relaxed);
        if stored.is_empty() {
            return Ok(state);
        }
        let size: u64 = stored.iter().map(|(_, length, _)| u64::from(*length)).sum();
        self.store.check_room(size, false)?;
        let id = if let Some(head) = known {
            head.id
        } else {
            self.last_id += 1;
            group.ops.put(HEADS, layout::LAST_ID.to_vec(), layout::encode_id(self.last_id));
            self.last_id
        };
        self.shared.stats.log_appends.fetch_add(1, Ordering::Relaxed);
        self.shared.stats.log_items.fetch_add(stored.len() as u64, Ordering::Relaxed);
        for (offset, length, payload) in stored {
            // Copied, so that a small payload does not keep a large receive buffer alive.
            group.ops.put(ITEMS, layout::item_key(ItemKey { id, offset, length }), &payload[..]);
        }
        group.touched.insert(id);
        group.set_head(log, Head { id, state });
        Ok(state)
    }

    /// Trims a piece. Returns whether more is left.
    fn trim(&self, group: &mut Group, log: &LogName, before: u64) -> Result<bool> {
        let Some(mut head) = self.head(group, log)? else { return Ok(false) };
        if before <= head.state.oldest {
            return Ok(false);
        }
        if group.touched.contains(&head.id) {
            // This group changed the log and the store does not show it yet: later.
            return Ok(true);
        }
        self.store.check_room(0, true)?;
        let mut more = false;
        let mut items = self
            .store
            .keyspace(ITEMS)
            .range(layout::items_from(head.id, head.state.oldest))
            .map(|guard| guard.key().map_err(read_error).and_then(|key| layout::decode_item_key(&key)));
        let mut next = items.next().transpose()?;
        let mut trimmed = 0;
        while let Some(item) = next {
            next = items.next().transpose()?;
            let end = next.map_or(head.state.end, |next| next.offset);
            if end > before {
                break;
            }
            if trimmed == FORGET_PIECE {
                more = true;
                break;
            }
            group.ops.remove(ITEMS, layout::item_key(item));
            head.state.oldest = end;
            head.state.bytes = head.state.bytes.saturating_sub(u64::from(item.length));
            self.shared.forgotten.fetch_add(u64::from(item.length), Ordering::Relaxed);
            trimmed += 1;
        }
        if trimmed > 0 {
            group.touched.insert(head.id);
            group.set_head(log, head);
        }
        Ok(more)
    }

    fn remove(&self, group: &mut Group, log: &LogName) -> Result<()> {
        let Some(head) = self.head(group, log)? else { return Ok(()) };
        self.store.check_room(0, true)?;
        group.ops.remove(HEADS, layout::head_key(log));
        group.ops.put(HEADS, layout::grave_key(head.id), Vec::new());
        group.heads.insert(log.clone(), None);
        self.shared.graves.store(true, Ordering::Release);
        Ok(())
    }

    /// Deletes some items of removed logs. Returns whether more are left.
    fn reclaim(&self, group: &mut Group) -> Result<bool> {
        self.store.check_room(0, true)?;
        let mut left = FORGET_PIECE;
        for grave in self.store.keyspace(HEADS).range(layout::grave_keys()) {
            let id = layout::decode_grave(&grave.key().map_err(read_error)?)?;
            if group.touched.contains(&id) {
                return Ok(true);
            }
            for guard in self.store.keyspace(ITEMS).range(layout::items_from(id, 0)) {
                if left == 0 {
                    group.touched.insert(id);
                    return Ok(true);
                }
                let key = guard.key().map_err(read_error)?;
                let item = layout::decode_item_key(&key)?;
                self.shared.forgotten.fetch_add(u64::from(item.length), Ordering::Relaxed);
                group.ops.remove(ITEMS, key.to_vec());
                left -= 1;
            }
            group.touched.insert(id);
            group.ops.remove(HEADS, layout::grave_key(id));
        }
        Ok(false)
    }

    fn judge(&mut self, group: &mut Group, request: Request, barriers: &mut Vec<Barrier>) -> bool {
        let pending = match request {
            Request::Append { log, items, always, reply } => {
                let result = self.append(group, &log, items);
                // Repeats too: what was stored before may not be synced yet.
                group.sync |= always && result.is_ok();
                Pending::Append { reply, result }
            }
            Request::Trim { log, before, reply } => {
                Pending::More { reply, result: self.trim(group, &log, before) }
            }
            Request::Remove { log, reply } => {
                let result = self.remove(group, &log);
                Pending::Remove { log, reply, result }
            }
            Request::Reclaim { reply } => Pending::More { reply, result: self.reclaim(group) },
            Request::Barrier(barrier) => {
                barriers.push(barrier);
                return true;
            }
            Request::Stop => return false,
        };
        group.pending.push(pending);
        true
    }

    fn publish(&self, group: Group) {
        for (log, head) in &group.heads {
            if let Some(head) = head {
                self.shared.tails.raise(log, head.state.end);
            }
        }
        for pending in group.pending {
            match pending {
                Pending::Append { reply, result } => drop(reply.send(result)),
                Pending::More { reply, result } => drop(reply.send(result)),
                Pending::Remove { log, reply, result } => {
                    if result.is_ok() {
                        self.shared.tails.remove(&log);
                    }
                    drop(reply.send(result));
                }
            }
        }
    }

    fn refuse(group: Group, fault: &super::super::store::Fault) {
        // What a hole or a repeat was judged by may be an append of this very group.
        for pending in group.pending {
            match pending {
                Pending::Append { reply, .. } => drop(reply.send(Err(fault.error()))),
                Pending::More { reply, .. } => drop(reply.send(Err(fault.error()))),
                Pending::Remove { reply, .. } => drop(reply.send(Err(fault.error()))),
            }
        }
    }
}

impl Writer for LogWriter {
    type Request = Request;

    fn run(&mut self, requests: Vec<Request>) -> bool {
        let mut group = Group::default();
        let mut barriers = Vec::new();
        let mut go_on = true;
        self.shared.stats.log_groups.fetch_add(1, Ordering::Relaxed);
        self.shared.stats.log_grouped.fetch_add(requests.len() as u64, Ordering::Relaxed);
        for request in requests {
            go_on &= self.judge(&mut group, request, &mut barriers);
        }
        let (ops, sync) = (std::mem::take(&mut group.ops), group.sync);
        match self.store.commit(ops, sync) {
            Ok(()) => self.publish(group),
            Err(fault) => Self::refuse(group, &fault),
        }
        for barrier in barriers {
            barrier.wait(self.store.snapshot());
        }
        go_on
    }

    fn finish(&mut self) {
        if let Err(fault) = self.store.sync() {
            tracing::error!(error = %fault.error(), "the last sync failed");
        }
    }
}

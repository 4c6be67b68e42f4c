//! Logs of the embedded engine.

pub(crate) mod layout;
mod tails;
pub(crate) mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwapOption;
use fjall::Readable;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::layout::{HEADS, Head, ITEMS};
use self::tails::Tails;
use self::writer::Request;
use super::counters::Counters;
use super::queue::Queue;
use super::store::{Store, read_error};
use crate::BoxFuture;
use crate::error::{Error, Result};
use crate::key::LogName;
use crate::kv::Durability;
use crate::log::{Append, Log, LogItem, LogPage, LogState, MAX_READ_BYTES, MAX_READ_ITEMS, validate_append};

/// What the logs' readers and writer share.
pub(crate) struct Shared {
    pub(crate) stats: Arc<Counters>,
    pub(crate) tails: Tails,
    /// Gone once the engine is closed.
    pub(crate) store: ArcSwapOption<Store>,
    pub(crate) closed: CancellationToken,
    /// Whether removed logs wait to be reclaimed.
    pub(crate) graves: AtomicBool,
    /// Payload bytes forgotten since the last compaction for their sake.
    pub(crate) forgotten: AtomicU64,
}

impl Shared {
    pub(crate) fn new(stats: Arc<Counters>, store: Arc<Store>, closed: CancellationToken) -> Self {
        Self {
            stats,
            tails: Tails::default(),
            store: ArcSwapOption::from(Some(store)),
            closed,
            // There may be some from before.
            graves: AtomicBool::new(true),
            forgotten: AtomicU64::new(0),
        }
    }

    fn store(&self) -> Result<Arc<Store>> {
        self.store.load_full().ok_or(Error::Closed)
    }
}

/// Where a log stands, if it is there.
fn read_head(store: &Store, log: &LogName) -> Result<Option<Head>> {
    store.get_visible(HEADS, &layout::head_key(log))?.map(|stored| layout::decode_head(&stored)).transpose()
}

/// The logs.
pub(crate) struct EmbeddedLog {
    shared: Arc<Shared>,
    queue: Queue<Request>,
}

impl EmbeddedLog {
    pub(crate) fn new(shared: Arc<Shared>, queue: Queue<Request>) -> Self {
        Self { shared, queue }
    }

    fn check_open(&self) -> Result<()> {
        if self.shared.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }
}

fn read_page(store: &Store, log: &LogName, from: u64, max_bytes: usize) -> Result<LogPage> {
    let snapshot = store.snapshot();
    let heads = store.keyspace(HEADS);
    let stored = snapshot.get(heads, layout::head_key(log)).map_err(read_error)?;
    let stored = stored.ok_or_else(|| Error::NotFound { what: format!("log `{log}`") })?;
    let Head { id, state } = layout::decode_head(&stored)?;
    if from < state.oldest {
        return Err(Error::Gap { oldest: state.oldest });
    }
    let mut page = LogPage { items: Vec::new(), next: from, end: state.end, oldest: state.oldest };
    if from >= state.end {
        return Ok(page);
    }
    let items = store.keyspace(ITEMS);
    // The item that contains `from` is the last one that starts at or before it.
    let first = snapshot.range(items, layout::items_upto(id, from)).next_back();
    let first = match first {
        Some(guard) => layout::decode_item_key(&guard.key().map_err(read_error)?)?.offset,
        None => return Err(missing(log, from)),
    };
    let max_bytes = max_bytes.min(MAX_READ_BYTES);
    let mut bytes = 0;
    for guard in snapshot.range(items, layout::items_from(id, first)) {
        // Decided by the key, so that a payload beyond the page is not read.
        let count = page.items.len();
        let (key, payload) = guard
            .into_inner_if(|key| {
                let length = layout::decode_item_key(key).map_or(0, |key| key.length as usize);
                count == 0 || (bytes + length <= max_bytes && count < MAX_READ_ITEMS)
            })
            .map_err(read_error)?;
        let item = layout::decode_item_key(&key)?;
        if let Some(previous) = page.items.last_mut() {
            previous.span = item.offset - previous.offset;
        }
        page.next = item.offset;
        let Some(payload) = payload else { return Ok(page) };
        if payload.len() != item.length as usize {
            return Err(missing(log, item.offset));
        }
        bytes += payload.len();
        page.items.push(LogItem { offset: item.offset, span: 0, payload: payload.into() });
    }
    let Some(last) = page.items.last_mut() else { return Err(missing(log, from)) };
    last.span = state.end - last.offset;
    page.next = state.end;
    Ok(page)
}

fn missing(log: &LogName, offset: u64) -> Error {
    Error::Damaged {
        what: format!("log `{log}` at offset {offset}"),
        path: super::dir::LOG.into(),
        source: None,
    }
}

impl Log for EmbeddedLog {
    fn append<'a>(
        &'a self,
        log: &'a LogName,
        items: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'a, Result<LogState>> {
        Box::pin(async move {
            validate_append(&items, durability)?;
            self.check_open()?;
            let bytes = items.iter().map(|item| item.payload.len() + 64).sum();
            let always = durability == Durability::Always;
            self.queue.ask(bytes, |reply| Request::Append { log: log.clone(), items, always, reply }).await
        })
    }

    fn read<'a>(&'a self, log: &'a LogName, from: u64, max_bytes: usize) -> BoxFuture<'a, Result<LogPage>> {
        Box::pin(async move {
            let store = self.shared.store()?;
            let log = log.clone();
            tokio::task::spawn_blocking(move || read_page(&store, &log, from, max_bytes))
                .await
                .map_err(|_| Error::Closed)?
        })
    }

    fn state<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Option<LogState>>> {
        Box::pin(async move { Ok(read_head(&*self.shared.store()?, log)?.map(|head| head.state)) })
    }

    fn tail<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<watch::Receiver<u64>>> {
        Box::pin(async move {
            self.check_open()?;
            let store = self.shared.store()?;
            // Followed first and read then, so that no append falls between.
            let mut receiver = self.shared.tails.follow(log);
            if let Some(head) = read_head(&store, log)? {
                self.shared.tails.raise(log, head.state.end);
            }
            receiver.mark_unchanged();
            Ok(receiver)
        })
    }

    fn trim<'a>(&'a self, log: &'a LogName, before: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.check_open()?;
            while self.queue.ask(0, |reply| Request::Trim { log: log.clone(), before, reply }).await? {}
            Ok(())
        })
    }

    fn remove<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.check_open()?;
            self.queue.ask(0, |reply| Request::Remove { log: log.clone(), reply }).await
        })
    }
}

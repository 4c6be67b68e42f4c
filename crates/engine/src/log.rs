//! Logs: append, read from a position, forget the oldest.

use bytes::Bytes;
use tokio::sync::watch;

use crate::BoxFuture;
use crate::error::{Error, Result};
pub use crate::key::LogName;
use crate::kv::Durability;

/// Largest payload of one item, in bytes.
pub const MAX_ITEM: usize = 256 * 1024;

/// Most items in one append.
pub const MAX_APPEND_ITEMS: usize = 1000;

/// Largest sum of the payloads of one append, in bytes.
pub const MAX_APPEND_BYTES: usize = 4 * 1024 * 1024;

/// Most payload bytes in one page of a read (one item always fits).
pub const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// Most items in one page of a read.
pub const MAX_READ_ITEMS: usize = 4096;

/// Offsets stay below this.
pub const MAX_OFFSET: u64 = 1 << 53;

/// Where an item goes, and how a repeat is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At this offset. An item wholly below the end is a repeat and skipped; anything else that does not start at the
    /// end is [`Error::Hole`].
    At(u64),
    /// At the end, numbered by its source: skipped when `source_id` is not above the last one stored. One log has one
    /// source.
    Next {
        /// The source's own ascending number, such as a revision.
        source_id: u64,
    },
    /// At the end, whatever it is.
    End,
}

/// One item to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Where it goes.
    pub position: Position,
    /// How much of the offset space it takes, at least 1: 1 for events, the byte count for output.
    pub span: u64,
    /// Its content.
    pub payload: Bytes,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The first offset still kept.
    pub oldest: u64,
    /// The offset after the last item.
    pub end: u64,
    /// The last `source_id` of [`Position::Next`], 0 when there was none.
    pub last_source_id: u64,
    /// Payload bytes kept.
    pub bytes: u64,
}

/// One stored item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogItem {
    /// Where it starts.
    pub offset: u64,
    /// How much of the offset space it takes.
    pub span: u64,
    /// Its content.
    pub payload: Bytes,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// The items, without a hole between them; the first one contains the offset asked for.
    pub items: Vec<LogItem>,
    /// Where to read on.
    pub next: u64,
    /// The end of the log at the time.
    pub end: u64,
    /// The first offset kept at the time.
    pub oldest: u64,
}

/// Refuses an append over the limits ([`Error::TooLarge`]) or with a span of 0 ([`Error::Invalid`]).
pub fn validate_append(items: &[Append], durability: Durability) -> Result<()> {
    if durability == Durability::Memory {
        return Err(Error::invalid("a log cannot be kept in memory only"));
    }
    if items.len() > MAX_APPEND_ITEMS {
        return Err(Error::TooLarge {
            what: "an append's item count",
            size: items.len() as u64,
            max: MAX_APPEND_ITEMS as u64,
        });
    }
    let mut total = 0;
    for item in items {
        let size = item.payload.len();
        if size > MAX_ITEM {
            return Err(Error::TooLarge { what: "a log item", size: size as u64, max: MAX_ITEM as u64 });
        }
        total += size;
        if item.span == 0 || item.span >= MAX_OFFSET {
            return Err(Error::invalid("an item's span is between 1 and 2^53"));
        }
    }
    if total > MAX_APPEND_BYTES {
        return Err(Error::TooLarge { what: "an append", size: total as u64, max: MAX_APPEND_BYTES as u64 });
    }
    Ok(())
}

/// Append-only logs. A log comes into being with its first append and costs nothing while idle.
pub trait Log: Send + Sync {
    /// Appends all items or none, and says where the log stands. `Interval`: answered once visible, synced within the
    /// interval. `Always`: answered once synced, repeats included. Dropping the call does not undo it.
    ///
    /// Errors: [`Error::Hole`]; [`Error::Indeterminate`] when it may have happened; any other error means that it did
    /// not.
    fn append<'a>(
        &'a self,
        log: &'a LogName,
        items: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'a, Result<LogState>>;

    /// Reads items from the one that contains `from` (it may start before it), up to about `max_bytes` of payload but
    /// at least one. At or beyond the end: no items. Errors: [`Error::Gap`] below the oldest kept offset,
    /// [`Error::NotFound`].
    fn read<'a>(&'a self, log: &'a LogName, from: u64, max_bytes: usize) -> BoxFuture<'a, Result<LogPage>>;

    /// Where the log stands; `None` when there is no such log.
    fn state<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Option<LogState>>>;

    /// The end of the log as it moves; 0 while there is no such log. The sender goes away when the log is removed or
    /// the engine closes. Cheap; freed when dropped.
    fn tail<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<watch::Receiver<u64>>>;

    /// Forgets the items wholly below `before`. No such log: nothing to do.
    fn trim<'a>(&'a self, log: &'a LogName, before: u64) -> BoxFuture<'a, Result<()>>;

    /// Forgets the log. Cheap whatever its size; the space is given back in the background. No such log: nothing to do.
    fn remove<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>>;
}

//! Outbox: what has to follow a write is a key of the same batch, and is moved to its log later, once.
//!
//! The entry's revision is its number in the log ([`Position::Next`]), so that an entry that was appended but not yet
//! deleted when the program died is skipped the second time. A log therefore takes its entries from the outbox of one
//! bucket only, and through one mover at a time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::key::{Bucket, Key, LogName, Prefix};
use crate::kv::{Batch, Change, Durability, MAX_BATCH, MAX_VALUE, Watch, WatchFrom};
use crate::log::{Append, MAX_APPEND_BYTES, MAX_APPEND_ITEMS, Position};

/// The first token of outbox keys.
pub const OUTBOX: &str = "outbox";

/// How long the mover lets entries gather, so that a burst is moved with one sync, after whatever waits for the commits.
const GATHER: Duration = Duration::from_millis(150);

/// Most changes gathered.
const GATHER_MAX: usize = 4096;

/// How long the mover waits before it tries again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// The outbox key of an entry for `log`: `outbox.<log>.<unique>`. `unique` is any token that is used once, such as a
/// `UUIDv7`. Errors with [`Error::Invalid`] when the names are too long together.
pub fn outbox_key(log: &LogName, unique: &str) -> Result<Key> {
    Key::from_tokens([OUTBOX, log.as_str(), unique])
}

/// The log that an outbox key is for.
pub fn outbox_log(key: &Key) -> Option<LogName> {
    let mut tokens = key.tokens();
    if tokens.next()? != OUTBOX {
        return None;
    }
    LogName::parse(&tokens.next()?).ok()
}

/// A running mover. Dropping it stops it, in the middle of whatever it does, which is safe.
#[derive(Debug)]
pub struct Mover {
    cancel: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Mover {
    /// Starts to move the outbox of `bucket`, now and as it fills, until it is stopped or the engine closes. Has to be
    /// called within a tokio runtime. `moved` is called after every piece with how many entries it had.
    pub fn start(engine: Engine, bucket: Bucket, moved: Option<Arc<dyn Fn(usize) + Send + Sync>>) -> Self {
        let cancel = CancellationToken::new();
        let stopped = cancel.clone();
        let task = tokio::spawn(async move {
            stopped.run_until_cancelled(supervise(engine, bucket, moved)).await;
        });
        Self { cancel, task: Some(task) }
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the outbox mover panicked");
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Moves until the engine closes or fails, starting anew after anything else.
async fn supervise(engine: Engine, bucket: Bucket, moved: Option<Arc<dyn Fn(usize) + Send + Sync>>) {
    let moved = move |count| {
        if let Some(moved) = &moved {
            moved(count);
        }
    };
    let mut retry = RETRY_FIRST;
    loop {
        match run(&engine, &bucket, || retry = RETRY_FIRST, &moved).await {
            Error::Closed => return,
            // The engine is lost until the program starts anew.
            _ if engine.failed().is_cancelled() => return,
            // Deletions were forgotten while it was far behind: nothing that it needs.
            Error::Gap { .. } => {}
            error => {
                tracing::warn!(%error, bucket = %bucket, "the outbox cannot be moved now; trying again");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_LONGEST);
            }
        }
    }
}

/// Moves until something fails.
async fn run(engine: &Engine, bucket: &Bucket, mut progress: impl FnMut(), moved: &impl Fn(usize)) -> Error {
    let mut watch = match watch(engine, bucket).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        let mut changes = match watch.next().await {
            Ok(batch) => batch.changes,
            Err(error) => return error,
        };
        if changes.iter().any(|change| change.value.is_some()) {
            tokio::time::sleep(GATHER).await;
            while changes.len() < GATHER_MAX {
                match watch.next().now_or_never() {
                    Some(Ok(batch)) => changes.extend(batch.changes),
                    Some(Err(error)) => return error,
                    None => break,
                }
            }
        }
        match move_piece(engine, bucket, changes).await {
            Ok(0) => {}
            Ok(count) => moved(count),
            Err(error) => return error,
        }
        progress();
    }
}

async fn watch(engine: &Engine, bucket: &Bucket) -> Result<Watch> {
    engine.kv().watch(bucket, Prefix::from_tokens([OUTBOX])?, WatchFrom::Start).await
}

/// Moves all that is in the outbox now, then returns how many entries that were. For tests and for a clean stop; not
/// beside a running [`Mover`].
pub async fn drain(engine: &Engine, bucket: &Bucket) -> Result<usize> {
    let mut watch = watch(engine, bucket).await?;
    let mut count = 0;
    loop {
        let batch = watch.next().await?;
        count += move_piece(engine, bucket, batch.changes).await?;
        if batch.caught_up {
            return Ok(count);
        }
    }
}

/// Appends entries to their logs, in revision order, then deletes them. Returns how many.
async fn move_piece(engine: &Engine, bucket: &Bucket, changes: Vec<Change>) -> Result<usize> {
    let mut logs: Vec<(LogName, Vec<Append>)> = Vec::new();
    let mut keys = Vec::new();
    for change in changes {
        let Some(payload) = change.value else { continue };
        let Some(log) = outbox_log(&change.key) else {
            tracing::error!(key = %change.key, "an outbox key names no log; it stays where it is");
            continue;
        };
        keys.push(change.key);
        let item = Append { position: Position::Next { source_id: change.revision }, span: 1, payload };
        match logs.iter_mut().find(|(known, _)| *known == log) {
            Some((_, items)) => items.push(item),
            None => logs.push((log, vec![item])),
        }
    }
    // Side by side, so that the logs share a sync.
    let appended = logs.into_iter().map(|(log, items)| append_all(engine, log, items));
    for result in futures_util::future::join_all(appended).await {
        result?;
    }
    let count = keys.len();
    for piece in keys.chunks(MAX_BATCH) {
        // A deletion that is lost with the machine is made again when the entry is skipped.
        let batch = piece.iter().fold(Batch::new().relaxed(), |batch, key| batch.delete(key.clone()));
        engine.kv().commit(bucket, batch).await?;
    }
    Ok(count)
}

async fn append_all(engine: &Engine, log: LogName, items: Vec<Append>) -> Result<()> {
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while piece.len() < MAX_APPEND_ITEMS && bytes + MAX_VALUE <= MAX_APPEND_BYTES {
            let Some(item) = items.next() else { break };
            bytes += item.payload.len();
            piece.push(item);
        }
        engine.log().append(&log, piece, Durability::Always).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_log() {
        let log = LogName::parse("channel.main.a=2Eb").expect("name");
        let key = outbox_key(&log, "0190-x").expect("key");
        assert_eq!(outbox_log(&key), Some(log));
        assert_eq!(outbox_log(&Key::parse("other.x").expect("key")), None);
        assert_eq!(outbox_log(&Key::parse("outbox.a=2Fb.x").expect("key")), None);
        assert!(Prefix::from_tokens([OUTBOX]).expect("prefix").matches(&key));
    }
}

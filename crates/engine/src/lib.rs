//! The three primitives under everything: [`Kv`] (buckets of revisioned keys), [`Log`] (append and read from a
//! position) and [`Bus`] (subjects and fan-out), and the embedded engine that keeps them on this machine's disk.
//!
//! Nothing needs two buckets or two primitives to change together: each fact has one authoritative write, and what must
//! follow it is an [`outbox`] key in the same batch.

pub mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod embedded;
mod engine;
pub mod error;
pub mod key;
pub mod kv;
pub mod log;
pub mod outbox;
pub mod record;
pub mod stats;

pub use bus::{Bus, Message, Received, Subscription};
pub use embedded::{Embedded, EmbeddedConfig};
pub use engine::{Backend, BackupStream, Engine};
pub use error::{Error, Result};
pub use key::{Bucket, Key, LogName, Prefix};
pub use kv::{
    Batch, Change, Committed, Durability, Entry, Expect, Kv, MAX_BATCH, MAX_VALUE, Watch, WatchBatch,
    WatchFrom, Write,
};
pub use log::{Append, Log, LogItem, LogPage, LogState, Position};
pub use stats::Stats;

/// A boxed future, so that the traits are object safe.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

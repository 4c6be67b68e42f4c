//! Terminals: interactive runs with one target, shared by any number of clients.
//!
//! A terminal is a run whose command has a pseudo-terminal: `runs` makes it and ends it, `jobs` moves its bytes. What is
//! of its own stands here: several clients that type ([`input`]), the window ([`resize`]), who is there ([`attached`]).
//! Its recording is the job's output log, bounded by dropping the oldest: a screen never freezes because much was
//! printed, and a reader from the beginning is told of the gap.

mod attached;
mod input;
mod ops;
mod output;
mod resize;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datacentered_proto::RunId;
use tokio::sync::watch;

pub(crate) use ops::register;
pub(crate) use resize::tell_window;

/// Terminals that somebody uses at this moment, or whose host is being fed.
#[derive(Debug, Default)]
pub struct Terminals {
    by_run: Mutex<HashMap<RunId, Weak<Terminal>>>,
}

/// What the hub knows in memory of one terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    watchers: AtomicU32,
    writers: AtomicU32,
    /// Whoever types holds it: bytes go into the log one piece after the other.
    input: tokio::sync::Mutex<Option<input::Held>>,
    /// One size at a time goes to the host.
    resizing: tokio::sync::Mutex<()>,
    /// How far the host was sent what was typed.
    pub(crate) fed: watch::Sender<u64>,
}

impl Default for Terminal {
    fn default() -> Self {
        Self {
            watchers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            input: tokio::sync::Mutex::default(),
            resizing: tokio::sync::Mutex::default(),
            fed: watch::channel(0).0,
        }
    }
}

impl Terminals {
    /// A terminal's entry, which lasts for as long as somebody holds it.
    pub(crate) fn get(&self, run: RunId) -> Arc<Terminal> {
        // A plain map: whole after any panic.
        let mut all = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&run).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, known| known.strong_count() > 0);
        let terminal = Arc::new(Terminal::default());
        all.insert(run, Arc::downgrade(&terminal));
        terminal
    }

    /// Clients that watch a terminal, and that may type into it.
    fn counts(&self, run: RunId) -> (u32, u32) {
        let all = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&run).and_then(Weak::upgrade).map_or((0, 0), |terminal| {
            (terminal.watchers.load(Ordering::Relaxed), terminal.writers.load(Ordering::Relaxed))
        })
    }
}

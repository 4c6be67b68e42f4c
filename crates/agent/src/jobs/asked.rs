//! What a shim was asked and has to answer: signals and windows.

use std::collections::HashMap;

use datacentered_proto::ops::job::Window;
use tokio::sync::oneshot;

use crate::shim::launch::TERMINAL_VERSION;
use crate::shim::wire::{FromShim, ToShim};

/// Requests of one kind that wait for their answer; with more all are given up, which their callers are told.
const MAX_WAITING: usize = 64;

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resized {
    /// The terminal has it.
    Done,
    /// There is no terminal, or it was hung up.
    NoTerminal,
    /// The shim does not know terminals.
    ShimTooOld,
}

/// The requests of one conversation. Dropping it tells who waits that the shim could not be reached.
#[derive(Debug, Default)]
pub(super) struct Asked {
    last: u64,
    shim: Option<u32>,
    signals: HashMap<u64, oneshot::Sender<u32>>,
    windows: HashMap<u64, oneshot::Sender<Resized>>,
}

impl Asked {
    /// The message that asks for a signal.
    pub(super) fn signal(&mut self, signal: i32, reply: oneshot::Sender<u32>) -> ToShim {
        let id = self.next();
        keep(&mut self.signals, id, reply);
        ToShim::Signal { id, signal }
    }

    /// The message that asks for a window; none where the shim would not understand it, which `reply` is told.
    pub(super) fn resize(&mut self, window: Window, reply: oneshot::Sender<Resized>) -> Option<ToShim> {
        if self.shim.is_some_and(|version| version < TERMINAL_VERSION) {
            let _ = reply.send(Resized::ShimTooOld);
            return None;
        }
        let id = self.next();
        keep(&mut self.windows, id, reply);
        Some(ToShim::Resize { id, window })
    }

    /// Passes an answer on to who waits for it.
    pub(super) fn hear(&mut self, message: &FromShim) {
        match message {
            FromShim::Hello { version, .. } => {
                self.shim = Some(*version);
                if *version < TERMINAL_VERSION {
                    for (_, reply) in self.windows.drain() {
                        let _ = reply.send(Resized::ShimTooOld);
                    }
                }
            }
            FromShim::Signalled { id, processes } => {
                if let Some(reply) = self.signals.remove(id) {
                    let _ = reply.send(*processes);
                }
            }
            FromShim::Resized { id, done } => {
                if let Some(reply) = self.windows.remove(id) {
                    let _ = reply.send(if *done { Resized::Done } else { Resized::NoTerminal });
                }
            }
            _ => {}
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

fn keep<T>(waiting: &mut HashMap<u64, oneshot::Sender<T>>, id: u64, reply: oneshot::Sender<T>) {
    if waiting.len() >= MAX_WAITING {
        waiting.clear();
    }
    waiting.insert(id, reply);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { cols: 80, rows: 24 };

    fn hello(version: u32) -> FromShim {
        FromShim::Hello { version, pid: 2, started: None }
    }

    #[test]
    fn an_old_shim_is_told_at_once_and_also_when_it_says_so_late() {
        let mut asked = Asked::default();
        let (reply, mut early) = oneshot::channel();
        assert!(asked.resize(WINDOW, reply).is_some(), "nothing is known of the shim yet");
        asked.hear(&hello(1));
        assert_eq!(early.try_recv(), Ok(Resized::ShimTooOld));
        let (reply, mut late) = oneshot::channel();
        assert_eq!(asked.resize(WINDOW, reply), None);
        assert_eq!(late.try_recv(), Ok(Resized::ShimTooOld));
    }

    #[test]
    fn answers_find_who_asked() {
        let mut asked = Asked::default();
        asked.hear(&hello(TERMINAL_VERSION));
        let (reply, mut signalled) = oneshot::channel();
        assert_eq!(asked.signal(15, reply), ToShim::Signal { id: 1, signal: 15 });
        let (reply, mut resized) = oneshot::channel();
        assert_eq!(asked.resize(WINDOW, reply), Some(ToShim::Resize { id: 2, window: WINDOW }));
        asked.hear(&FromShim::Resized { id: 2, done: false });
        asked.hear(&FromShim::Signalled { id: 1, processes: 3 });
        assert_eq!((signalled.try_recv(), resized.try_recv()), (Ok(3), Ok(Resized::NoTerminal)));
    }
}

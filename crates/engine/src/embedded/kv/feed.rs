//! The recent changes of a bucket, for the watchers that keep up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::super::util::lock;
use crate::kv::Change;

/// Most changes handed to a watcher at once (one commit always fits).
pub(crate) const BATCH_CHANGES: usize = 1000;

/// Most bytes of keys and values handed to a watcher at once (one commit always fits).
pub(crate) const BATCH_BYTES: usize = 1024 * 1024;

/// Bytes that a change costs beside its key and value.
const CHANGE_OVERHEAD: usize = 128;

/// One commit.
pub(crate) struct Event {
    pub(crate) changes: Vec<Change>,
    last: u64,
    bytes: usize,
}

impl Event {
    /// The changes of one commit, at least one, in ascending revision order.
    pub(crate) fn new(changes: Vec<Change>) -> Self {
        let bytes = changes.iter().map(change_bytes).sum();
        let last = changes.last().map_or(0, |change| change.revision);
        Self { changes, last, bytes }
    }
}

pub(crate) fn change_bytes(change: &Change) -> usize {
    CHANGE_OVERHEAD + change.key.as_str().len() + change.value.as_ref().map_or(0, bytes::Bytes::len)
}

/// The commits in `(start, last]`, without a hole.
struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    start: u64,
}

/// What a watcher at some revision finds.
pub(crate) enum Since {
    /// Nothing new.
    Current,
    /// These commits, and the revision after them.
    Events(Vec<Arc<Event>>, u64),
    /// Too far behind: read from the store.
    Behind,
}

/// A bucket's last visible revision and its recent changes.
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
    max_bytes: usize,
}

impl Feed {
    pub(crate) fn new(last: u64, max_bytes: usize) -> Self {
        let ring = Ring { events: VecDeque::new(), bytes: 0, start: last };
        Self { ring: Mutex::new(ring), last: watch::Sender::new(last), max_bytes }
    }

    /// The last visible revision.
    pub(crate) fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Woken by every publish. While any of these lives, recent changes are kept.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Makes commits visible to watchers, in order.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        let Some(last) = events.last().map(|event| event.last) else { return };
        let mut ring = lock(&self.ring);
        if self.last.receiver_count() == 0 {
            ring.events.clear();
            ring.bytes = 0;
            ring.start = last;
        } else {
            for event in events {
                ring.bytes += event.bytes;
                ring.events.push_back(Arc::new(event));
            }
            while ring.bytes > self.max_bytes {
                let Some(oldest) = ring.events.pop_front() else { break };
                ring.bytes -= oldest.bytes;
                ring.start = oldest.last;
            }
        }
        // Under the lock, so that a watcher that is woken finds what it was woken for.
        self.last.send_replace(last);
    }

    /// What happened after `position`, up to a batch.
    pub(crate) fn since(&self, position: u64) -> Since {
        let ring = lock(&self.ring);
        if self.last() <= position {
            return Since::Current;
        }
        if position < ring.start {
            return Since::Behind;
        }
        let first = ring.events.partition_point(|event| event.last <= position);
        let (mut changes, mut bytes, mut upto) = (0, 0, position);
        let mut events = Vec::new();
        for event in ring.events.iter().skip(first) {
            changes += event.changes.len();
            bytes += event.bytes;
            if !events.is_empty() && (changes > BATCH_CHANGES || bytes > BATCH_BYTES) {
                break;
            }
            upto = event.last;
            events.push(event.clone());
        }
        Since::Events(events, upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn event(revisions: std::ops::RangeInclusive<u64>, size: usize) -> Event {
        let key = Key::parse("k").expect("key");
        let change = |revision| Change { key: key.clone(), revision, value: Some(vec![0; size].into()) };
        Event::new(revisions.map(change).collect())
    }

    fn upto(since: Since) -> Option<(usize, u64)> {
        match since {
            Since::Events(events, upto) => Some((events.len(), upto)),
            _ => None,
        }
    }

    #[test]
    fn keeps_nothing_without_watchers() {
        let feed = Feed::new(10, 1 << 20);
        feed.publish(vec![event(11..=12, 1)]);
        assert_eq!(feed.last(), 12);
        assert!(matches!(feed.since(10), Since::Behind));
        assert!(matches!(feed.since(12), Since::Current));
    }

    #[test]
    fn hands_out_whole_commits() {
        let feed = Feed::new(10, 64 << 20);
        let _watcher = feed.subscribe();
        feed.publish(vec![event(11..=12, 1), event(13..=13, 1)]);
        assert_eq!(upto(feed.since(10)), Some((2, 13)));
        assert_eq!(upto(feed.since(12)), Some((1, 13)));
        feed.publish(vec![event(14..=14, BATCH_BYTES), event(15..=15, BATCH_BYTES)]);
        assert_eq!(upto(feed.since(13)), Some((1, 14)));
        assert_eq!(upto(feed.since(14)), Some((1, 15)));
    }

    #[test]
    fn is_bounded() {
        let feed = Feed::new(0, 4096);
        let _watcher = feed.subscribe();
        for n in 1..=100 {
            feed.publish(vec![event(n..=n, 1000)]);
        }
        assert!(matches!(feed.since(50), Since::Behind));
        assert_eq!(upto(feed.since(98)), Some((2, 100)));
        assert!(lock(&feed.ring).bytes <= 4096);
    }
}

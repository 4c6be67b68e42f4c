//! The bus inside one process.
//!
//! Subscriptions sit in a tree by the tokens of their patterns, so that a publish touches only those that match.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::EmbeddedConfig;
use super::counters::Counters;
use super::util::{lock, read, write};
use crate::BoxFuture;
use crate::bus::{
    Bus, MAX_MESSAGE, Message, Received, Subscription, SubscriptionSource, validate_pattern, validate_subject,
};
use crate::error::{Error, Result};

/// Bytes that a waiting message costs beside its payload.
const MESSAGE_OVERHEAD: usize = 64;

/// What waits for one subscriber.
#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    dropped: u64,
}

struct Mailbox {
    id: u64,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Node {
    /// By the next token; `*` is one of them.
    children: HashMap<Box<str>, Node>,
    /// Patterns that end here.
    here: Vec<Arc<Mailbox>>,
    /// Patterns that end here with `>`.
    below: Vec<Arc<Mailbox>>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.below.is_empty()
    }

    fn insert(&mut self, pattern: &str, mailbox: Arc<Mailbox>) {
        let mut node = self;
        for token in pattern.split('.') {
            if token == ">" {
                node.below.push(mailbox);
                return;
            }
            node = node.children.entry(token.into()).or_default();
        }
        node.here.push(mailbox);
    }

    fn remove(&mut self, pattern: Option<&str>, id: u64) {
        let Some(pattern) = pattern else {
            self.here.retain(|mailbox| mailbox.id != id);
            return;
        };
        let (token, rest) = match pattern.split_once('.') {
            Some((token, rest)) => (token, Some(rest)),
            None => (pattern, None),
        };
        if token == ">" {
            self.below.retain(|mailbox| mailbox.id != id);
        } else if let Some(child) = self.children.get_mut(token) {
            child.remove(rest, id);
            if child.is_empty() {
                self.children.remove(token);
            }
        }
    }

    /// Calls `found` for every mailbox whose pattern matches. The depth is bounded by the subject's length.
    fn matching(&self, subject: Option<&str>, found: &mut impl FnMut(&Arc<Mailbox>)) {
        let Some(subject) = subject else {
            self.here.iter().for_each(found);
            return;
        };
        self.below.iter().for_each(&mut *found);
        let (token, rest) = match subject.split_once('.') {
            Some((token, rest)) => (token, Some(rest)),
            None => (subject, None),
        };
        for next in [token, "*"] {
            if let Some(child) = self.children.get(next) {
                child.matching(rest, found);
            }
        }
    }
}

pub(crate) struct Shared {
    tree: RwLock<Node>,
    subscriptions: AtomicUsize,
    next_id: AtomicU64,
    stats: Arc<Counters>,
    closed: CancellationToken,
    max_messages: usize,
    max_bytes: usize,
    max_subscriptions: usize,
}

/// The bus.
#[derive(Clone)]
pub(crate) struct LocalBus(Arc<Shared>);

impl LocalBus {
    pub(crate) fn new(config: &EmbeddedConfig, stats: Arc<Counters>, closed: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            tree: RwLock::default(),
            subscriptions: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            stats,
            closed,
            max_messages: config.bus_buffer,
            max_bytes: config.bus_buffer_bytes,
            max_subscriptions: config.bus_subscriptions_max,
        }))
    }
}

impl Shared {
    fn deliver(&self, mailbox: &Mailbox, message: &Message) {
        let mut waiting = lock(&mailbox.waiting);
        waiting.bytes += message.payload.len() + MESSAGE_OVERHEAD;
        waiting.messages.push_back(message.clone());
        while waiting.messages.len() > self.max_messages
            || (waiting.bytes > self.max_bytes && waiting.messages.len() > 1)
        {
            let Some(oldest) = waiting.messages.pop_front() else { break };
            waiting.bytes -= oldest.payload.len() + MESSAGE_OVERHEAD;
            waiting.dropped += 1;
            self.stats.bus_dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        mailbox.arrived.notify_one();
    }
}

impl Bus for LocalBus {
    fn publish(&self, subject: &str, payload: Bytes) -> Result<()> {
        validate_subject(subject)?;
        if payload.len() > MAX_MESSAGE {
            return Err(Error::TooLarge {
                what: "a message",
                size: payload.len() as u64,
                max: MAX_MESSAGE as u64,
            });
        }
        if self.0.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        self.0.stats.bus_published.fetch_add(1, Ordering::Relaxed);
        let mut message = None;
        let mut delivered = 0;
        read(&self.0.tree).matching(Some(subject), &mut |mailbox| {
            let message =
                message.get_or_insert_with(|| Message { subject: subject.into(), payload: payload.clone() });
            self.0.deliver(mailbox, message);
            delivered += 1;
        });
        self.0.stats.bus_delivered.fetch_add(delivered, Ordering::Relaxed);
        Ok(())
    }

    fn subscribe(&self, pattern: &str) -> Result<Subscription> {
        validate_pattern(pattern)?;
        if self.0.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        if self.0.subscriptions.fetch_add(1, Ordering::Relaxed) >= self.0.max_subscriptions {
            self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Limited { what: "bus_subscriptions_max" });
        }
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox { id, waiting: Mutex::default(), arrived: Notify::new() });
        write(&self.0.tree).insert(pattern, mailbox.clone());
        Ok(Subscription::new(LocalSubscription { shared: self.0.clone(), mailbox, pattern: pattern.into() }))
    }
}

struct LocalSubscription {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    pattern: Box<str>,
}

impl LocalSubscription {
    fn take(&self) -> Option<Received> {
        let mut waiting = lock(&self.mailbox.waiting);
        if waiting.dropped > 0 {
            return Some(Received::Lagged(std::mem::take(&mut waiting.dropped)));
        }
        let message = waiting.messages.pop_front()?;
        waiting.bytes -= message.payload.len() + MESSAGE_OVERHEAD;
        Some(Received::Message(message))
    }
}

impl SubscriptionSource for LocalSubscription {
    fn recv(&mut self) -> BoxFuture<'_, Result<Received>> {
        Box::pin(async move {
            loop {
                if let Some(received) = self.take() {
                    return Ok(received);
                }
                tokio::select! {
                    biased;
                    () = self.mailbox.arrived.notified() => {}
                    () = self.shared.closed.cancelled() => return Err(Error::Closed),
                }
            }
        })
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        write(&self.shared.tree).remove(Some(&self.pattern), self.mailbox.id);
        self.shared.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus(buffer: usize) -> LocalBus {
        let config = EmbeddedConfig {
            bus_buffer: buffer,
            bus_buffer_bytes: 1000,
            bus_subscriptions_max: 4,
            ..EmbeddedConfig::default()
        };
        LocalBus::new(&config, Arc::default(), CancellationToken::new())
    }

    #[tokio::test]
    async fn slow_subscribers_lose_the_oldest() {
        let bus = bus(2);
        let mut subscription = bus.subscribe("a").expect("subscribe");
        for n in 0..5u8 {
            bus.publish("a", Bytes::copy_from_slice(&[n])).expect("publish");
        }
        assert_eq!(subscription.recv().await.expect("recv"), Received::Lagged(3));
        for n in 3..5u8 {
            let Received::Message(message) = subscription.recv().await.expect("recv") else {
                panic!("lagged")
            };
            assert_eq!(message.payload, &[n][..]);
        }
        for _ in 0..2 {
            bus.publish("a", Bytes::from(vec![0; 900])).expect("publish");
        }
        assert_eq!(subscription.recv().await.expect("recv"), Received::Lagged(1));
    }

    #[tokio::test]
    async fn dropped_subscriptions_leave_nothing() {
        let bus = bus(2);
        let patterns = ["a.b.c", "a.*", ">", "x.>"];
        let all: Vec<_> = patterns.iter().map(|pattern| bus.subscribe(pattern).expect("subscribe")).collect();
        assert!(matches!(bus.subscribe("y"), Err(Error::Limited { .. })));
        drop(all);
        assert!(read(&bus.0.tree).is_empty());
        assert!(bus.subscribe("y").is_ok());
    }
}

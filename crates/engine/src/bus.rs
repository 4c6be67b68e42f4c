//! Subjects with wildcards and fan-out. At most once, only ever a hint.
//!
//! A subject is tokens joined by `.`; a pattern may have `*` for one token and a last `>` for one or more.

use std::sync::Arc;

use bytes::Bytes;

use crate::BoxFuture;
use crate::error::{Error, Result};

/// Longest subject or pattern, in bytes.
pub const MAX_SUBJECT: usize = 255;

/// Largest payload of a message, in bytes.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The subject it was published on.
    pub subject: Arc<str>,
    /// Its content, shared by all receivers.
    pub payload: Bytes,
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The next message.
    Message(Message),
    /// It was too slow: this many messages before the next one were dropped.
    Lagged(u64),
}

/// The engine's side of a subscription.
pub trait SubscriptionSource: Send {
    /// See [`Subscription::recv`].
    fn recv(&mut self) -> BoxFuture<'_, Result<Received>>;
}

/// A running subscription. Dropping it ends it.
pub struct Subscription(Box<dyn SubscriptionSource>);

impl Subscription {
    /// Wraps an engine's source.
    pub fn new(source: impl SubscriptionSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// The next message, or how many were dropped. Cancel safe. Errors: [`Error::Closed`].
    pub async fn recv(&mut self) -> Result<Received> {
        self.0.recv().await
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// Publish and subscribe.
pub trait Bus: Send + Sync {
    /// Hands a message to whoever subscribes now. Never waits; a subscriber that is too slow loses the oldest.
    fn publish(&self, subject: &str, payload: Bytes) -> Result<()>;

    /// Receives what is published from now on and matches `pattern`.
    fn subscribe(&self, pattern: &str) -> Result<Subscription>;
}

fn check_tokens(what: &str, text: &str, wildcards: bool) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("{what} `{}` {why}", text.escape_debug())));
    if text.is_empty() || text.len() > MAX_SUBJECT {
        return Err(Error::invalid(format!("a {what} has 1 to {MAX_SUBJECT} bytes")));
    }
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        match token {
            "" => return bad("has an empty token"),
            "*" | ">" if !wildcards => return bad("has a wildcard; only patterns may"),
            ">" if tokens.peek().is_some() => return bad("has `>` before its end"),
            "*" | ">" => {}
            _ if token.bytes().any(|b| b <= b' ' || b == 127 || b == b'*' || b == b'>') => {
                return bad("has a blank, a control byte or a wildcard inside a token");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses a subject with wildcards, empty tokens, blanks or over [`MAX_SUBJECT`].
pub fn validate_subject(subject: &str) -> Result<()> {
    check_tokens("subject", subject, false)
}

/// Refuses a pattern with empty tokens, blanks, `>` before its end or over [`MAX_SUBJECT`].
pub fn validate_pattern(pattern: &str) -> Result<()> {
    check_tokens("pattern", pattern, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_and_patterns() {
        for good in ["a", "a.b", "a.b-c_d=2E", "a.ä"] {
            assert!(validate_subject(good).is_ok(), "{good}");
            assert!(validate_pattern(good).is_ok(), "{good}");
        }
        for pattern in ["*", ">", "a.*", "a.>", "*.b.>"] {
            assert!(validate_subject(pattern).is_err(), "{pattern}");
            assert!(validate_pattern(pattern).is_ok(), "{pattern}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.\n", ">.a", "a*", "a.b>"] {
            assert!(validate_pattern(bad).is_err(), "{bad}");
        }
        assert!(validate_subject(&"a".repeat(MAX_SUBJECT + 1)).is_err());
    }
}

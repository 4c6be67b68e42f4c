//! Names: keys, prefixes, buckets and logs, in the one grammar that every engine can store.
//!
//! A stored name is one or more tokens of `[A-Za-z0-9_=-]+` joined by `.`. Any other byte of a token, and `=` itself,
//! is written `=XX` (upper-case hex), so that every name has exactly one stored form.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Longest stored key, prefix or log name, in bytes.
pub const MAX_KEY: usize = 255;

/// Longest stored bucket name, in bytes.
pub const MAX_BUCKET: usize = 128;

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn escape_into(out: &mut String, token: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in token.as_bytes() {
        if is_plain(byte) {
            out.push(byte as char);
        } else {
            out.push('=');
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        }
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The name behind one stored token, or `None` where the token is not in the one canonical form.
fn unescape(token: &str) -> Option<Cow<'_, str>> {
    if token.is_empty() {
        return None;
    }
    if token.bytes().all(is_plain) {
        return Some(Cow::Borrowed(token));
    }
    let mut out = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if is_plain(byte) {
            out.push(byte);
        } else if byte == b'=' {
            let decoded = (hex_digit(bytes.next()?)? << 4) | hex_digit(bytes.next()?)?;
            if is_plain(decoded) {
                return None;
            }
            out.push(decoded);
        } else {
            return None;
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn check_stored(what: &str, stored: &str, max: usize) -> Result<()> {
    if stored.len() > max {
        return Err(Error::invalid(format!(
            "{what} is {} bytes as stored, the limit is {max}",
            stored.len()
        )));
    }
    for token in stored.split('.') {
        if unescape(token).is_none() {
            return Err(Error::invalid(format!(
                "{what} `{}` must be tokens of [A-Za-z0-9_-] and =XX escapes joined by `.`",
                stored.escape_debug()
            )));
        }
    }
    Ok(())
}

fn join_tokens<T: AsRef<str>>(
    what: &str,
    tokens: impl IntoIterator<Item = T>,
    max: usize,
) -> Result<Arc<str>> {
    let mut stored = String::new();
    for (index, token) in tokens.into_iter().enumerate() {
        let token = token.as_ref();
        if token.is_empty() {
            return Err(Error::invalid(format!("{what} has an empty token")));
        }
        if index > 0 {
            stored.push('.');
        }
        escape_into(&mut stored, token);
        // Checked as it grows, so that a hostile name costs no more than the limit.
        if stored.len() > max {
            return Err(Error::invalid(format!("{what} is over {max} bytes as stored")));
        }
    }
    if stored.is_empty() {
        return Err(Error::invalid(format!("{what} has no tokens")));
    }
    Ok(stored.into())
}

macro_rules! stored_name {
    ($name:ident, $what:literal, $max:expr) => {
        impl $name {
            /// The stored form.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The tokens, unescaped.
            pub fn tokens(&self) -> impl Iterator<Item = Cow<'_, str>> {
                // Every stored name was checked when it was made, so no token is dropped here.
                self.0.split('.').filter_map(unescape)
            }

            /// Takes a name in its stored form. Errors with [`Error::Invalid`].
            pub fn parse(stored: &str) -> Result<Self> {
                check_stored($what, stored, $max)?;
                Ok(Self(stored.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(stored: &str) -> Result<Self> {
                Self::parse(stored)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                let stored = <Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&stored).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A key of a bucket, in its stored form: at most [`MAX_KEY`] bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

stored_name!(Key, "key", MAX_KEY);

impl Key {
    /// Joins tokens, escaping each: `Key::from_tokens(["host", id])`. Errors with [`Error::Invalid`] when a token is
    /// empty or the stored form is over [`MAX_KEY`].
    pub fn from_tokens<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Result<Self> {
        join_tokens("key", tokens, MAX_KEY).map(Self)
    }
}

/// A bucket's name: one token, at most [`MAX_BUCKET`] bytes as stored. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(Arc<str>);

stored_name!(Bucket, "bucket", MAX_BUCKET);

impl Bucket {
    /// A bucket called `name`; whatever is not plain in it is escaped. Errors with [`Error::Invalid`] when it is empty
    /// or too long.
    pub fn new(name: &str) -> Result<Self> {
        join_tokens("bucket", [name], MAX_BUCKET).map(Self)
    }
}

/// A log's name, such as `events` or `output.<job>`: at most [`MAX_KEY`] bytes as stored. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogName(Arc<str>);

stored_name!(LogName, "log name", MAX_KEY);

impl LogName {
    /// Joins tokens, escaping each. Errors with [`Error::Invalid`] when a token is empty or the stored form is over
    /// [`MAX_KEY`].
    pub fn from_tokens<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Result<Self> {
        join_tokens("log name", tokens, MAX_KEY).map(Self)
    }
}

/// The keys strictly below some tokens: `host` holds `host.a` and `host.a.b`, neither `host` nor `hosts.a`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// Every key.
    pub fn all() -> Self {
        Self("".into())
    }

    /// The keys below these tokens, escaping each; no tokens give [`Prefix::all`].
    pub fn from_tokens<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut tokens = tokens.into_iter().peekable();
        if tokens.peek().is_none() {
            return Ok(Self::all());
        }
        let stored = join_tokens("prefix", tokens, MAX_KEY - 1)?;
        Ok(Self(format!("{stored}.").into()))
    }

    /// Takes a prefix in its stored form, with or without the last `.`; the empty text is [`Prefix::all`].
    pub fn parse(stored: &str) -> Result<Self> {
        if stored.is_empty() {
            return Ok(Self::all());
        }
        let tokens = stored.strip_suffix('.').unwrap_or(stored);
        check_stored("prefix", tokens, MAX_KEY - 1)?;
        Ok(Self(format!("{tokens}.").into()))
    }

    /// Whether `key` is below this prefix.
    pub fn matches(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }

    /// The stored form: empty, or ending with `.`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_what_is_not_plain() {
        let key = Key::from_tokens(["host", "a.b=c/ä"]).expect("key");
        assert_eq!(key.as_str(), "host.a=2Eb=3Dc=2F=C3=A4");
        assert_eq!(key.tokens().collect::<Vec<_>>(), ["host", "a.b=c/ä"]);
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        for bad in
            ["", ".", "a.", ".a", "a..b", "a b", "a=", "a=4", "a=2e", "a=41", "a/b", "=FF", "ä", "a*", ">"]
        {
            assert!(Key::parse(bad).is_err(), "{bad}");
        }
        for good in ["a", "a.b", "A-_9.x", "a=2E", "=C3=A4"] {
            assert_eq!(Key::parse(good).expect("key").as_str(), good);
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(Key::parse(&"a".repeat(MAX_KEY)).is_ok());
        assert!(Key::parse(&"a".repeat(MAX_KEY + 1)).is_err());
        assert!(Key::from_tokens(["/".repeat(86)]).is_err());
        assert!(Key::from_tokens(["/".repeat(85)]).is_ok());
        assert!(Bucket::new(&"b".repeat(MAX_BUCKET + 1)).is_err());
        assert!(Key::from_tokens(["a", ""]).is_err());
        assert!(Key::from_tokens::<&str>([]).is_err());
    }

    #[test]
    fn prefixes_end_at_token_borders() {
        let prefix = Prefix::parse("host").expect("prefix");
        assert_eq!(prefix, Prefix::from_tokens(["host"]).expect("prefix"));
        assert_eq!(prefix, Prefix::parse("host.").expect("prefix"));
        assert!(prefix.matches(&Key::parse("host.a.b").expect("key")));
        assert!(!prefix.matches(&Key::parse("host").expect("key")));
        assert!(!prefix.matches(&Key::parse("hosts.a").expect("key")));
        assert!(Prefix::all().matches(&Key::parse("x").expect("key")));
        assert!(Prefix::parse("a..").is_err());
    }

    proptest! {
        #[test]
        fn tokens_round_trip(tokens in proptest::collection::vec(".{1,12}", 1..4)) {
            if let Ok(key) = Key::from_tokens(&tokens) {
                let back: Vec<String> = key.tokens().map(Cow::into_owned).collect();
                prop_assert_eq!(back, tokens);
                prop_assert_eq!(Key::parse(key.as_str()).expect("its own form parses"), key);
            }
        }

        #[test]
        fn stored_forms_are_unique(stored in "[A-C0-2=.]{1,12}") {
            if let Ok(key) = Key::parse(&stored) {
                let again = Key::from_tokens(key.tokens()).expect("tokens of a key make a key");
                prop_assert_eq!(again.as_str(), stored);
            }
        }

        #[test]
        fn parsing_never_panics(text in ".{0,64}") {
            let _ = Key::parse(&text);
            let _ = Prefix::parse(&text);
            let _ = Bucket::parse(&text);
        }
    }
}

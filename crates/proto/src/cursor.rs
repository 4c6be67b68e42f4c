//! A place in anything that flows.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A place in a log, an output or a watch: `epoch-offset`.
///
/// The epoch changes on restore, re-creation or loss of data, never on a restart. Clients keep cursors as opaque
/// strings and hand them back to resume; only the server declares a gap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// Which history the offset belongs to: `[a-z0-9]{1,32}`.
    pub epoch: String,
    /// How far into it: payload bytes for output, entries for logs, a revision for watches.
    pub offset: u64,
}

impl Cursor {
    /// A cursor at `offset` of the history `epoch`.
    pub fn new(epoch: impl Into<String>, offset: u64) -> Self {
        Self { epoch: epoch.into(), offset }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

/// Why a text is not a cursor.
#[derive(Debug, thiserror::Error)]
#[error("not a cursor: expected 'epoch-offset' as a server gave it, such as '5f3a-120'")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (epoch, offset) = text.split_once('-').ok_or(InvalidCursor)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if epoch.is_empty() || epoch.len() > 32 || !epoch.bytes().all(plain) {
            return Err(InvalidCursor);
        }
        if offset.is_empty() || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidCursor);
        }
        Ok(Self { epoch: epoch.to_owned(), offset: offset.parse().map_err(|_| InvalidCursor)? })
    }
}

impl TryFrom<String> for Cursor {
    type Error = InvalidCursor;

    fn try_from(text: String) -> Result<Self, InvalidCursor> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl JsonSchema for Cursor {
    fn schema_name() -> Cow<'static, str> {
        "Cursor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[a-z0-9]{1,32}-[0-9]+$",
            "description": "An opaque place in a stream (epoch-offset). Hand it back to resume."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn garbage_is_refused() {
        for bad in ["", "-", "a", "a-", "-1", "A-1", "a-x", "a--1", "a-1-2", "a-99999999999999999999999"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(epoch in "[a-z0-9]{1,32}", offset: u64) {
            let cursor = Cursor::new(epoch, offset);
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().expect("parses"), cursor);
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<Cursor>();
        }
    }
}

//! Errors as they cross the wire: a stable code, a sentence that says what to do next, and room for details.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What kind of failure it was. Programs decide by this code; it never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No valid credential was given.
    Unauthenticated,
    /// The credential is valid and does not allow this.
    Forbidden,
    /// The named thing, or the operation itself, does not exist.
    NotFound,
    /// The state is not what the request expected.
    Conflict,
    /// The request is malformed; it will never succeed as it is.
    Invalid,
    /// The host is not connected.
    Offline,
    /// A named limit is reached; it may succeed later.
    Limited,
    /// One message or value is over its size limit.
    TooLarge,
    /// It did not happen and may succeed later.
    Unavailable,
    /// It may have happened: repeat it with the same key.
    Indeterminate,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Every code there is.
    pub const ALL: [Self; 11] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Invalid,
        Self::Offline,
        Self::Limited,
        Self::TooLarge,
        Self::Unavailable,
        Self::Indeterminate,
        Self::Internal,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Offline => "offline",
            Self::Limited => "limited",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Indeterminate => "indeterminate",
            Self::Internal => "internal",
        }
    }

    /// The number in a JSON-RPC error object (`invalid` uses the standard's "Invalid params").
    pub fn rpc_number(self) -> i32 {
        match self {
            Self::Invalid => -32602,
            Self::Internal => -32603,
            Self::Unauthenticated => -32001,
            Self::Forbidden => -32002,
            Self::NotFound => -32003,
            Self::Conflict => -32004,
            Self::Offline => -32005,
            Self::Limited => -32006,
            Self::TooLarge => -32007,
            Self::Unavailable => -32008,
            Self::Indeterminate => -32009,
        }
    }

    /// The HTTP status of a problem document.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Invalid => 400,
            Self::TooLarge => 413,
            Self::Limited => 429,
            Self::Internal => 500,
            Self::Offline | Self::Unavailable => 503,
            Self::Indeterminate => 504,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure told to the other side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure; stable.
    pub code: Code,
    /// What went wrong and what to do next, for a person.
    pub message: String,
    /// When it makes sense to try again, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Facts a program can act on, by code and operation (for example the current value after a conflict).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Value>>,
}

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(Code::$code, message)
        })*
    };
}

impl Error {
    /// A failure of the given kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, details: None }
    }

    constructors! {
        /// No valid credential.
        unauthenticated => Unauthenticated,
        /// Not allowed.
        forbidden => Forbidden,
        /// No such thing.
        not_found => NotFound,
        /// Another state than expected.
        conflict => Conflict,
        /// Malformed.
        invalid => Invalid,
        /// The host is not connected.
        offline => Offline,
        /// A named limit is reached.
        limited => Limited,
        /// Over a size limit.
        too_large => TooLarge,
        /// It did not happen.
        unavailable => Unavailable,
        /// It may have happened.
        indeterminate => Indeterminate,
        /// A fault of ours.
        internal => Internal,
    }

    /// Adds facts for programs.
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Adds when to try again.
    pub fn with_retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_and_spelled_as_serialised() {
        let mut numbers = HashSet::new();
        for code in Code::ALL {
            assert!(numbers.insert(code.rpc_number()), "{code}");
            let json = serde_json::to_string(&code).expect("encodes");
            assert_eq!(json, format!("\"{}\"", code.as_str()));
        }
    }
}

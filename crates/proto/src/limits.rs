//! Sizes that both ends of a link agree on.

/// No message (text or binary frame, header included) is larger than this.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// Payload bytes in one bulk frame.
pub const BULK_CHUNK: usize = 16 * 1024;

/// How deep JSON may nest before it is refused (`serde_json`'s own limit).
pub const MAX_JSON_DEPTH: usize = 128;

/// Longest name of a host, user or label key, in bytes.
pub const MAX_NAME: usize = 253;

/// Longest label value, in bytes.
pub const MAX_LABEL_VALUE: usize = 256;

/// Most labels on one host.
pub const MAX_LABELS: usize = 64;

/// Largest description of a command (arguments, environment, script), as encoded JSON, in bytes.
pub const MAX_SPEC: usize = 96 * 1024;

/// Smallest spool of a job's output on its host, in bytes; a smaller wish is raised to it.
pub const MIN_SPOOL_BYTES: u64 = 64 * 1024;

/// Most entries in one page of a list.
pub const MAX_PAGE: u32 = 1000;

/// Entries in one page of a list where the caller does not say.
pub const DEFAULT_PAGE: u32 = 100;

/// Integers on the wire stay below this, so that every language's JSON reads them exactly.
pub const MAX_INTEGER: u64 = 1 << 53;

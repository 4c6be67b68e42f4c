//! A job's output on the host's disk: segments of records in the order in which the shim read them.
//!
//! One offset runs over both streams and counts payload bytes, discarded ones included. A segment is named after the
//! offset of its first record, so that a reader finds any offset by name; it begins with how much of each stream went
//! before, so that totals can be told from the last one alone. The shim writes, any number of readers follow.

pub mod reader;
pub(crate) mod record;
pub mod segments;
pub mod writer;

pub use reader::{Item, SpoolReader};
pub use segments::{Totals, discard_acked, measure};
pub use writer::{Limits, SpoolWriter};

/// Size at which a segment is closed and the next begun, in bytes. Smaller spools have smaller ones.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// Smallest segment, in bytes.
pub const MIN_SEGMENT_BYTES: u64 = 64 << 10;

pub use datacentered_proto::limits::MIN_SPOOL_BYTES;

/// Largest payload of one record, in bytes.
pub const MAX_RECORD: usize = 1 << 20;

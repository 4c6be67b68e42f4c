//! What targets share.

use std::fmt::{Debug, Display};
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The input as text; what is not UTF-8 is no input of a decoder that takes text.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What is read from JSON is written, and read again as the same.
pub(crate) fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(value, again);
}

/// What is parsed is written, and parsed again as the same.
pub(crate) fn spelled<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let again = value.to_string().parse::<T>();
    assert_eq!(again.ok(), Some(value), "{text:?}");
}

/// Splits the input at its first zero byte: for targets that take two things.
pub(crate) fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

/// Fields of the input, each after its length as `u16` (little-endian). What is left is the last field.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*head)).min(rest.len());
        found.push(&rest[..length]);
        bytes = &rest[length..];
    }
    found
}

/// One field as the targets read it: for those who make samples.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_le_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// Writes a CRC-32 of `covered` into four bytes at `at`, so that what lies behind a checksum is reached too.
pub fn with_checksum(bytes: &mut [u8], at: usize, covered: &[&[u8]], little_endian: bool) {
    let mut hasher = crc32fast::Hasher::new();
    for part in covered {
        hasher.update(part);
    }
    let sum = hasher.finalize();
    let sum = if little_endian { sum.to_le_bytes() } else { sum.to_be_bytes() };
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&sum);
    }
}

/// A directory that is gone when it is dropped: in memory where there is such a place, since syncs cost time.
pub(crate) fn directory() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory for a target's files")
}

/// Runs a future on a runtime of this thread's own, with the clock paused where asked.
pub(crate) fn block_on<T>(paused: bool, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(paused).build();
    runtime.expect("a runtime").block_on(future)
}

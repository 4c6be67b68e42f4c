//! How buckets lie in the store.
//!
//! One keyspace. Keys start with a kind; numbers are big-endian, so that they sort.
//!
//! | key | value |
//! |---|---|
//! | `b` name | JSON [`BucketRecord`] |
//! | `e` bucket key | alive, revision, value: the last state of each key, deletions still remembered included |
//! | `c` bucket revision | alive, key: one per `e`, in revision order |
//! | `t` bucket revision | time, key: one per remembered deletion |

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::{Bucket, Key, Prefix};
use crate::kv::Durability;

const BUCKET: u8 = b'b';
const ENTRY: u8 = b'e';
const CHANGE: u8 = b'c';
const TOMBSTONE: u8 = b't';

/// Kind and bucket id.
const HEAD: usize = 5;

/// What is stored about a bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BucketRecord {
    pub(crate) id: u32,
    pub(crate) durability: Durability,
    /// Revisions up to here may have been handed out.
    pub(crate) reserved: u64,
    /// Deletions up to this revision may be forgotten.
    pub(crate) floor: u64,
}

/// The last state of a key.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) revision: u64,
    /// `None`: deleted, and remembered.
    pub(crate) value: Option<Bytes>,
}

fn corrupt(what: &str) -> Error {
    Error::Damaged { what: format!("a stored {what}"), path: super::super::dir::KV.into(), source: None }
}

fn head(kind: u8, bucket: u32, capacity: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(HEAD + capacity);
    key.push(kind);
    key.extend_from_slice(&bucket.to_be_bytes());
    key
}

fn with_revision(kind: u8, bucket: u32, revision: u64) -> Vec<u8> {
    let mut key = head(kind, bucket, 8);
    key.extend_from_slice(&revision.to_be_bytes());
    key
}

pub(crate) fn bucket_key(name: &Bucket) -> Vec<u8> {
    let mut key = vec![BUCKET];
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

pub(crate) fn bucket_keys() -> std::ops::Range<Vec<u8>> {
    vec![BUCKET]..vec![BUCKET + 1]
}

pub(crate) fn decode_bucket(key: &[u8], value: &[u8]) -> Result<(Bucket, BucketRecord)> {
    let name = std::str::from_utf8(key.get(1..).unwrap_or_default()).map_err(|_| corrupt("bucket"))?;
    let name = Bucket::parse(name).map_err(|_| corrupt("bucket"))?;
    let record = serde_json::from_slice(value).map_err(|_| corrupt("bucket"))?;
    Ok((name, record))
}

pub(crate) fn encode_bucket(record: &BucketRecord) -> Vec<u8> {
    // Four plain fields always have a JSON form.
    serde_json::to_vec(record).unwrap_or_default()
}

pub(crate) fn entry_key(bucket: u32, key: &Key) -> Vec<u8> {
    let mut stored = head(ENTRY, bucket, key.as_str().len());
    stored.extend_from_slice(key.as_str().as_bytes());
    stored
}

/// The entries below a prefix.
pub(crate) fn entry_keys(bucket: u32, prefix: &Prefix) -> std::ops::Range<Vec<u8>> {
    let mut from = head(ENTRY, bucket, prefix.as_str().len());
    from.extend_from_slice(prefix.as_str().as_bytes());
    let mut to = from.clone();
    // 0xff is in no key.
    to.push(0xff);
    from..to
}

pub(crate) fn key_of_entry(stored: &[u8]) -> Result<Key> {
    parse_key(stored.get(HEAD..))
}

fn parse_key(stored: Option<&[u8]>) -> Result<Key> {
    stored
        .and_then(|key| std::str::from_utf8(key).ok())
        .and_then(|key| Key::parse(key).ok())
        .ok_or_else(|| corrupt("key"))
}

pub(crate) fn encode_state(revision: u64, value: Option<&[u8]>) -> Bytes {
    let mut stored = Vec::with_capacity(9 + value.map_or(0, <[u8]>::len));
    stored.push(u8::from(value.is_some()));
    stored.extend_from_slice(&revision.to_be_bytes());
    stored.extend_from_slice(value.unwrap_or_default());
    Bytes::from(stored)
}

pub(crate) fn decode_state(stored: Bytes) -> Result<State> {
    let alive = *stored.first().ok_or_else(|| corrupt("entry"))? == 1;
    let revision = number(stored.get(1..9)).ok_or_else(|| corrupt("entry"))?;
    Ok(State { revision, value: alive.then(|| stored.slice(9..)) })
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}

pub(crate) fn change_key(bucket: u32, revision: u64) -> Vec<u8> {
    with_revision(CHANGE, bucket, revision)
}

/// The changes after a revision.
pub(crate) fn change_keys(bucket: u32, after: u64) -> std::ops::RangeInclusive<Vec<u8>> {
    with_revision(CHANGE, bucket, after.saturating_add(1))..=with_revision(CHANGE, bucket, u64::MAX)
}

pub(crate) fn encode_change(alive: bool, key: &Key) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.as_str().len());
    stored.push(u8::from(alive));
    stored.extend_from_slice(key.as_str().as_bytes());
    stored
}

/// Revision, whether it is alive, key.
pub(crate) fn decode_change(key: &[u8], value: &[u8]) -> Result<(u64, bool, Key)> {
    let revision = number(key.get(HEAD..)).ok_or_else(|| corrupt("change"))?;
    let alive = *value.first().ok_or_else(|| corrupt("change"))? == 1;
    Ok((revision, alive, parse_key(value.get(1..))?))
}

pub(crate) fn tombstone_key(bucket: u32, revision: u64) -> Vec<u8> {
    with_revision(TOMBSTONE, bucket, revision)
}

/// The remembered deletions after a revision.
pub(crate) fn tombstone_keys(bucket: u32, after: u64) -> std::ops::RangeInclusive<Vec<u8>> {
    with_revision(TOMBSTONE, bucket, after.saturating_add(1))..=with_revision(TOMBSTONE, bucket, u64::MAX)
}

pub(crate) fn encode_tombstone(at_ms: u64, key: &Key) -> Vec<u8> {
    let mut stored = at_ms.to_be_bytes().to_vec();
    stored.extend_from_slice(key.as_str().as_bytes());
    stored
}

/// Revision, time of deletion, key.
pub(crate) fn decode_tombstone(key: &[u8], value: &[u8]) -> Result<(u64, u64, Key)> {
    let revision = number(key.get(HEAD..)).ok_or_else(|| corrupt("deletion"))?;
    let at = number(value.get(..8)).ok_or_else(|| corrupt("deletion"))?;
    Ok((revision, at, parse_key(value.get(8..))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let key = Key::parse("a.b").expect("key");
        assert_eq!(key_of_entry(&entry_key(7, &key)).expect("key"), key);
        let state = decode_state(encode_state(9, Some(b"v"))).expect("state");
        assert_eq!((state.revision, state.value.as_deref()), (9, Some(&b"v"[..])));
        assert!(decode_state(encode_state(9, None)).expect("state").value.is_none());
        let change = decode_change(&change_key(7, 9), &encode_change(true, &key)).expect("change");
        assert_eq!(change, (9, true, key.clone()));
        let tombstone =
            decode_tombstone(&tombstone_key(7, 9), &encode_tombstone(5, &key)).expect("tombstone");
        assert_eq!(tombstone, (9, 5, key));
    }

    #[test]
    fn prefixes_bound_ranges() {
        let range = entry_keys(1, &Prefix::parse("a").expect("prefix"));
        let inside = |key: &str| range.contains(&entry_key(1, &Key::parse(key).expect("key")));
        assert!(inside("a.b") && inside("a.zz.z"));
        assert!(!inside("a") && !inside("ab.c") && !inside("b"));
        assert!(!range.contains(&entry_key(2, &Key::parse("a.b").expect("key"))));
    }

    #[test]
    fn junk_is_damage_not_a_panic() {
        assert!(decode_state(Bytes::from_static(b"\x01abc")).is_err());
        assert!(decode_change(b"c", b"").is_err());
        assert!(decode_tombstone(&tombstone_key(1, 1), b"short").is_err());
        assert!(decode_bucket(b"bx", b"{}").is_err());
        assert!(key_of_entry(b"e").is_err());
    }
}

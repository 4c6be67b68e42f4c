//! How logs lie in the store.
//!
//! Two keyspaces. Numbers are big-endian, so that they sort.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | heads | `h` name | [`Head`]: where the log stands |
//! | heads | `g` id | empty: a removed log whose items are still there |
//! | heads | `n` | the last log id given |
//! | items | id, offset, payload length | payload |
//!
//! A key tells all but the payload, so that trimming and removing never read one: an item's span ends where the next
//! one starts.

use crate::error::{Error, Result};
use crate::key::LogName;
use crate::log::LogState;

/// The keyspace of heads.
pub(crate) const HEADS: u8 = 0;
/// The keyspace of items.
pub(crate) const ITEMS: u8 = 1;

const HEAD: u8 = b'h';
const GRAVE: u8 = b'g';

/// The key of the last log id given.
pub(crate) const LAST_ID: &[u8] = b"n";

/// An item key of no log, as ids start at 1.
pub(crate) const NO_ITEM: [u8; 20] = [0; 20];

/// First byte of a stored head.
const HEAD_VERSION: u8 = 1;

/// Where a log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: u64,
    pub(crate) state: LogState,
}

/// What an item's key tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemKey {
    pub(crate) id: u64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

fn corrupt(what: &str) -> Error {
    Error::Damaged { what: format!("a stored {what}"), path: super::super::dir::LOG.into(), source: None }
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}

pub(crate) fn head_key(name: &LogName) -> Vec<u8> {
    let mut key = vec![HEAD];
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

pub(crate) fn encode_head(head: &Head) -> Vec<u8> {
    let state = &head.state;
    let mut stored = Vec::with_capacity(41);
    stored.push(HEAD_VERSION);
    for number in [head.id, state.oldest, state.end, state.last_source_id, state.bytes] {
        stored.extend_from_slice(&number.to_be_bytes());
    }
    stored
}

pub(crate) fn decode_head(stored: &[u8]) -> Result<Head> {
    let field =
        |index: usize| number(stored.get(1 + index * 8..9 + index * 8)).ok_or_else(|| corrupt("log head"));
    if stored.first() != Some(&HEAD_VERSION) {
        return Err(corrupt("log head"));
    }
    let state = LogState { oldest: field(1)?, end: field(2)?, last_source_id: field(3)?, bytes: field(4)? };
    Ok(Head { id: field(0)?, state })
}

pub(crate) fn grave_key(id: u64) -> Vec<u8> {
    let mut key = vec![GRAVE];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

pub(crate) fn grave_keys() -> std::ops::Range<Vec<u8>> {
    vec![GRAVE]..vec![GRAVE + 1]
}

pub(crate) fn decode_grave(key: &[u8]) -> Result<u64> {
    number(key.get(1..)).ok_or_else(|| corrupt("removed log"))
}

pub(crate) fn encode_id(id: u64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(crate) fn decode_id(stored: &[u8]) -> Result<u64> {
    number(Some(stored)).ok_or_else(|| corrupt("log id"))
}

pub(crate) fn item_key(key: ItemKey) -> Vec<u8> {
    let mut stored = Vec::with_capacity(20);
    stored.extend_from_slice(&key.id.to_be_bytes());
    stored.extend_from_slice(&key.offset.to_be_bytes());
    stored.extend_from_slice(&key.length.to_be_bytes());
    stored
}

/// The items of a log that start at `from` or later.
pub(crate) fn items_from(id: u64, from: u64) -> std::ops::RangeInclusive<Vec<u8>> {
    item_key(ItemKey { id, offset: from, length: 0 })..=item_key(ItemKey {
        id,
        offset: u64::MAX,
        length: u32::MAX,
    })
}

/// The items of a log that start at `upto` or earlier.
pub(crate) fn items_upto(id: u64, upto: u64) -> std::ops::RangeInclusive<Vec<u8>> {
    item_key(ItemKey { id, offset: 0, length: 0 })..=item_key(ItemKey { id, offset: upto, length: u32::MAX })
}

pub(crate) fn decode_item_key(stored: &[u8]) -> Result<ItemKey> {
    let decode = || {
        Some(ItemKey {
            id: number(stored.get(..8))?,
            offset: number(stored.get(8..16))?,
            length: u32::from_be_bytes(stored.get(16..)?.try_into().ok()?),
        })
    };
    decode().ok_or_else(|| corrupt("log item"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let state = LogState { oldest: 1, end: 2, last_source_id: 3, bytes: 4 };
        let head = Head { id: 9, state };
        assert_eq!(decode_head(&encode_head(&head)).expect("head"), head);
        let key = ItemKey { id: 1, offset: 2, length: 3 };
        assert_eq!(decode_item_key(&item_key(key)).expect("key"), key);
        assert!(items_from(1, 2).contains(&item_key(key)) && items_upto(1, 2).contains(&item_key(key)));
        assert!(!items_from(1, 3).contains(&item_key(key)) && !items_upto(1, 1).contains(&item_key(key)));
        assert!(grave_keys().contains(&grave_key(7)));
        assert_eq!(decode_grave(&grave_key(7)).expect("grave"), 7);
        assert_eq!(decode_id(&encode_id(7)).expect("id"), 7);
    }

    #[test]
    fn junk_is_damage_not_a_panic() {
        assert!(
            decode_head(b"").is_err() && decode_head(b"\x01short").is_err() && decode_head(&[9; 41]).is_err()
        );
        assert!(decode_item_key(b"short").is_err() && decode_item_key(&[0; 21]).is_err());
        assert!(decode_grave(b"g").is_err() && decode_id(b"").is_err());
    }
}

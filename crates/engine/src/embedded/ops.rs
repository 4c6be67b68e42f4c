//! What one group writes.

use std::collections::BTreeMap;

/// The writes of one group: the last one for each key counts, as the store gives all of a batch one sequence number.
#[derive(Default)]
pub(crate) struct Ops(pub(super) BTreeMap<(u8, Vec<u8>), Option<fjall::Slice>>);

impl Ops {
    pub(crate) fn put(&mut self, keyspace: u8, key: Vec<u8>, value: impl Into<fjall::Slice>) {
        self.0.insert((keyspace, key), Some(value.into()));
    }

    pub(crate) fn remove(&mut self, keyspace: u8, key: Vec<u8>) {
        self.0.insert((keyspace, key), None);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|((_, key), value)| (key.len() + value.as_ref().map_or(0, |v| v.len())) as u64)
            .sum()
    }
}

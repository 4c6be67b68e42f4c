//! One piece of a terminal's input, as the log keeps it.
//!
//! Each item says how far every writer is behind it. So the last item alone tells a writer that comes back where to go
//! on, and everything before it may be dropped once the host has it.
//!
//! An item is `u8` [`TAG_TYPED`], `u8` count, then per writer its id (16 bytes) and its offset (`u64`, big-endian), the
//! latest writer last, then the bytes typed.

use bytes::{BufMut, Bytes, BytesMut};
use datacentered_proto::OperationKey;

use super::TAG_TYPED;

/// Bytes of one writer in the head.
const WRITER: usize = 24;

/// The head of an item: how far each writer is, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    /// The writers, at most 255.
    pub(crate) writers: Vec<(OperationKey, u64)>,
}

impl Typed {
    /// An item with these bytes.
    pub(crate) fn encode(&self, bytes: &[u8]) -> Bytes {
        let mut item = BytesMut::with_capacity(2 + self.writers.len() * WRITER + bytes.len());
        item.put_u8(TAG_TYPED);
        item.put_u8(self.writers.len() as u8);
        for (writer, offset) in &self.writers {
            item.put_slice(writer.uuid().as_bytes());
            item.put_u64(*offset);
        }
        item.put_slice(bytes);
        item.freeze()
    }

    /// The head of an item; empty for anything else.
    pub(crate) fn decode(item: &[u8]) -> Self {
        let Some((head, _)) = split(item) else { return Self::default() };
        let writers = head
            .chunks_exact(WRITER)
            .filter_map(|writer| {
                let (id, offset) = writer.split_first_chunk::<16>()?;
                let offset = u64::from_be_bytes(offset.try_into().ok()?);
                Some((OperationKey::from_uuid(uuid::Uuid::from_bytes(*id)), offset))
            })
            .collect();
        Self { writers }
    }

    /// How far a writer is.
    pub(crate) fn held(&self, writer: OperationKey) -> u64 {
        self.writers.iter().find(|(id, _)| *id == writer).map_or(0, |(_, offset)| *offset)
    }
}

fn split(item: &[u8]) -> Option<(&[u8], usize)> {
    let [TAG_TYPED, count, rest @ ..] = item else { return None };
    let len = usize::from(*count) * WRITER;
    Some((rest.get(..len)?, 2 + len))
}

/// What was typed.
pub(super) fn bytes(item: &Bytes) -> Bytes {
    split(item).map_or_else(Bytes::new, |(_, start)| item.slice(start..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_are_read_as_they_are_written(
            writers in proptest::collection::vec((any::<u128>(), any::<u64>()), 0..20),
            text in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let writers: Vec<_> = writers
                .into_iter()
                .map(|(id, at)| (OperationKey::from_uuid(uuid::Uuid::from_u128(id)), at))
                .collect();
            let typed = Typed { writers };
            let item = typed.encode(&text);
            prop_assert_eq!(&Typed::decode(&item), &typed);
            prop_assert_eq!(bytes(&item), Bytes::from(text));
        }

        #[test]
        fn nothing_panics(item in proptest::collection::vec(any::<u8>(), 0..80)) {
            Typed::decode(&item);
            bytes(&item.into());
        }
    }
}

//! Decoders that are private otherwise, for fuzz targets. Each function panics where a property does not hold.

use bytes::Bytes;

use super::kv::layout as kv;
use super::log::layout as log;
use super::restore::{read_all, read_magic};
use super::store::Ops;

/// A key and a value as the key-value store holds them: what decodes is encoded to the same again.
pub fn kv_layout(key: &[u8], value: &[u8]) {
    if let Ok((name, record)) = kv::decode_bucket(key, value)
        && key.first() == kv::bucket_key(&name).first()
    {
        assert_eq!(kv::bucket_key(&name), key);
        let again = kv::decode_bucket(key, &kv::encode_bucket(&record)).expect("what was encoded");
        assert_eq!(format!("{record:?}"), format!("{:?}", again.1));
    }
    if let Ok(name) = kv::key_of_entry(key) {
        let bucket = key.get(1..5).and_then(|id| id.try_into().ok()).map_or(0, u32::from_be_bytes);
        assert_eq!(kv::entry_key(bucket, &name).get(1..), key.get(1..));
    }
    if let Ok(state) = kv::decode_state(Bytes::copy_from_slice(value)) {
        let again = kv::decode_state(kv::encode_state(state.revision, state.value.as_deref()));
        let again = again.expect("what was encoded");
        assert_eq!((state.revision, state.value), (again.revision, again.value));
    }
    if let Ok((_, alive, name)) = kv::decode_change(key, value) {
        assert_eq!(kv::encode_change(alive, &name).get(1..), value.get(1..));
    }
    if let Ok((_, at, name)) = kv::decode_tombstone(key, value) {
        assert_eq!(kv::encode_tombstone(at, &name), value);
    }
}

/// Bytes as any of the log store's forms: what decodes is encoded to the same again.
pub fn log_layout(bytes: &[u8]) {
    if let Ok(head) = log::decode_head(bytes) {
        let encoded = log::encode_head(&head);
        assert_eq!(bytes.get(..encoded.len()), Some(&encoded[..]));
    }
    if let Ok(id) = log::decode_grave(bytes) {
        assert_eq!(log::grave_key(id).get(1..), bytes.get(1..));
    }
    if let Ok(id) = log::decode_id(bytes) {
        assert_eq!(log::encode_id(id), bytes);
    }
    if let Ok(key) = log::decode_item_key(bytes) {
        assert_eq!(log::item_key(key), bytes);
    }
}

/// A whole backup, read as a restore does, with nothing written. Says whether it was taken.
pub fn backup(mut bytes: &[u8]) -> bool {
    let mut pending = [Ops::default(), Ops::default()];
    read_magic(&mut bytes).is_ok()
        && read_all(bytes, &mut pending, &mut |pending| {
            *pending = [Ops::default(), Ops::default()];
            Ok(())
        })
        .is_ok()
}

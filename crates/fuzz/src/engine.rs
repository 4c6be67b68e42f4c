//! What the engine reads: names, stored records, its own layout, backups.

use bytes::Bytes;
use datacentered_engine::embedded::fuzzing;
use datacentered_engine::outbox::outbox_log;
use datacentered_engine::record::{Record, is_bytes_record};
use datacentered_engine::{Bucket, Key, LogName, Prefix};

use crate::support::{fields, halves, text, with_checksum};

/// Keys, buckets, logs, prefixes: what is taken is spelled in one way only, and made of its tokens again.
pub(crate) fn names(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(key) = Key::parse(text) {
        assert_eq!(key.as_str(), text);
        assert_eq!(Key::from_tokens(key.tokens()).expect("its own tokens"), key);
        assert!(Prefix::all().matches(&key));
        let _ = outbox_log(&key);
    }
    if let Ok(log) = LogName::parse(text) {
        assert_eq!(LogName::from_tokens(log.tokens()).expect("its own tokens"), log);
    }
    if let Ok(bucket) = Bucket::parse(text) {
        assert_eq!(bucket.as_str(), text);
    }
    if let Ok(prefix) = Prefix::parse(text) {
        assert_eq!(Prefix::parse(prefix.as_str()).expect("its own form").as_str(), prefix.as_str());
    }
}

/// Records whose value is bytes.
pub(crate) fn record(bytes: &[u8]) {
    let stored = Bytes::copy_from_slice(bytes);
    let Ok(record) = Record::decode_bytes(&stored) else { return };
    assert!(is_bytes_record(&stored));
    let Ok(again) = record.encode_bytes() else { return };
    assert_eq!(Record::decode_bytes(&again).expect("what was written"), record);
}

/// What lies in the stores: a key, a zero byte and a value; and all of it as what logs hold.
pub(crate) fn layout(bytes: &[u8]) {
    // Keys hold zero bytes themselves: the first byte says how long the key is.
    if let Some((length, rest)) = bytes.split_first() {
        let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
        fuzzing::kv_layout(key, value);
    }
    let (key, value) = halves(bytes);
    fuzzing::kv_layout(key, value);
    fuzzing::log_layout(bytes);
}

/// Backups. The first byte says how: as the input is, or as frames (fields: kind, content) with right checksums and end.
pub(crate) fn backup(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    if mode % 2 == 0 {
        fuzzing::backup(rest);
        return;
    }
    let mut file = b"DCENGBK\x01".to_vec();
    let (mut frames, mut sums) = (0u64, crc32fast::Hasher::new());
    let mut add = |kind: u8, content: &[u8], sums: &mut crc32fast::Hasher| {
        let mut frame = vec![kind];
        frame.extend_from_slice(&(content.len() as u32).to_be_bytes());
        frame.extend_from_slice(content);
        let covered = frame.clone();
        frame.extend_from_slice(&[0; 4]);
        let at = covered.len();
        with_checksum(&mut frame, at, &[&covered], false);
        sums.update(&frame[at..]);
        file.extend_from_slice(&frame);
    };
    for frame in fields(rest) {
        let Some((kind, content)) = frame.split_first() else { continue };
        add(*kind, content, &mut sums);
        frames += 1;
    }
    // The number of records is not known here, so that a backup with more is one whose end does not agree.
    let end = format!(r#"{{"frames":{frames},"records":1,"sum":{}}}"#, sums.clone().finalize());
    add(b'E', end.as_bytes(), &mut sums);
    fuzzing::backup(&file);
}

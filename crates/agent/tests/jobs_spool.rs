//! The spool: what a writer keeps, and what any reader makes of it.

use datacentered_agent_lib::spool::{Item, Limits, SpoolReader, SpoolWriter, discard_acked, measure};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::GapReason;
use datacentered_proto::ops::job::WhenFull;
use proptest::prelude::*;

fn limits(spool_bytes: u64, output_bytes: u64, when_full: WhenFull) -> Limits {
    Limits { spool_bytes, output_bytes, when_full }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

/// Everything from an offset: (kind, byte) for bytes, None for missing ones.
async fn read_all(reader: &mut SpoolReader) -> Vec<Option<(Kind, u8)>> {
    let mut all = Vec::new();
    loop {
        match reader.next().await.expect("reads") {
            Item::Bytes { kind, offset, bytes } => {
                assert_eq!(offset + bytes.len() as u64, reader.offset());
                all.extend(bytes.iter().map(|byte| Some((kind, *byte))));
            }
            Item::Gap { from, to, .. } => all.extend((from..to).map(|_| None)),
            Item::Pending => return all,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any writes under any limits: every offset is told exactly once, as the byte that was written or as missing, from
    /// every beginning, during and after, and the totals are right.
    #[test]
    fn every_offset_is_told_once(
        writes in proptest::collection::vec((any::<bool>(), 1usize..40_000, any::<u8>()), 1..30),
        cap in prop_oneof![Just(u64::MAX), 1u64..300_000],
        spool in prop_oneof![Just(u64::MAX / 2), 60_000u64..200_000],
        from in 0.0f64..1.1,
        ack_every in 1usize..10,
    ) {
        let dir = tempfile::tempdir().expect("makes");
        let mut writer = SpoolWriter::new(dir.path(), limits(spool, cap, WhenFull::Discard));
        let mut follower = SpoolReader::new(dir.path(), 0);
        let mut followed = Vec::new();
        let mut expected = Vec::new();
        for (number, (err, length, byte)) in writes.iter().enumerate() {
            let kind = if *err { Kind::Stderr } else { Kind::Stdout };
            writer.append(kind, &vec![*byte; *length]);
            expected.extend(std::iter::repeat_n((kind, *byte), *length));
            followed.extend(block_on(read_all(&mut follower)));
            if number % ack_every == 0 {
                writer.ack(follower.offset());
            }
        }
        writer.finish();
        follower.complete();
        followed.extend(block_on(read_all(&mut follower)));
        let totals = writer.totals();
        prop_assert_eq!(totals.offset, expected.len() as u64);
        prop_assert_eq!(measure(dir.path()).expect("measures"), totals);
        prop_assert_eq!(followed.len(), expected.len());
        for (told, written) in followed.iter().zip(&expected) {
            prop_assert!(told.is_none_or(|told| told == *written));
        }
        let kept = followed.iter().flatten().count() as u64;
        prop_assert!(kept <= cap);
        if cap == u64::MAX && spool == u64::MAX / 2 {
            prop_assert_eq!(kept, expected.len() as u64);
        }
        // Another reader, from the middle, after segments were removed.
        let from = ((expected.len() as f64) * from) as u64;
        let mut late = SpoolReader::new(dir.path(), from);
        let told = block_on(read_all(&mut late));
        prop_assert_eq!(told.len() as u64, (expected.len() as u64).saturating_sub(from));
        for (told, written) in told.iter().zip(expected.get(from as usize..).unwrap_or_default()) {
            prop_assert!(told.is_none_or(|told| told == *written));
        }
        writer.sync().expect("syncs");
        discard_acked(dir.path(), u64::MAX).expect("discards");
        prop_assert_eq!(measure(dir.path()).expect("measures"), totals);
    }

    /// A spool cut off anywhere, as by a killed shim: what is left is read, nothing panics, nothing is made up.
    #[test]
    fn a_cut_spool_is_read_as_far_as_it_goes(length in 1usize..100_000, cut in 0.0f64..1.0) {
        let dir = tempfile::tempdir().expect("makes");
        let mut writer = SpoolWriter::new(dir.path(), limits(1 << 30, u64::MAX, WhenFull::Wait));
        for chunk in vec![7u8; length].chunks(10_000) {
            writer.append(Kind::Stdout, chunk);
        }
        for entry in std::fs::read_dir(dir.path()).expect("reads") {
            let path = entry.expect("is there").path();
            let size = std::fs::metadata(&path).expect("is there").len();
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
            file.set_len(((size as f64) * cut) as u64).expect("cuts");
        }
        let totals = measure(dir.path()).expect("measures");
        prop_assert!(totals.offset <= length as u64);
        let mut reader = SpoolReader::new(dir.path(), 0);
        reader.complete();
        let told = block_on(read_all(&mut reader));
        prop_assert_eq!(told.len() as u64, totals.offset);
        prop_assert!(told.iter().all(|told| *told == Some((Kind::Stdout, 7))));
    }
}

#[test]
fn a_removed_beginning_is_a_gap_of_retention() {
    let dir = tempfile::tempdir().expect("makes");
    let mut writer = SpoolWriter::new(dir.path(), limits(64 << 10, u64::MAX, WhenFull::Wait));
    for _ in 0..8 {
        writer.append(Kind::Stdout, &vec![1; 32 << 10]);
        writer.ack(writer.totals().offset);
        assert!(!writer.must_wait());
    }
    block_on(async {
        let mut reader = SpoolReader::new(dir.path(), 5);
        let Item::Gap { from: 5, to, reason: GapReason::Retention } = reader.next().await.expect("reads")
        else {
            panic!("a gap first");
        };
        let rest = read_all(&mut reader).await;
        assert_eq!(to + rest.len() as u64, 8 * (32 << 10));
    });
}

#[test]
fn waiting_begins_at_the_limit_and_ends_with_an_acknowledgement() {
    let dir = tempfile::tempdir().expect("makes");
    let mut writer = SpoolWriter::new(dir.path(), limits(64 << 10, u64::MAX, WhenFull::Wait));
    while !writer.must_wait() {
        writer.append(Kind::Stdout, &[1; 4 << 10]);
    }
    assert_eq!(writer.unacked(), 64 << 10);
    writer.ack(1);
    assert!(!writer.must_wait());
    writer.append(Kind::Stdout, &[1; 1]);
    assert!(writer.must_wait());
    // When the process has ended, what is in its pipes is kept all the same.
    writer.drain();
    assert!(!writer.must_wait());
    writer.append(Kind::Stdout, &vec![1; 100 << 10]);
    assert_eq!(writer.unacked(), (164 << 10));
}

#[test]
fn a_lost_end_of_a_segment_is_a_gap_before_the_next() {
    let dir = tempfile::tempdir().expect("makes");
    // Small segments: the room for all of them is divided.
    let mut writer = SpoolWriter::new(dir.path(), limits(1 << 20, u64::MAX, WhenFull::Discard));
    for _ in 0..30 {
        writer.append(Kind::Stdout, &[7; 10_000]);
    }
    writer.finish();
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("reads").map(|entry| entry.expect("entry").path()).collect();
    names.sort();
    assert!(names.len() > 2, "{names:?}");
    // A power cut left one record in the first segment.
    let first = std::fs::OpenOptions::new().write(true).open(&names[0]).expect("opens");
    first.set_len(64 + 16 + 10_000).expect("cuts");
    let name = names[1].file_name().and_then(|name| name.to_str()).expect("text");
    let second = u64::from_str_radix(&name["spool.".len()..], 16).expect("an offset");

    let mut reader = SpoolReader::new(dir.path(), 0);
    reader.complete();
    block_on(async {
        let mut gaps = Vec::new();
        loop {
            match reader.next().await.expect("reads") {
                Item::Bytes { .. } => {}
                Item::Gap { from, to, reason } => gaps.push((from, to, reason)),
                Item::Pending => break,
            }
        }
        assert_eq!(gaps, [(10_000, second, GapReason::Lost)]);
        assert_eq!(reader.offset(), 300_000);
    });
}

//! The journal under every kind of damage.

use std::path::Path;

use datacentered_agent_lib::journal::{Journal, JournalError, Opened, Record};
use datacentered_link::clock::Clock;
use datacentered_proto::ops::job::{ExecSpec, Offer};
use datacentered_proto::{JobId, Timestamp};
use proptest::prelude::*;

fn offer(number: u32, size: usize) -> Offer {
    let clock = Clock::simulated(Timestamp::EPOCH, u64::from(number));
    Offer {
        job: JobId::from_uuid(clock.uuid()),
        run: clock.run_id(),
        incarnation: "x".into(),
        by: "tester".into(),
        spec: ExecSpec::command(vec!["true".into(), "x".repeat(size).into()]),
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

/// Accepts so many jobs; returns how much of the file is in use.
fn write(dir: &Path, count: u32, size: usize) -> Vec<JobId> {
    let Opened { journal, .. } = Journal::open(dir, 64).expect("opens");
    block_on(async {
        let mut jobs = Vec::new();
        for number in 0..count {
            let offer = offer(number, size);
            jobs.push(offer.job);
            assert_eq!(journal.accept(Timestamp::EPOCH, offer).await.expect("accepts"), number);
        }
        assert_eq!((journal.high_water(), journal.syncs()), (u64::from(count), u64::from(count)));
        jobs
    })
}

fn used(dir: &Path) -> usize {
    let bytes = std::fs::read(dir.join("journal")).expect("reads");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn what_was_accepted_is_there_again_in_full() {
    let dir = tempfile::tempdir().expect("makes");
    write(dir.path(), 5, 10_000);
    let Opened { journal, entries } = Journal::open(dir.path(), 64).expect("opens");
    assert_eq!((entries.len(), journal.high_water()), (5, 5));
    for number in 0..5 {
        let wanted = offer(number, 10_000);
        let found = block_on(journal.offer(wanted.job)).expect("reads");
        assert_eq!(found, Some(wanted));
    }
}

#[test]
fn many_waiters_share_one_sync() {
    let dir = tempfile::tempdir().expect("makes");
    let Opened { journal, .. } = Journal::open(dir.path(), 64).expect("opens");
    block_on(async {
        let all = (0..50).map(|number| journal.accept(Timestamp::EPOCH, offer(number, 10)));
        let slots = futures_util::future::join_all(all).await;
        let slots: std::collections::BTreeSet<u32> =
            slots.into_iter().map(|slot| slot.expect("accepts")).collect();
        assert_eq!(slots.len(), 50);
    });
    assert!(journal.syncs() < 50, "{}", journal.syncs());
}

#[test]
fn slots_run_out_and_come_back_only_when_the_release_is_on_disk() {
    let dir = tempfile::tempdir().expect("makes");
    let Opened { journal, .. } = Journal::open(dir.path(), 2).expect("opens");
    block_on(async {
        for number in 0..2 {
            journal.accept(Timestamp::EPOCH, offer(number, 10)).await.expect("accepts");
        }
        let full = journal.accept(Timestamp::EPOCH, offer(2, 10)).await.expect_err("is full");
        assert!(matches!(full, JournalError::NoSlot { limit: 2 }), "{full}");
        journal.append(Record::Released { job: offer(1, 10).job }, false).await.expect("releases");
        let before = journal.syncs();
        assert_eq!(journal.accept(Timestamp::EPOCH, offer(2, 10)).await.expect("accepts"), 1);
        assert_eq!(journal.syncs(), before + 2, "the release first");
    });
    drop(journal);
    let Opened { entries, .. } = Journal::open(dir.path(), 2).expect("opens");
    assert_eq!(entries.len(), 2);
}

#[test]
fn compaction_keeps_what_lives_and_the_mark() {
    let dir = tempfile::tempdir().expect("makes");
    let Opened { journal, .. } = Journal::open(dir.path(), 64).expect("opens");
    let incarnation = journal.incarnation().to_owned();
    block_on(async {
        for number in 0..400 {
            let offer = offer(number, 8_000);
            let job = offer.job;
            journal.accept(Timestamp::EPOCH, offer).await.expect("accepts");
            if number % 100 != 0 {
                journal.append(Record::Released { job }, false).await.expect("releases");
            }
        }
        journal
            .append(Record::Cancel { at: Timestamp::EPOCH, job: offer(0, 0).job, by: "ann".into() }, true)
            .await
            .expect("cancels");
        for number in [0, 100, 200, 300] {
            let wanted = offer(number, 8_000);
            assert_eq!(journal.offer(wanted.job).await.expect("reads"), Some(wanted));
        }
    });
    let high_water = journal.high_water();
    assert_eq!(high_water, 400 + 396 + 1);
    drop(journal);
    let size = std::fs::metadata(dir.path().join("journal")).expect("is there").len();
    assert!(size < 2 << 20, "{size}: 3.2 MB were written");
    let Opened { journal, entries } = Journal::open(dir.path(), 64).expect("opens");
    assert_eq!((journal.incarnation(), journal.high_water()), (incarnation.as_str(), high_water));
    assert_eq!(entries.len(), 4);
    let cancelled = entries.iter().find(|entry| entry.job == offer(0, 0).job).expect("is there");
    assert_eq!(cancelled.cancel.as_ref().map(|(_, by)| by.as_str()), Some("ann"));
}

#[test]
fn a_newer_journal_is_left_alone() {
    let dir = tempfile::tempdir().expect("makes");
    write(dir.path(), 1, 10);
    let path = dir.path().join("journal");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[..8].copy_from_slice(b"DCJRNL02");
    std::fs::write(&path, bytes).expect("writes");
    let error = Journal::open(dir.path(), 64).expect_err("is newer");
    assert!(matches!(error, JournalError::Newer { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is cut off or was only half written at the end: what stands before is there, nothing panics.
    #[test]
    fn a_torn_end_is_cut(count in 1u32..6, size in 1usize..3000, keep in 0.0f64..1.0, noise in proptest::collection::vec(any::<u8>(), 0..64)) {
        let dir = tempfile::tempdir().expect("makes");
        let jobs = write(dir.path(), count, size);
        let path = dir.path().join("journal");
        let mut bytes = std::fs::read(&path).expect("reads");
        let used = used(dir.path());
        let record = (used - 64) / count as usize;
        // The last record torn: cut anywhere inside it, with noise where the disk had got no further.
        let begin = used - record + 8;
        let cut = begin + (((used - begin) as f64) * keep) as usize;
        bytes[cut..used].fill(0);
        for (place, byte) in bytes[cut..used].iter_mut().zip(&noise) {
            *place = *byte;
        }
        let whole = std::fs::read(&path).expect("reads") == bytes;
        std::fs::write(&path, &bytes).expect("writes");
        let Opened { journal, entries } = Journal::open(dir.path(), 64).expect("opens");
        let left = if whole { count } else { count - 1 };
        prop_assert_eq!(journal.high_water(), u64::from(left));
        prop_assert!(entries.iter().all(|entry| jobs[..left as usize].contains(&entry.job)));
        prop_assert_eq!(entries.len(), left as usize);
        // It goes on from there.
        block_on(journal.accept(Timestamp::EPOCH, offer(99, 5))).expect("accepts");
        drop(journal);
        let Opened { entries, .. } = Journal::open(dir.path(), 64).expect("opens");
        prop_assert_eq!(entries.len(), left as usize + 1);
    }

    /// A flipped byte before the last record is damage and said to be; never is anything made up.
    #[test]
    fn damage_in_the_middle_is_told(count in 2u32..6, size in 1usize..2000, at in 0.0f64..1.0, flip in 1u8..) {
        let dir = tempfile::tempdir().expect("makes");
        write(dir.path(), count, size);
        let path = dir.path().join("journal");
        let mut bytes = std::fs::read(&path).expect("reads");
        let used = used(dir.path());
        let record = (used - 64) / count as usize;
        let target = 64 + (((used - record - 64 - 16) as f64) * at) as usize;
        bytes[target] ^= flip;
        std::fs::write(&path, &bytes).expect("writes");
        match Journal::open(dir.path(), 64) {
            Err(JournalError::Damaged { .. }) => {}
            // Bytes that pad a record to its alignment mean nothing.
            Ok(opened) => prop_assert_eq!(opened.entries.len(), count as usize),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// Anything at all in the file: an error or a journal, no panic.
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4096), header: bool) {
        let dir = tempfile::tempdir().expect("makes");
        let path = dir.path().join("journal");
        let mut file = Vec::new();
        if header {
            write(dir.path(), 1, 10);
            file = std::fs::read(&path).expect("reads")[..64].to_vec();
        }
        file.extend_from_slice(&bytes);
        std::fs::write(&path, file).expect("writes");
        let _ = Journal::open(dir.path(), 64).map(|opened| opened.entries.len());
    }
}

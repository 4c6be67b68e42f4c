//! Buckets: batches, checks, revisions, limits.

use std::collections::HashSet;

use super::{bucket, key};
use crate::engine::Engine;
use crate::error::Error;
use crate::key::Bucket;
use crate::kv::{Batch, Durability, Entry, Expect, MAX_BATCH, MAX_VALUE, WatchFrom};

async fn open(engine: &Engine, durability: Durability) -> Bucket {
    let bucket = bucket("kv");
    engine.kv().open_bucket(&bucket, durability).await.expect("open");
    bucket
}

async fn get(engine: &Engine, bucket: &Bucket, name: &str) -> Option<Entry> {
    engine.kv().get(bucket, &key(name)).await.expect("get")
}

pub(super) async fn batches_are_atomic(engine: &Engine) {
    let bucket = open(engine, Durability::Always).await;
    let kv = engine.kv();
    let both = Batch::new().put(key("a"), "1").put(key("b"), "2");
    let committed = kv.commit(&bucket, both).await.expect("commit");
    let a = get(engine, &bucket, "a").await.expect("a is there");
    assert_eq!((a.revision, &a.value[..]), (committed.revisions[0], &b"1"[..]));

    // The second check fails: nothing of the batch happens.
    let refused = Batch::new()
        .check(key("a"), Expect::Revision(a.revision))
        .check(key("b"), Expect::Absent)
        .put(key("a"), "9")
        .put(key("c"), "9")
        .delete(key("b"));
    assert!(matches!(kv.commit(&bucket, refused).await, Err(Error::Conflict { .. })));
    assert_eq!(get(engine, &bucket, "a").await.expect("a").value, "1");
    assert_eq!(get(engine, &bucket, "b").await.expect("b").value, "2");
    assert!(get(engine, &bucket, "c").await.is_none());

    // Checks alone, holding and failing.
    let fine = Batch::new().check(key("a"), Expect::Exists).check(key("c"), Expect::Absent);
    assert!(kv.commit(&bucket, fine).await.expect("checks").revisions.is_empty());
    let wrong = Batch::new().check(key("c"), Expect::Exists);
    assert!(matches!(kv.commit(&bucket, wrong).await, Err(Error::Conflict { current: None, .. })));
    assert!(kv.commit(&bucket, Batch::new()).await.expect("nothing").revisions.is_empty());

    // Deleting, also what is not there, is a write.
    let gone = kv.commit(&bucket, Batch::new().delete(key("a")).delete(key("never"))).await.expect("delete");
    assert_eq!(gone.revisions.len(), 2);
    assert!(get(engine, &bucket, "a").await.is_none());
    kv.commit(&bucket, Batch::new().check(key("a"), Expect::Absent).put(key("a"), "new"))
        .await
        .expect("again");
}

pub(super) async fn conflicts_carry_what_is_there(engine: &Engine) {
    let bucket = open(engine, Durability::Always).await;
    let first = engine.kv().commit(&bucket, Batch::new().put(key("a"), "1")).await.expect("put");
    for expect in [Expect::Absent, Expect::Revision(first.revisions[0] + 1)] {
        let batch = Batch::new().check(key("a"), expect).put(key("a"), "2");
        match engine.kv().commit(&bucket, batch).await {
            Err(Error::Conflict { key: at, current: Some(entry) }) => {
                assert_eq!(at, key("a"));
                assert_eq!((entry.revision, &entry.value[..]), (first.revisions[0], &b"1"[..]));
            }
            other => panic!("expected a conflict with the current entry, got {other:?}"),
        }
    }
    engine.kv().commit(&bucket, Batch::new().delete(key("a"))).await.expect("delete");
    let stale = Batch::new().check(key("a"), Expect::Revision(first.revisions[0])).put(key("a"), "2");
    assert!(matches!(engine.kv().commit(&bucket, stale).await, Err(Error::Conflict { current: None, .. })));
}

pub(super) async fn revisions_ascend(engine: &Engine) {
    let bucket = open(engine, Durability::Interval).await;
    let mut last = 0;
    for round in 0..50 {
        let mut batch = Batch::new();
        for n in (0..=round % 7).rev() {
            batch = if n % 3 == 2 {
                batch.delete(key(&format!("k{n}")))
            } else {
                batch.put(key(&format!("k{n}")), "v")
            };
        }
        let writes = batch.writes().len();
        let committed = engine.kv().commit(&bucket, batch).await.expect("commit");
        assert_eq!(committed.revisions.len(), writes);
        for revision in committed.revisions {
            assert!(revision > last && revision < crate::kv::MAX_REVISION, "{revision} after {last}");
            last = revision;
        }
    }
}

pub(super) async fn limits(engine: &Engine) {
    let bucket = open(engine, Durability::Interval).await;
    let kv = engine.kv();
    let full = (0..MAX_BATCH).fold(Batch::new(), |batch, n| batch.put(key(&format!("k{n}")), "v"));
    assert_eq!(kv.commit(&bucket, full.clone()).await.expect("full batch").revisions.len(), MAX_BATCH);
    assert!(matches!(kv.commit(&bucket, full.delete(key("x"))).await, Err(Error::TooLarge { .. })));
    kv.commit(&bucket, Batch::new().put(key("big"), vec![7; MAX_VALUE])).await.expect("largest value");
    assert_eq!(get(engine, &bucket, "big").await.expect("big").value.len(), MAX_VALUE);
    let over = Batch::new().put(key("big"), vec![7; MAX_VALUE + 1]);
    assert!(matches!(kv.commit(&bucket, over).await, Err(Error::TooLarge { .. })));
    let twice = Batch::new().put(key("a"), "1").put(key("a"), "2");
    assert!(matches!(kv.commit(&bucket, twice).await, Err(Error::Invalid { .. })));
    kv.commit(&bucket, Batch::new().put(key("empty"), "")).await.expect("empty value");
    assert_eq!(get(engine, &bucket, "empty").await.expect("there").value.len(), 0);
    let longest = key(&"k".repeat(crate::key::MAX_KEY));
    kv.commit(&bucket, Batch::new().put(longest.clone(), "1")).await.expect("longest key");
    assert!(kv.get(&bucket, &longest).await.expect("get").is_some());
}

pub(super) async fn buckets_are_apart(engine: &Engine) {
    let (one, two) = (bucket("one"), bucket("ns/two.x"));
    let kv = engine.kv();
    assert!(matches!(kv.get(&one, &key("a")).await, Err(Error::NotFound { .. })));
    assert!(matches!(kv.commit(&one, Batch::new().put(key("a"), "1")).await, Err(Error::NotFound { .. })));
    for bucket in [&one, &two] {
        kv.open_bucket(bucket, Durability::Always).await.expect("open");
        kv.open_bucket(bucket, Durability::Always).await.expect("open again");
    }
    kv.commit(&one, Batch::new().put(key("a"), "1")).await.expect("commit");
    assert!(kv.get(&two, &key("a")).await.expect("get").is_none());
    kv.commit(&two, Batch::new().check(key("a"), Expect::Absent).put(key("a"), "2")).await.expect("commit");
    assert_eq!(get(engine, &one, "a").await.expect("a").value, "1");
    let epoch = kv.bucket_epoch(&one).await.expect("epoch");
    assert!(
        (1..=32).contains(&epoch.len())
            && epoch.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    );
    assert!((1..=32).contains(&engine.epoch().len()));
}

/// Many compare-and-set counters at once: every increment counts, and no revision is given twice.
pub(super) async fn concurrent_writers_lose_nothing(engine: &Engine) {
    const WRITERS: usize = 8;
    const EACH: u64 = 25;
    let bucket = open(engine, Durability::Always).await;
    engine.kv().commit(&bucket, Batch::new().put(key("n"), "0")).await.expect("put");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (engine, bucket) = (engine.clone(), bucket.clone());
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for _ in 0..EACH {
                let mut entry = get(&engine, &bucket, "n").await.expect("n");
                loop {
                    let now: u64 = std::str::from_utf8(&entry.value).expect("text").parse().expect("number");
                    let batch = Batch::new()
                        .check(key("n"), Expect::Revision(entry.revision))
                        .put(key("n"), (now + 1).to_string());
                    match engine.kv().commit(&bucket, batch).await {
                        Ok(committed) => break revisions.extend(committed.revisions),
                        Err(Error::Conflict { current: Some(current), .. }) => entry = current,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            revisions
        });
    }
    let revisions = tasks.join_all().await.concat();
    assert_eq!(revisions.iter().collect::<HashSet<_>>().len(), revisions.len());
    let total = WRITERS as u64 * EACH;
    assert_eq!(get(engine, &bucket, "n").await.expect("n").value, total.to_string());
}

pub(super) async fn every_durability(engine: &Engine) {
    for durability in [Durability::Memory, Durability::Interval, Durability::Always] {
        let bucket = bucket(&format!("{durability:?}"));
        let kv = engine.kv();
        kv.open_bucket(&bucket, durability).await.expect("open");
        let committed =
            kv.commit(&bucket, Batch::new().put(key("a"), "1").delete(key("b"))).await.expect("commit");
        assert!(committed.revisions[0] < committed.revisions[1]);
        assert_eq!(get(engine, &bucket, "a").await.expect("a").revision, committed.revisions[0]);
        let conflict = Batch::new().check(key("a"), Expect::Absent).delete(key("a"));
        assert!(matches!(kv.commit(&bucket, conflict).await, Err(Error::Conflict { .. })));
        let mut watch = kv.watch(&bucket, crate::Prefix::all(), WatchFrom::Start).await.expect("watch");
        let batch = super::next(&mut watch).await;
        assert!(batch.caught_up && batch.revision >= committed.revisions[1]);
        assert_eq!(batch.changes.iter().filter(|change| change.value.is_some()).count(), 1);
    }
}

/// Whoever has seen one key of a batch sees the others too.
pub(super) async fn reads_see_batches_whole(engine: &Engine) {
    const COMMITS: u64 = 150;
    let bucket = open(engine, Durability::Interval).await;
    let writer = tokio::spawn({
        let (engine, bucket) = (engine.clone(), bucket.clone());
        async move {
            for n in 1..=COMMITS {
                // The one that is read last is written last.
                let batch =
                    (0..20).fold(Batch::new(), |batch, k| batch.put(key(&format!("k{k:02}")), n.to_string()));
                engine.kv().commit(&bucket, batch).await.expect("commit");
            }
        }
    });
    let number = |entry: Option<Entry>| {
        entry.map_or(0, |entry| {
            std::str::from_utf8(&entry.value).expect("text").parse::<u64>().expect("number")
        })
    };
    loop {
        let first = number(get(engine, &bucket, "k00").await);
        let second = number(get(engine, &bucket, "k19").await);
        assert!(second >= first, "a read after {first} saw {second}");
        if first == COMMITS {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("writer");
}

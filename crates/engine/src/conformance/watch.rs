//! Watches: what is seen, in which order, and what is coalesced.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{PATIENCE, bucket, key, next};
use crate::engine::Engine;
use crate::error::Error;
use crate::key::{Bucket, Key, Prefix};
use crate::kv::{Batch, Durability, Watch, WatchBatch, WatchFrom};

async fn open(engine: &Engine) -> Bucket {
    let bucket = bucket("watched");
    engine.kv().open_bucket(&bucket, Durability::Interval).await.expect("open");
    bucket
}

async fn watch(engine: &Engine, bucket: &Bucket, prefix: &str, from: WatchFrom) -> Watch {
    let prefix = Prefix::parse(prefix).expect("prefix");
    engine.kv().watch(bucket, prefix, from).await.expect("watch")
}

async fn commit(engine: &Engine, bucket: &Bucket, batch: Batch) -> Vec<u64> {
    engine.kv().commit(bucket, batch).await.expect("commit").revisions
}

fn names(batch: &WatchBatch) -> Vec<&str> {
    batch.changes.iter().map(|change| change.key.as_str()).collect()
}

/// What a watcher holds.
#[derive(Default)]
struct View {
    entries: BTreeMap<Key, (u64, Bytes)>,
    last: u64,
}

impl View {
    fn apply(&mut self, batch: &WatchBatch) {
        for change in &batch.changes {
            assert!(change.revision > self.last, "changes come in revision order");
            self.last = change.revision;
            match &change.value {
                Some(value) => {
                    self.entries.insert(change.key.clone(), (change.revision, value.clone()));
                }
                None => {
                    self.entries.remove(&change.key);
                }
            }
        }
    }

    /// Reads until the view stands at `revision` or later.
    async fn reach(&mut self, watch: &mut Watch, revision: u64) {
        loop {
            let batch = next(watch).await;
            self.apply(&batch);
            if batch.caught_up && batch.revision >= revision {
                return;
            }
        }
    }
}

pub(super) async fn start_after_now(engine: &Engine) {
    let bucket = open(engine).await;
    let mut empty = watch(engine, &bucket, "", WatchFrom::Start).await;
    let first = next(&mut empty).await;
    assert!(first.changes.is_empty() && first.caught_up, "an empty bucket is caught up with at once");

    let one = commit(engine, &bucket, Batch::new().put(key("b"), "1").put(key("a"), "1")).await;
    assert_eq!(names(&next(&mut empty).await), ["b", "a"]);
    let two = commit(engine, &bucket, Batch::new().put(key("b"), "2")).await;

    let mut start = watch(engine, &bucket, "", WatchFrom::Start).await;
    let batch = next(&mut start).await;
    assert_eq!(names(&batch), ["a", "b"], "all current entries in revision order");
    assert!(batch.caught_up && batch.revision >= two[0]);

    let mut after = watch(engine, &bucket, "", WatchFrom::After(one[1])).await;
    let batch = next(&mut after).await;
    assert_eq!(names(&batch), ["b"]);
    assert_eq!(batch.changes[0].value.as_deref(), Some(&b"2"[..]));
    let mut current = watch(engine, &bucket, "", WatchFrom::After(batch.revision)).await;
    assert!(next(&mut current).await.changes.is_empty());

    let mut now = watch(engine, &bucket, "", WatchFrom::Now).await;
    let batch = next(&mut now).await;
    assert!(batch.changes.is_empty() && batch.caught_up && batch.revision >= two[0]);
    commit(engine, &bucket, Batch::new().put(key("c"), "1")).await;
    for watch in [&mut start, &mut after, &mut current, &mut now] {
        assert_eq!(names(&next(watch).await), ["c"]);
    }
}

pub(super) async fn batches_are_seen_whole(engine: &Engine) {
    const COMMITS: u64 = 200;
    let bucket = open(engine).await;
    let writer = tokio::spawn({
        let (engine, bucket) = (engine.clone(), bucket.clone());
        async move {
            let mut last = 0;
            for n in 0..COMMITS {
                let value = n.to_string();
                let batch =
                    ["x", "y", "z"].iter().fold(Batch::new(), |b, name| b.put(key(name), value.clone()));
                last = commit(&engine, &bucket, batch).await[2];
            }
            last
        }
    });
    let mut watch = watch(engine, &bucket, "", WatchFrom::Start).await;
    let mut view = View::default();
    loop {
        let batch = next(&mut watch).await;
        view.apply(&batch);
        if batch.caught_up {
            let values: Vec<_> = view.entries.values().map(|(_, value)| value.clone()).collect();
            assert!(values.is_empty() || values.len() == 3, "a batch was torn");
            assert!(values.windows(2).all(|two| two[0] == two[1]), "a batch was torn: {values:?}");
        }
        if view.entries.get(&key("z")).is_some_and(|(_, value)| *value == (COMMITS - 1).to_string()) {
            break;
        }
    }
    let last = writer.await.expect("writer");
    assert_eq!(view.last, last);
}

pub(super) async fn deletions_are_told(engine: &Engine) {
    let bucket = open(engine).await;
    let before = commit(engine, &bucket, Batch::new().put(key("a"), "1").put(key("b"), "1")).await[1];
    let gone = commit(engine, &bucket, Batch::new().delete(key("a"))).await[0];
    let mut after = watch(engine, &bucket, "", WatchFrom::After(before)).await;
    let batch = next(&mut after).await;
    assert_eq!(names(&batch), ["a"]);
    assert!(batch.changes[0].value.is_none() && batch.changes[0].revision == gone);
    // Written again, deleted again: at least the last state.
    commit(engine, &bucket, Batch::new().put(key("a"), "2")).await;
    let last = commit(engine, &bucket, Batch::new().delete(key("a"))).await[0];
    let mut late = watch(engine, &bucket, "", WatchFrom::After(before)).await;
    let batch = next(&mut late).await;
    assert_eq!(
        batch.changes.last().map(|change| (change.revision, change.value.is_none())),
        Some((last, true))
    );
    let mut start = watch(engine, &bucket, "", WatchFrom::Start).await;
    let held: Vec<_> = next(&mut start).await.changes.into_iter().filter(|c| c.value.is_some()).collect();
    assert_eq!(held.len(), 1, "only `b` is there");
}

/// A watcher that does not read never delays the writer, and ends with the right view.
pub(super) async fn slow_watchers_coalesce(engine: &Engine) {
    const KEYS: u64 = 40;
    const COMMITS: u64 = 600;
    let bucket = open(engine).await;
    let mut slow = watch(engine, &bucket, "", WatchFrom::Start).await;
    let mut view = View::default();
    view.apply(&next(&mut slow).await);
    let mut model = BTreeMap::new();
    let mut last = 0;
    for n in 0..COMMITS {
        let name = key(&format!("k{}", n % KEYS));
        if n % 11 == 3 {
            last = commit(engine, &bucket, Batch::new().delete(name.clone())).await[0];
            model.remove(&name);
        } else {
            let value = Bytes::from(vec![n as u8; 16 * 1024]);
            last = commit(engine, &bucket, Batch::new().put(name.clone(), value.clone())).await[0];
            model.insert(name, (last, value));
        }
    }
    view.reach(&mut slow, last).await;
    assert!(view.entries == model, "the coalesced view differs from what was written");
}

pub(super) async fn many_entries_in_revision_order(engine: &Engine) {
    const ENTRIES: u64 = 10_000;
    let bucket = open(engine).await;
    let mut last = 0;
    let mut pending = Batch::new();
    for n in 0..ENTRIES {
        // Names in another order than revisions.
        pending = pending.put(key(&format!("e.{}", n.wrapping_mul(7919) % ENTRIES)), n.to_string());
        if pending.len() == crate::kv::MAX_BATCH || n + 1 == ENTRIES {
            last = *commit(engine, &bucket, std::mem::take(&mut pending)).await.last().expect("revisions");
        }
    }
    for prefix in ["", "e"] {
        let mut watch = watch(engine, &bucket, prefix, WatchFrom::Start).await;
        let mut view = View::default();
        view.reach(&mut watch, last).await;
        assert_eq!(view.entries.len() as u64, ENTRIES);
    }
    // Changes while a large bucket is listed belong to the view in the end.
    let mut watch = watch(engine, &bucket, "", WatchFrom::Start).await;
    let mut view = View::default();
    view.apply(&next(&mut watch).await);
    let late = commit(
        engine,
        &bucket,
        Batch::new().delete(key("e.0")).put(key("e.1"), "late").put(key("f"), "late"),
    )
    .await;
    view.reach(&mut watch, late[2]).await;
    assert_eq!(view.entries.len() as u64, ENTRIES);
    assert!(!view.entries.contains_key(&key("e.0")));
    assert_eq!(view.entries[&key("e.1")].1, "late");
}

pub(super) async fn prefixes(engine: &Engine) {
    let bucket = open(engine).await;
    let mut hosts = watch(engine, &bucket, "host", WatchFrom::Start).await;
    next(&mut hosts).await;
    let all = Batch::new()
        .put(key("host.a"), "1")
        .put(key("hosts.b"), "1")
        .put(key("host"), "1")
        .put(key("host.c.d"), "1");
    commit(engine, &bucket, all).await;
    assert_eq!(names(&next(&mut hosts).await), ["host.a", "host.c.d"]);
    commit(engine, &bucket, Batch::new().put(key("job.a"), "1")).await;
    commit(engine, &bucket, Batch::new().put(key("host.z"), "1")).await;
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = next(&mut hosts).await.changes;
    }
    assert_eq!(seen[0].key, key("host.z"));
    let mut again = watch(engine, &bucket, "host", WatchFrom::Start).await;
    assert_eq!(names(&next(&mut again).await), ["host.a", "host.c.d", "host.z"]);
    let mut deeper = watch(engine, &bucket, "host.c", WatchFrom::Start).await;
    assert_eq!(names(&next(&mut deeper).await), ["host.c.d"]);
}

pub(super) async fn gaps(engine: &Engine) {
    let bucket = open(engine).await;
    let last = commit(engine, &bucket, Batch::new().put(key("a"), "1")).await[0];
    let future = WatchFrom::After(last + 1_000_000_000_000);
    let opened = engine.kv().watch(&bucket, Prefix::all(), future).await;
    let told = match opened {
        Err(error) => error,
        Ok(mut watch) => {
            tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect_err("a gap")
        }
    };
    assert!(matches!(told, Error::Gap { .. }), "a revision never reached is a gap, not {told:?}");
}

//! Backups are taken while the engine works, show one moment, and come back under a new epoch.

use std::collections::BTreeMap;

use bytes::Bytes;
use datacentered_engine::embedded::{RESTORE_JUMP, backup, restore};
use datacentered_engine::outbox::{Mover, drain, outbox_key};
use datacentered_engine::{
    Append, Batch, Bucket, Durability, Embedded, EmbeddedConfig, Engine, Error, Key, LogName, Position,
    Prefix, WatchFrom,
};
use tokio_util::sync::CancellationToken;

fn key(stored: &str) -> Key {
    Key::parse(stored).expect("key")
}

fn bucket() -> Bucket {
    Bucket::new("control").expect("bucket")
}

fn log(stored: &str) -> LogName {
    LogName::parse(stored).expect("log")
}

async fn open(dir: &std::path::Path) -> Engine {
    let engine = Embedded::open(dir, EmbeddedConfig::default()).expect("open");
    engine.kv().open_bucket(&bucket(), Durability::Always).await.expect("bucket");
    engine
}

/// Writes `n` in two keys and an event, and output, until it is told to stop.
async fn write(engine: Engine, stop: CancellationToken) -> u64 {
    let mut n = 0;
    while !stop.is_cancelled() {
        n += 1;
        let text = n.to_string();
        let event = outbox_key(&log("events"), &text).expect("key");
        let batch = Batch::new().put(key("a"), text.clone()).put(key("b"), text.clone()).put(event, text);
        engine.kv().commit(&bucket(), batch).await.expect("commit");
        let output = Append { position: Position::End, span: 5000, payload: vec![n as u8; 5000].into() };
        engine.log().append(&log("output.x"), vec![output], Durability::Interval).await.expect("append");
    }
    n
}

async fn number(engine: &Engine, name: &str) -> u64 {
    let entry = engine.kv().get(&bucket(), &key(name)).await.expect("get").expect("there");
    std::str::from_utf8(&entry.value).expect("text").parse().expect("number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = open(dir.path()).await;
    let (epoch, stop) = (engine.epoch().to_owned(), CancellationToken::new());
    let mover = Mover::start(engine.clone(), bucket(), None);
    let writer = tokio::spawn(write(engine.clone(), stop.clone()));
    let mut last = Vec::new();
    let extra = vec![("ca.pem".to_owned(), Bytes::from_static(b"a key")), ("empty".to_owned(), Bytes::new())];
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        last = Vec::new();
        backup(&engine, extra.clone(), &mut last).await.expect("backup");
    }
    stop.cancel();
    let written = writer.await.expect("writer");
    mover.stop().await;
    let highest =
        engine.kv().commit(&bucket(), Batch::new().put(key("z"), "1")).await.expect("commit").revisions[0];
    engine.shutdown().await;

    let target = tempfile::tempdir().expect("dir");
    let target = target.path().join("new");
    let restored = restore(&last[..], &target).expect("restore");
    assert_eq!((restored.backup_epoch, restored.extra), (epoch.clone(), extra));
    assert_ne!(restored.epoch, epoch);

    let engine = open(&target).await;
    assert_eq!(engine.epoch(), restored.epoch);
    let n = number(&engine, "a").await;
    assert!(n > 1 && n <= written);
    assert_eq!(number(&engine, "b").await, n, "a batch is torn");
    // Buckets and logs show one moment: every event is in the outbox, or in the log, or in both, and moves once.
    drain(&engine, &bucket()).await.expect("drain");
    let mut events = Vec::new();
    while (events.len() as u64) < n {
        let page = engine.log().read(&log("events"), events.len() as u64, 1 << 20).await.expect("read");
        assert!(!page.items.is_empty(), "event {} is missing", events.len() + 1);
        events.extend(page.items);
    }
    assert_eq!(engine.log().state(&log("events")).await.expect("state").expect("there").end, n);
    assert!(events.iter().zip(1u64..).all(|(item, n)| item.payload == n.to_string()));
    let output = engine.log().state(&log("output.x")).await.expect("state").expect("there");
    assert!(output.end / 5000 == n || output.end / 5000 + 1 == n, "the output is of another moment");

    let after =
        engine.kv().commit(&bucket(), Batch::new().put(key("z"), "2")).await.expect("commit").revisions[0];
    assert!(after > highest + RESTORE_JUMP / 2, "{after} is not far above {highest}");
    let mut watch = engine.kv().watch(&bucket(), Prefix::all(), WatchFrom::Start).await.expect("watch");
    let entries: BTreeMap<_, _> = watch
        .next()
        .await
        .expect("entries")
        .changes
        .into_iter()
        .map(|c| (c.key.to_string(), c.value))
        .collect();
    assert!(entries.contains_key("a") && entries.contains_key("z"));
    engine.shutdown().await;
}

#[tokio::test]
async fn what_is_altered_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = open(&dir.path().join("source")).await;
    for n in 0..20 {
        let batch = Batch::new().put(key(&format!("k{n}")), vec![n; 100]);
        engine.kv().commit(&bucket(), batch).await.expect("commit");
    }
    let mut good = Vec::new();
    backup(&engine, Vec::new(), &mut good).await.expect("backup");
    let large = vec![("x".to_owned(), Bytes::from(vec![0; 17 << 20]))];
    assert!(matches!(backup(&engine, large, &mut Vec::new()).await, Err(Error::TooLarge { .. })));
    engine.shutdown().await;
    assert!(matches!(backup(&engine, Vec::new(), &mut Vec::new()).await, Err(Error::Closed)));

    let mut targets = 0;
    let mut attempt = |content: &[u8]| {
        targets += 1;
        let target = dir.path().join(format!("target-{targets}"));
        (restore(content, &target), target)
    };
    for cut in [8, 20, good.len() / 2, good.len() - 1] {
        let (result, target) = attempt(&good[..cut]);
        assert!(matches!(result, Err(Error::Damaged { .. })), "cut at {cut}");
        // What is not whole does not open, and is not restored over.
        assert!(matches!(Embedded::open(&target, EmbeddedConfig::default()), Err(Error::Damaged { .. })));
        assert!(matches!(restore(&good[..], &target), Err(Error::Invalid { .. })));
    }
    for at in (8..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(attempt(&bad).0.is_err(), "altered at {at}");
    }
    let mut newer = good.clone();
    newer[7] = 2;
    assert!(matches!(attempt(&newer).0, Err(Error::NewerVersion { .. })));
    assert!(matches!(attempt(b"something else entirely").0, Err(Error::Invalid { .. })));
    attempt(&good).0.expect("the good one");
}

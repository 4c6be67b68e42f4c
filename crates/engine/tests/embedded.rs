//! What the embedded engine promises beyond the suite: restarts, refusals, syncs, space.

use std::path::Path;
use std::time::{Duration, Instant};

use datacentered_engine::{
    Append, Batch, Bucket, Durability, Embedded, EmbeddedConfig, Engine, Error, Expect, Key, LogName,
    Position, Prefix, WatchFrom,
};

fn key(stored: &str) -> Key {
    Key::parse(stored).expect("key")
}

fn bucket() -> Bucket {
    Bucket::new("control").expect("bucket")
}

fn log() -> LogName {
    LogName::parse("events").expect("log")
}

fn item(payload: Vec<u8>) -> Append {
    Append { position: Position::End, span: payload.len() as u64, payload: payload.into() }
}

fn open_with(dir: &Path, config: EmbeddedConfig) -> Engine {
    Embedded::open(dir, config).expect("open")
}

async fn open(dir: &Path, durability: Durability) -> Engine {
    let engine = open_with(dir, EmbeddedConfig::default());
    engine.kv().open_bucket(&bucket(), durability).await.expect("bucket");
    engine
}

async fn put(engine: &Engine, name: &str, value: &str) -> u64 {
    let batch = Batch::new().put(key(name), value.to_owned());
    engine.kv().commit(&bucket(), batch).await.expect("commit").revisions[0]
}

/// Waits until `condition` holds.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_restart_keeps_everything_and_revisions_go_on() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = open(dir.path(), Durability::Interval).await;
    let epoch = engine.epoch().to_owned();
    let first = put(&engine, "a", "1").await;
    let gone = put(&engine, "b", "1").await;
    let deleted =
        engine.kv().commit(&bucket(), Batch::new().delete(key("b"))).await.expect("delete").revisions[0];
    engine.log().append(&log(), vec![item(vec![7; 10])], Durability::Interval).await.expect("append");
    let memory = Bucket::new("memory").expect("bucket");
    engine.kv().open_bucket(&memory, Durability::Memory).await.expect("bucket");
    let volatile = Batch::new().put(key("m"), "1");
    let before = engine.kv().commit(&memory, volatile).await.expect("commit").revisions[0];
    let memory_epoch = engine.kv().bucket_epoch(&memory).await.expect("epoch");
    engine.shutdown().await;
    engine.shutdown().await;

    let engine = open(dir.path(), Durability::Interval).await;
    assert_eq!(engine.epoch(), epoch);
    let entry = engine.kv().get(&bucket(), &key("a")).await.expect("get").expect("a");
    assert_eq!((entry.revision, &entry.value[..]), (first, &b"1"[..]));
    assert!(put(&engine, "c", "1").await > deleted);
    // A watcher from before the restart goes on.
    let mut watch = engine.kv().watch(&bucket(), Prefix::all(), WatchFrom::After(gone)).await.expect("watch");
    let changes = watch.next().await.expect("changes").changes;
    assert_eq!(changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert!(changes[0].value.is_none());
    assert_eq!(engine.log().state(&log()).await.expect("state").expect("there").end, 10);
    // A bucket in memory is another one.
    assert!(matches!(engine.kv().get(&memory, &key("m")).await, Err(Error::NotFound { .. })));
    engine.kv().open_bucket(&memory, Durability::Memory).await.expect("bucket");
    assert_ne!(engine.kv().bucket_epoch(&memory).await.expect("epoch"), memory_epoch);
    let stale = engine.kv().watch(&memory, Prefix::all(), WatchFrom::After(before)).await;
    assert!(matches!(stale, Err(Error::Gap { .. })));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_dropped_engine_lets_go_of_its_directory() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = open(dir.path(), Durability::Interval).await;
    put(&engine, "a", "1").await;
    drop(engine);
    let mut again = None;
    eventually("the directory stays locked", async || {
        again = Embedded::open(dir.path(), EmbeddedConfig::default()).ok();
        again.is_some()
    })
    .await;
    let engine = again.expect("opened");
    assert!(engine.kv().get(&bucket(), &key("a")).await.expect("get").is_some());
    engine.shutdown().await;
}

#[tokio::test]
async fn one_directory_one_engine() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = open(dir.path(), Durability::Always).await;
    let error = Embedded::open(dir.path(), EmbeddedConfig::default()).expect_err("busy");
    assert!(matches!(&error, Error::Busy { dir: busy } if busy == dir.path()));
    assert!(error.to_string().contains("in use by another process"), "{error}");
    engine.shutdown().await;
    open(dir.path(), Durability::Always).await.shutdown().await;
}

#[tokio::test]
async fn newer_data_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    open(dir.path(), Durability::Always).await.shutdown().await;
    std::fs::write(dir.path().join("VERSION"), r#"{"format":2}"#).expect("write");
    let error = Embedded::open(dir.path(), EmbeddedConfig::default()).expect_err("newer");
    assert!(matches!(error, Error::NewerVersion { found: 2, supported: 1, .. }));
}

/// Whatever is altered, opening or reading says so; nothing panics and nothing wrong is returned.
#[tokio::test]
async fn damage_is_told() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = open(dir.path(), Durability::Always).await;
    for n in 0..200 {
        put(&engine, &format!("k{n}"), &"v".repeat(500)).await;
    }
    engine.shutdown().await;
    let journal = std::fs::read_dir(dir.path().join("kv"))
        .expect("store")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .expect("a journal");
    let mut content = std::fs::read(&journal).expect("journal");
    let middle = content.windows(50).position(|window| window == [b'v'; 50]).expect("a value");
    content[middle + 20] ^= 1;
    std::fs::write(&journal, content).expect("write");
    let error = Embedded::open(dir.path(), EmbeddedConfig::default()).expect_err("damaged");
    assert!(matches!(&error, Error::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("restore a backup"), "{error}");

    std::fs::remove_dir_all(dir.path().join("log")).expect("remove");
    assert!(matches!(Embedded::open(dir.path(), EmbeddedConfig::default()), Err(Error::Damaged { .. })));
}

/// An `Always` commit is one sync, `Interval` ones wait for the interval's, and a group shares one.
#[tokio::test]
async fn syncs_are_counted() {
    let dir = tempfile::tempdir().expect("dir");
    let config = EmbeddedConfig { sync_interval_ms: 10_000, ..EmbeddedConfig::default() };
    let engine = open_with(dir.path(), config);
    engine.kv().open_bucket(&bucket(), Durability::Always).await.expect("bucket");
    let before = engine.stats();
    for n in 0..20 {
        put(&engine, "a", &n.to_string()).await;
    }
    let after = engine.stats();
    assert_eq!(after.kv_syncs - before.kv_syncs, 20);
    assert_eq!(after.kv_commits - before.kv_commits, 20);

    let many = (0..64).map(|n| {
        let engine = engine.clone();
        tokio::spawn(async move { put(&engine, &format!("k{n}"), "1").await })
    });
    for task in many.collect::<Vec<_>>() {
        task.await.expect("commit");
    }
    let grouped = engine.stats();
    assert!(
        grouped.kv_syncs - after.kv_syncs < 32,
        "64 commits took {} syncs",
        grouped.kv_syncs - after.kv_syncs
    );

    engine.log().append(&log(), vec![item(vec![1; 10])], Durability::Interval).await.expect("append");
    let state =
        engine.log().append(&log(), vec![item(vec![1; 10])], Durability::Interval).await.expect("append");
    assert_eq!(engine.stats().log_syncs, 0);
    // A repeat that asks for `Always` waits until what it repeats is on disk.
    let repeat = Append { position: Position::At(state.end - 10), ..item(vec![1; 10]) };
    engine.log().append(&log(), vec![repeat.clone()], Durability::Always).await.expect("append");
    assert_eq!(engine.stats().log_syncs, 1);
    engine.log().append(&log(), vec![repeat], Durability::Always).await.expect("append");
    assert_eq!(engine.stats().log_syncs, 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn interval_writes_are_synced_within_the_interval() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = open(dir.path(), Durability::Interval).await;
    let before = engine.stats().kv_syncs;
    put(&engine, "a", "1").await;
    eventually("nothing was synced", async || engine.stats().kv_syncs > before).await;
    let after = engine.stats().kv_syncs;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(engine.stats().kv_syncs, after, "an idle engine syncs nothing");
    engine.shutdown().await;
}

#[tokio::test]
async fn forgotten_deletions_are_a_gap() {
    let dir = tempfile::tempdir().expect("dir");
    let config = EmbeddedConfig { tombstone_max: 10, janitor_interval_ms: 5, ..EmbeddedConfig::default() };
    let engine = open_with(dir.path(), config);
    engine.kv().open_bucket(&bucket(), Durability::Interval).await.expect("bucket");
    let start = put(&engine, "kept", "1").await;
    let mut revisions = Vec::new();
    for n in 0..50 {
        put(&engine, &format!("k{n}"), "1").await;
        let batch = Batch::new().delete(key(&format!("k{n}")));
        revisions.extend(engine.kv().commit(&bucket(), batch).await.expect("delete").revisions);
    }
    eventually("nothing was forgotten", async || engine.stats().kv_tombstones_expired >= 40).await;
    let error = engine.kv().watch(&bucket(), Prefix::all(), WatchFrom::After(start)).await.expect_err("gap");
    let Error::Gap { oldest } = error else { panic!("{error}") };
    assert_eq!(oldest, revisions[39]);
    let mut watch =
        engine.kv().watch(&bucket(), Prefix::all(), WatchFrom::After(oldest)).await.expect("watch");
    assert_eq!(watch.next().await.expect("changes").changes.len(), 10);
    let mut watch = engine.kv().watch(&bucket(), Prefix::all(), WatchFrom::Start).await.expect("watch");
    assert_eq!(watch.next().await.expect("changes").changes.len(), 1);
    // A forgotten key is simply not there.
    let again = Batch::new().check(key("k0"), Expect::Absent).put(key("k0"), "2");
    engine.kv().commit(&bucket(), again).await.expect("commit");
    engine.shutdown().await;
    // What is forgotten stays forgotten, and what is remembered is counted again.
    let engine = open(dir.path(), Durability::Interval).await;
    let error = engine.kv().watch(&bucket(), Prefix::all(), WatchFrom::After(start)).await.expect_err("gap");
    assert!(matches!(error, Error::Gap { oldest: said } if said == oldest));
    engine.shutdown().await;
}

fn disk_usage(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("dir").filter_map(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
            // The journals are counted apart: they are reused, not given back.
            Ok(meta) if entry.path().extension().is_none_or(|extension| extension != "jnl") => meta.len(),
            _ => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_logs_give_their_space_back() {
    let dir = tempfile::tempdir().expect("dir");
    let config = EmbeddedConfig {
        log_memtable_bytes: 2 * 1024 * 1024,
        reclaim_bytes: 4 * 1024 * 1024,
        janitor_interval_ms: 20,
        ..EmbeddedConfig::default()
    };
    let engine = open_with(dir.path(), config);
    for n in 0..4 {
        let log = LogName::parse(&format!("output.{n}")).expect("log");
        for _ in 0..16 {
            let items = vec![item(vec![n; 64 * 1024]); 4];
            engine.log().append(&log, items, Durability::Interval).await.expect("append");
        }
    }
    eventually("nothing was flushed", async || disk_usage(dir.path()) > 12 << 20).await;
    for n in 1..4 {
        let log = LogName::parse(&format!("output.{n}")).expect("log");
        let started = Instant::now();
        engine.log().remove(&log).await.expect("remove");
        assert!(started.elapsed() < Duration::from_secs(2));
    }
    eventually("the space is not given back", async || disk_usage(dir.path()) < 8 << 20).await;
    let kept = LogName::parse("output.0").expect("log");
    let page = engine.log().read(&kept, 0, 4 << 20).await.expect("read");
    assert!(page.items.len() == 64 && page.items.iter().all(|item| item.payload == vec![0; 64 * 1024]));
    engine.shutdown().await;
}

/// Idle logs cost neither files nor memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_logs() {
    const LOGS: usize = 5000;
    let dir = tempfile::tempdir().expect("dir");
    let engine = open_with(dir.path(), EmbeddedConfig::default());
    let name = |n: usize| LogName::parse(&format!("output.{n}")).expect("log");
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..50 {
        let engine = engine.clone();
        tasks.spawn(async move {
            for n in (worker..LOGS).step_by(50) {
                engine
                    .log()
                    .append(&name(n), vec![item(vec![1; 20])], Durability::Interval)
                    .await
                    .expect("append");
            }
        });
    }
    tasks.join_all().await;
    let mut files = 0;
    let mut dirs = vec![dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("dir").map(|entry| entry.expect("entry").path()) {
            if entry.is_dir() { dirs.push(entry) } else { files += 1 }
        }
    }
    assert!(files < 50, "{files} files");
    assert_eq!(engine.log().state(&name(4321)).await.expect("state").expect("there").end, 20);
    engine.shutdown().await;
}

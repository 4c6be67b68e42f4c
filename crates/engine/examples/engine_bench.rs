//! Measures the embedded engine on a directory: `engine_bench [DIR]` (default: a directory under `TMPDIR`).
//!
//! Every rate is printed with the syncs it took, as those are what it costs.
#![expect(clippy::print_stdout, reason = "what it prints is its purpose")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use datacentered_engine::{
    Append, Batch, Bucket, Durability, Embedded, EmbeddedConfig, Engine, Key, LogName, Position, Prefix,
    WatchFrom,
};

const TIME: Duration = Duration::from_secs(3);
const VALUE: usize = 300;

fn key(n: u64) -> Key {
    Key::from_tokens(["job", &format!("{n:08}")]).expect("key")
}

fn bucket(name: &str) -> Bucket {
    Bucket::new(name).expect("bucket")
}

/// Commits with this many writers at once; prints rate and syncs.
async fn commits(engine: &Engine, what: &str, name: &str, writers: u64) {
    let before = engine.stats();
    let count = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (engine, bucket, count) = (engine.clone(), bucket(name), count.clone());
        tasks.spawn(async move {
            let value = Bytes::from(vec![7; VALUE]);
            let mut n = writer;
            while started.elapsed() < TIME {
                engine
                    .kv()
                    .commit(&bucket, Batch::new().put(key(n % 100_000), value.clone()))
                    .await
                    .expect("commit");
                count.fetch_add(1, Ordering::Relaxed);
                n += writers;
            }
        });
    }
    tasks.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    let after = engine.stats();
    let (syncs, groups) = (after.kv_syncs - before.kv_syncs, after.kv_groups - before.kv_groups);
    let total = count.load(Ordering::Relaxed);
    println!(
        "{what:<44} {:>9.0}/s  syncs {:>7.0}/s  {:>5.1} per group  mean {:>7.0} us",
        total as f64 / seconds,
        syncs as f64 / seconds,
        total as f64 / groups.max(1) as f64,
        seconds * 1e6 * writers as f64 / total as f64,
    );
}

async fn appends(
    engine: &Engine,
    what: &str,
    size: usize,
    per_call: usize,
    logs: u64,
    durability: Durability,
) {
    let before = engine.stats();
    let count = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for log in 0..logs {
        let (engine, count) = (engine.clone(), count.clone());
        let log = LogName::from_tokens(["output", &format!("{what}-{log}")]).expect("log");
        tasks.spawn(async move {
            let item = Append { position: Position::End, span: size as u64, payload: vec![7; size].into() };
            while started.elapsed() < TIME {
                engine.log().append(&log, vec![item.clone(); per_call], durability).await.expect("append");
                count.fetch_add((size * per_call) as u64, Ordering::Relaxed);
            }
            log
        });
    }
    let logs = tasks.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    let syncs = engine.stats().log_syncs - before.log_syncs;
    let total = count.load(Ordering::Relaxed) as f64;
    println!(
        "{what:<44} {:>9.0} MB/s  {:>9.0} items/s  syncs {:>5.0}/s",
        total / seconds / 1e6,
        total / size as f64 / seconds,
        syncs as f64 / seconds
    );
    let started = Instant::now();
    let (mut read, mut at) = (0, 0);
    while started.elapsed() < TIME {
        let page = engine.log().read(&logs[0], at, 1 << 20).await.expect("read");
        read += page.items.iter().map(|item| item.payload.len()).sum::<usize>();
        at = page.next;
        if page.items.is_empty() {
            break;
        }
    }
    println!("{:<44} {:>9.0} MB/s", "  read back", read as f64 / started.elapsed().as_secs_f64() / 1e6);
    for log in logs {
        engine.log().remove(&log).await.expect("remove");
    }
}

async fn reads(engine: &Engine) {
    let bucket = bucket("always");
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < TIME {
        engine.kv().get(&bucket, &key(count % 1000)).await.expect("get");
        count += 1;
    }
    let nanos = started.elapsed().as_nanos() as u64 / count;
    println!("{:<44} {nanos:>9} ns each", "get");
}

async fn watch_latency(engine: &Engine) {
    let bucket = bucket("memory");
    let mut watch = engine.kv().watch(&bucket, Prefix::all(), WatchFrom::Now).await.expect("watch");
    watch.next().await.expect("first");
    let started = Instant::now();
    let mut count = 0u64;
    while started.elapsed() < TIME {
        engine.kv().commit(&bucket, Batch::new().put(key(1), "1")).await.expect("commit");
        watch.next().await.expect("change");
        count += 1;
    }
    let nanos = started.elapsed().as_nanos() as u64 / count;
    println!("{:<44} {nanos:>9} ns each", "commit in memory, seen by a watch");
}

#[tokio::main]
async fn main() {
    let dir =
        std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("engine_bench"), PathBuf::from);
    let started = Instant::now();
    let mut engine = Embedded::open(&dir, EmbeddedConfig::default()).expect("open");
    println!("opened {} in {:?}", dir.display(), started.elapsed());
    for round in ["fresh journal", "after a restart"] {
        for (name, durability) in [
            ("always", Durability::Always),
            ("interval", Durability::Interval),
            ("memory", Durability::Memory),
        ] {
            engine.kv().open_bucket(&bucket(name), durability).await.expect("bucket");
            for writers in [1, 64] {
                commits(&engine, &format!("commit {name}, {writers} writers, {round}"), name, writers).await;
            }
        }
        reads(&engine).await;
        watch_latency(&engine).await;
        engine.shutdown().await;
        let started = Instant::now();
        engine = Embedded::open(&dir, EmbeddedConfig::default()).expect("open");
        println!("reopened in {:?}", started.elapsed());
    }
    appends(&engine, "append 16 KiB, interval, 1 log", 16 * 1024, 1, 1, Durability::Interval).await;
    appends(&engine, "append 16 KiB x 16, interval, 1 log", 16 * 1024, 16, 1, Durability::Interval).await;
    appends(&engine, "append 16 KiB, interval, 64 logs", 16 * 1024, 1, 64, Durability::Interval).await;
    appends(&engine, "append 256 KiB, interval, 8 logs", 256 * 1024, 1, 8, Durability::Interval).await;
    appends(&engine, "append 500 B, always, 1 log", 500, 1, 1, Durability::Always).await;
    appends(&engine, "append 500 B, always, 64 logs", 500, 1, 64, Durability::Always).await;
    engine.shutdown().await;
    std::fs::remove_dir_all(&dir).expect("remove");
}

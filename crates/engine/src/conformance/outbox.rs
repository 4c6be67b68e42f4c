//! The outbox: moved once, in order, whatever was done before.

use std::time::Duration;

use super::{PATIENCE, bucket, key, log_name};
use crate::engine::Engine;
use crate::key::{Bucket, Prefix};
use crate::kv::{Batch, Durability, WatchFrom};
use crate::log::{Append, Position};
use crate::outbox::{Mover, drain, outbox_key};

async fn open(engine: &Engine) -> Bucket {
    let bucket = bucket("control");
    engine.kv().open_bucket(&bucket, Durability::Always).await.expect("open");
    bucket
}

/// Writes effect `n` with its event.
async fn effect(engine: &Engine, bucket: &Bucket, n: u64, log: &str) -> u64 {
    // Tokens that do not sort as they are written.
    let entry = outbox_key(&log_name(log), &format!("t{}", n.wrapping_mul(7919) % 1000)).expect("key");
    let batch = Batch::new().put(key(&format!("effect.{n}")), n.to_string()).put(entry, n.to_string());
    engine.kv().commit(bucket, batch).await.expect("commit").revisions[1]
}

async fn numbers(engine: &Engine, log: &str) -> Vec<u64> {
    if engine.log().state(&log_name(log)).await.expect("state").is_none() {
        return Vec::new();
    }
    let page = engine.log().read(&log_name(log), 0, 1 << 20).await.expect("read");
    page.items
        .iter()
        .map(|item| std::str::from_utf8(&item.payload).expect("text").parse().expect("n"))
        .collect()
}

async fn left(engine: &Engine, bucket: &Bucket) -> usize {
    let prefix = Prefix::parse(crate::outbox::OUTBOX).expect("prefix");
    let mut watch = engine.kv().watch(bucket, prefix, WatchFrom::Start).await.expect("watch");
    super::next(&mut watch).await.changes.iter().filter(|change| change.value.is_some()).count()
}

pub(super) async fn moves_once_in_order(engine: &Engine) {
    let bucket = open(engine).await;
    let mut revisions = Vec::new();
    for n in 0..100 {
        revisions.push(effect(engine, &bucket, n, if n % 10 == 9 { "audit" } else { "events" }).await);
    }
    // As after a crash between append and delete: the first entries are in the log already.
    for (n, revision) in revisions.iter().take(3).enumerate() {
        let position = Position::Next { source_id: *revision };
        let item = Append { position, span: 1, payload: n.to_string().into() };
        engine.log().append(&log_name("events"), vec![item], Durability::Always).await.expect("append");
    }
    assert_eq!(drain(engine, &bucket).await.expect("drain"), 100);
    let expected: Vec<u64> = (0..100).filter(|n| n % 10 != 9).collect();
    assert_eq!(numbers(engine, "events").await, expected);
    assert_eq!(numbers(engine, "audit").await.len(), 10);
    assert_eq!(left(engine, &bucket).await, 0);
    assert_eq!(drain(engine, &bucket).await.expect("drain"), 0);
}

pub(super) async fn moves_while_it_fills(engine: &Engine) {
    let bucket = open(engine).await;
    for n in 0..10 {
        effect(engine, &bucket, n, "events").await;
    }
    let mover = Mover::start(engine.clone(), bucket.clone(), None);
    for n in 10..200 {
        effect(engine, &bucket, n, "events").await;
    }
    let all = async {
        while numbers(engine, "events").await.len() < 200 || left(engine, &bucket).await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("moved in time");
    mover.stop().await;
    assert_eq!(numbers(engine, "events").await, (0..200).collect::<Vec<_>>());
}

//! Random operations against a model in memory, with watchers that look on.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{PATIENCE, Random, bucket, key, log_name};
use crate::engine::Engine;
use crate::error::Error;
use crate::key::{Key, Prefix};
use crate::kv::{Batch, Durability, Expect, Watch, WatchFrom};
use crate::log::{Append, Position};

const BATCHES: usize = 500;
const KEYS: u64 = 24;
const APPENDS: usize = 400;

type State = BTreeMap<Key, (u64, Bytes)>;

/// A watcher's task: what its view was at every revision it was told to be caught up with.
type Looker = tokio::task::JoinHandle<Vec<(u64, State)>>;

/// Follows until the view reaches `last`, which is told later.
fn look(
    mut watch: Watch,
    mut view: State,
    slow: bool,
    mut last: tokio::sync::watch::Receiver<u64>,
) -> Looker {
    tokio::spawn(async move {
        let mut seen: Vec<(u64, State)> = Vec::new();
        while seen.last().is_none_or(|(revision, _)| *revision < *last.borrow_and_update()) {
            let next = async {
                // A call that is dropped must lose nothing.
                tokio::select! {
                    batch = watch.next() => Some(batch.expect("watch")),
                    changed = last.changed() => changed.map(|()| None).expect("told"),
                }
            };
            let Some(batch) = tokio::time::timeout(PATIENCE, next).await.expect("in time") else { continue };
            let mut previous = 0;
            for change in batch.changes {
                assert!(change.revision > previous, "changes of a batch ascend");
                previous = change.revision;
                match change.value {
                    Some(value) => view.insert(change.key, (change.revision, value)),
                    None => view.remove(&change.key),
                };
            }
            if batch.caught_up {
                seen.push((batch.revision, view.clone()));
            }
            if slow {
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
        }
        seen
    })
}

fn random_key(random: &mut Random) -> Key {
    let n = random.below(KEYS);
    key(&format!("{}.k{n}", if n.is_multiple_of(2) { "even" } else { "odd" }))
}

fn random_batch(random: &mut Random, model: &State) -> Batch {
    let mut batch = Batch::new();
    let mut used = Vec::new();
    for _ in 0..random.below(3) {
        let name = random_key(random);
        if batch.checks().iter().any(|(known, _)| *known == name) {
            continue;
        }
        let revision = model.get(&name).map_or(1, |(revision, _)| *revision);
        let expect = match random.below(8) {
            0 => Expect::Absent,
            1 => Expect::Exists,
            2 => Expect::Revision(revision + 1),
            _ => model.get(&name).map_or(Expect::Absent, |_| Expect::Revision(revision)),
        };
        batch = batch.check(name, expect);
    }
    for _ in 0..random.below(6) {
        let name = random_key(random);
        if used.contains(&name) {
            continue;
        }
        used.push(name.clone());
        batch = if random.below(4) == 0 {
            batch.delete(name)
        } else {
            let size = if random.below(20) == 0 { 60_000 } else { random.below(50) };
            batch.put(name, vec![random.next() as u8; size as usize])
        };
    }
    batch
}

fn restricted(state: &State, prefix: &Prefix) -> State {
    state
        .iter()
        .filter(|(name, _)| prefix.matches(name))
        .map(|(name, at)| (name.clone(), at.clone()))
        .collect()
}

pub(super) async fn random_batches(engine: &Engine) {
    let mut random = Random::seeded("random batches");
    for durability in [Durability::Always, Durability::Interval, Durability::Memory] {
        random_batches_at(engine, &mut random, durability).await;
    }
}

async fn random_batches_at(engine: &Engine, random: &mut Random, durability: Durability) {
    let bucket = bucket(&format!("random-{durability:?}"));
    engine.kv().open_bucket(&bucket, durability).await.expect("open");
    let mut model = State::new();
    // The state after every commit, by its last revision.
    let mut history: BTreeMap<u64, State> = BTreeMap::from([(0, State::new())]);
    let (done, last) = tokio::sync::watch::channel(u64::MAX);
    let mut lookers: Vec<(Prefix, Looker)> = Vec::new();
    for n in 0..BATCHES {
        if n % 50 == 0 {
            let prefix = Prefix::parse(["", "even"][random.below(2) as usize]).expect("prefix");
            let slow = random.below(2) == 0;
            let back = random.below(history.len() as u64) as usize;
            let (from, view) = match history.iter().nth(back) {
                Some((revision, state)) if random.below(3) > 0 && *revision > 0 => {
                    (WatchFrom::After(*revision), restricted(state, &prefix))
                }
                _ => (WatchFrom::Start, State::new()),
            };
            let watch = engine.kv().watch(&bucket, prefix.clone(), from).await.expect("watch");
            lookers.push((prefix, look(watch, view, slow, last.clone())));
        }
        let batch = random_batch(random, &model);
        let failed =
            batch.checks().iter().find(|(name, expect)| !expect.holds(model.get(name).map(|at| at.0)));
        let failed = failed.map(|(name, _)| name.clone());
        let writes = batch.writes().to_vec();
        match (engine.kv().commit(&bucket, batch).await, failed) {
            (Ok(committed), None) => {
                assert_eq!(committed.revisions.len(), writes.len());
                for (write, revision) in writes.into_iter().zip(&committed.revisions) {
                    match write.value {
                        Some(value) => model.insert(write.key, (*revision, value)),
                        None => model.remove(&write.key),
                    };
                }
                if let Some(last) = committed.revisions.last() {
                    history.insert(*last, model.clone());
                }
            }
            (Err(Error::Conflict { key, current }), Some(expected)) => {
                assert_eq!(key, expected);
                assert_eq!(current.map(|entry| (entry.revision, entry.value)), model.get(&key).cloned());
            }
            (result, failed) => panic!("the model says {failed:?}, the engine {result:?}"),
        }
        let name = random_key(random);
        let entry = engine.kv().get(&bucket, &name).await.expect("get");
        assert_eq!(entry.map(|entry| (entry.revision, entry.value)), model.get(&name).cloned());
    }
    // One last write that every watcher sees.
    let end = Batch::new().put(key("even.end"), "end").put(key("odd.end"), "end");
    let revisions = engine.kv().commit(&bucket, end).await.expect("commit").revisions;
    for (name, revision) in ["even.end", "odd.end"].iter().zip(&revisions) {
        model.insert(key(name), (*revision, Bytes::from_static(b"end")));
    }
    history.insert(revisions[1], model);
    done.send_replace(revisions[1]);
    for (prefix, looker) in lookers {
        for (revision, view) in looker.await.expect("looker") {
            let (_, state) = history.range(..=revision).next_back().expect("a state");
            assert!(view == restricted(state, &prefix), "the view at {revision} differs from the model");
        }
    }
}

pub(super) async fn random_appends(engine: &Engine) {
    let mut random = Random::seeded("random appends");
    let logs = ["output.a", "output.b", "events"].map(log_name);
    // What each log holds: its text by offset space, and where it starts.
    let mut models: Vec<(Vec<u8>, u64)> = vec![(Vec::new(), 0); logs.len()];
    for n in 0..APPENDS {
        let which = random.below(logs.len() as u64) as usize;
        let (model, oldest) = &mut models[which];
        let end = model.len() as u64;
        match random.below(10) {
            0 => {
                let before = random.below(end + 2);
                engine.log().trim(&logs[which], before).await.expect("trim");
                if let Some(state) = engine.log().state(&logs[which]).await.expect("state") {
                    assert!(state.oldest <= before.max(*oldest) && state.oldest >= *oldest);
                    *oldest = state.oldest;
                }
            }
            1 | 2 => {
                let from = random.below(end + 2);
                let page = engine.log().read(&logs[which], from, random.below(2000) as usize).await;
                match page {
                    Err(Error::NotFound { .. }) => assert_eq!(end, 0),
                    Err(Error::Gap { oldest: said }) => assert!(from < *oldest && said == *oldest),
                    Err(other) => panic!("{other:?}"),
                    Ok(page) => {
                        assert_eq!(
                            (page.end, page.oldest, from >= end),
                            (end, *oldest, page.items.is_empty())
                        );
                        for item in page.items {
                            let range = item.offset as usize..(item.offset + item.span) as usize;
                            assert!(model[range] == item.payload[..], "the content differs");
                        }
                    }
                }
            }
            _ => {
                let start = if random.below(3) == 0 { random.below(end + 3) } else { end };
                let longest = if random.below(10) == 0 { 20_000 } else { 200 };
                let length = 1 + random.below(longest);
                let payload: Vec<u8> = vec![n as u8; length as usize];
                let item =
                    Append { position: Position::At(start), span: length, payload: payload.clone().into() };
                let durability = if random.below(4) == 0 { Durability::Always } else { Durability::Interval };
                let result = engine.log().append(&logs[which], vec![item], durability).await;
                if start == end {
                    model.extend_from_slice(&payload);
                    assert_eq!(result.expect("append").end, model.len() as u64);
                } else if start + length <= end {
                    assert_eq!(result.expect("a repeat").end, end);
                } else {
                    assert!(matches!(result, Err(Error::Hole { end: said }) if said == end));
                }
            }
        }
    }
}

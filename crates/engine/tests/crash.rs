//! A process that is killed at random points loses nothing it acknowledged, tears nothing and repeats nothing.
//!
//! The test starts itself again as a child that writes and says on its standard output what was acknowledged. What an
//! `Interval` write leaves is in the page cache when it is answered, so that it too has to survive the death of the
//! process (only a death of the machine may take what was not yet synced).
//!
//! `DC_SEED` sets the seed of the kill points, `DC_KILLS` how often.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use datacentered_engine::outbox::{Mover, drain, outbox_key};
use datacentered_engine::{
    Append, Batch, Bucket, Durability, Embedded, EmbeddedConfig, Engine, Error, Key, LogName, Position,
    Prefix, WatchFrom,
};

const DIR: &str = "DC_CRASH_DIR";
const KILLS: u32 = 200;
/// After so many kills a new directory is begun: the journal that every start reads grows with the writes, and reading
/// it is slow in a program that is not optimised.
const KILLS_PER_DIR: u32 = 12;
/// How long a child lives at most after it opened.
const LIFE_MICROS: u64 = 25_000;
/// The same from its very start, for kills while it opens.
const START_MICROS: u64 = 60_000;
/// Keys that successive batches write in turn.
const SLOTS: u64 = 50;
/// Output kept; the rest is trimmed, so that trims are interrupted as well.
const OUTPUT_KEPT: u64 = 256 * 1024;

const ALWAYS: &str = "control";
const INTERVAL: &str = "data";

fn config() -> EmbeddedConfig {
    EmbeddedConfig {
        // Small, so that flushes and compactions are interrupted too.
        kv_memtable_bytes: 1024 * 1024,
        log_memtable_bytes: 1024 * 1024,
        tombstone_max: 500,
        janitor_interval_ms: 20,
        reclaim_bytes: 1024 * 1024,
        ..EmbeddedConfig::default()
    }
}

fn key(stored: &str) -> Key {
    Key::parse(stored).expect("key")
}

fn log(stored: &str) -> LogName {
    LogName::parse(stored).expect("log")
}

fn bucket(name: &str) -> Bucket {
    Bucket::new(name).expect("bucket")
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).expect("text");
    text.split_once(' ').map_or(text, |(n, _)| n).parse().expect("number")
}

async fn count(engine: &Engine, name: &str) -> u64 {
    let entry = engine.kv().get(&bucket(name), &key("pair.a")).await.expect("get");
    entry.map_or(0, |entry| number(&entry.value))
}

/// The byte of the output at an offset.
fn output_byte(offset: u64) -> u8 {
    (offset / 7 % 251) as u8
}

// The child.

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be done with us.
    let _ = out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush());
}

async fn write_batches(engine: Engine, name: &'static str) {
    let mut n = count(&engine, name).await;
    loop {
        n += 1;
        let value = format!("{n} {}", "x".repeat((n * 37 % 6000) as usize));
        let mut batch =
            ["pair.a", "pair.b", "pair.c"].iter().fold(Batch::new(), |b, k| b.put(key(k), value.clone()));
        batch = batch.put(key(&format!("slot.{}", n % SLOTS)), n.to_string());
        batch = match n % 3 {
            0 => batch.delete(key("now-and-then")),
            _ => batch.put(key("now-and-then"), "x"),
        };
        if name == ALWAYS {
            batch = batch.put(outbox_key(&log("events"), &n.to_string()).expect("key"), n.to_string());
        }
        let revisions = engine.kv().commit(&bucket(name), batch).await.expect("commit").revisions;
        say(&format!("ACK {name} {n} {} {}", revisions[0], revisions[revisions.len() - 1]));
    }
}

async fn write_output(engine: Engine, name: &'static str, durability: Durability) {
    let log = log(name);
    let mut end = engine.log().state(&log).await.expect("state").map_or(0, |state| state.end);
    loop {
        let length = 1 + end % 1500;
        let payload: Vec<u8> = (end..end + length).map(output_byte).collect();
        let item = Append { position: Position::At(end), span: length, payload: payload.into() };
        let state = engine.log().append(&log, vec![item], durability).await.expect("append");
        end = state.end;
        say(&format!("LOG {name} {end}"));
        if end - state.oldest > 2 * OUTPUT_KEPT {
            engine.log().trim(&log, end - OUTPUT_KEPT).await.expect("trim");
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Logs that come and go.
async fn remove_logs(engine: Engine) {
    for n in 0u64.. {
        let log = log(&format!("short.{}", n % 4));
        let item = Append { position: Position::End, span: 1, payload: vec![1; 4000].into() };
        engine.log().append(&log, vec![item; 5], Durability::Interval).await.expect("append");
        engine.log().remove(&log).await.expect("remove");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Does nothing unless it is started by the test below.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let engine = Embedded::open(Path::new(&dir), config()).expect("open");
        engine.kv().open_bucket(&bucket(ALWAYS), Durability::Always).await.expect("bucket");
        engine.kv().open_bucket(&bucket(INTERVAL), Durability::Interval).await.expect("bucket");
        say("OPEN");
        let _mover = Mover::start(engine.clone(), bucket(ALWAYS), None);
        tokio::join!(
            write_batches(engine.clone(), ALWAYS),
            write_batches(engine.clone(), INTERVAL),
            write_output(engine.clone(), "output.i", Durability::Interval),
            write_output(engine.clone(), "output.a", Durability::Always),
            remove_logs(engine),
        );
    });
}

// The parent.

/// What has to hold from now on.
#[derive(Default)]
struct Promises {
    /// Per bucket: the last number acknowledged and the revision of its first write.
    batches: BTreeMap<String, (u64, u64)>,
    /// Per bucket: the highest revision ever seen.
    revisions: BTreeMap<String, u64>,
    /// Per log: the end acknowledged.
    logs: BTreeMap<String, u64>,
    /// Events read so far.
    events: u64,
    epoch: Option<String>,
}

impl Promises {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let parse = |word: &str| word.parse::<u64>().expect("a number");
        match words[..] {
            ["ACK", name, n, first, last] => {
                let (n, first, last) = (parse(n), parse(first), parse(last));
                let highest = self.revisions.entry(name.into()).or_default();
                assert!(first > *highest, "{name}: revision {first} after {highest}");
                *highest = last;
                let (before, _) = self.batches.insert(name.into(), (n, first)).unwrap_or_default();
                assert!(n > before, "{name}: {n} after {before}");
            }
            ["LOG", name, end] => {
                let before = self.logs.insert(name.into(), parse(end)).unwrap_or_default();
                assert!(parse(end) > before);
            }
            _ => {}
        }
    }

    async fn check(&mut self, engine: &Engine) {
        assert_eq!(
            self.epoch.get_or_insert_with(|| engine.epoch().into()),
            engine.epoch(),
            "a crash is no loss"
        );
        for name in [ALWAYS, INTERVAL] {
            self.check_bucket(engine, name).await;
        }
        for name in ["output.i", "output.a"] {
            self.check_output(engine, name).await;
        }
        self.check_events(engine).await;
    }

    async fn check_bucket(&mut self, engine: &Engine, name: &str) {
        let mut watch = match engine.kv().watch(&bucket(name), Prefix::all(), WatchFrom::Start).await {
            Ok(watch) => watch,
            // Killed before it was made.
            Err(Error::NotFound { .. }) if !self.batches.contains_key(name) => return,
            Err(other) => panic!("{other}"),
        };
        let mut entries = BTreeMap::new();
        loop {
            let batch = watch.next().await.expect("watch");
            for change in batch.changes {
                let highest = self.revisions.entry(name.into()).or_default();
                *highest = change.revision.max(*highest);
                if let Some(value) = change.value {
                    entries.insert(change.key.to_string(), (change.revision, value));
                }
            }
            if batch.caught_up {
                break;
            }
        }
        let Some((first, a)) = entries.get("pair.a") else {
            assert!(!self.batches.contains_key(name), "{name}: acknowledged batches are gone");
            return;
        };
        let n = number(a);
        for (other, distance) in [("pair.b", 1), ("pair.c", 2)] {
            let (revision, value) = &entries[other];
            assert!(value == a && *revision == first + distance, "{name}: batch {n} is torn");
        }
        assert_eq!(entries.contains_key("now-and-then"), !n.is_multiple_of(3), "{name}: batch {n} is torn");
        let (acknowledged, revision) = self.batches.get(name).copied().unwrap_or_default();
        assert!(n >= acknowledged, "{name}: {acknowledged} was acknowledged, {n} is there");
        assert!(n > acknowledged || *first == revision);
        for slot in 0..SLOTS.min(n) {
            let expected = n - slot;
            let (_, value) = &entries[&format!("slot.{}", expected % SLOTS)];
            assert_eq!(number(value), expected, "{name}: a slot is not what batch {expected} wrote");
        }
    }

    async fn check_output(&self, engine: &Engine, name: &str) {
        let state = engine.log().state(&log(name)).await.expect("state").unwrap_or_default();
        let acknowledged = self.logs.get(name).copied().unwrap_or_default();
        assert!(state.end >= acknowledged, "{name}: {acknowledged} was acknowledged, {} is there", state.end);
        let (mut at, mut bytes) = (state.oldest, 0);
        while at < state.end {
            let page = engine.log().read(&log(name), at, 1 << 20).await.expect("read");
            for item in page.items {
                assert_eq!(item.offset, at);
                assert!(item.payload.iter().zip(at..).all(|(byte, offset)| *byte == output_byte(offset)));
                at += item.span;
                bytes += item.payload.len() as u64;
            }
        }
        assert_eq!((at, bytes), (state.end, state.bytes));
    }

    /// Every batch's event is in the log once, in order, once the outbox is drained.
    async fn check_events(&mut self, engine: &Engine) {
        if engine.kv().bucket_epoch(&bucket(ALWAYS)).await.is_err() {
            return;
        }
        drain(engine, &bucket(ALWAYS)).await.expect("drain");
        let batches = count(engine, ALWAYS).await;
        while self.events < batches {
            let page = engine.log().read(&log("events"), self.events, 1 << 20).await.expect("read");
            assert!(!page.items.is_empty(), "event {} of {batches} is missing", self.events + 1);
            for item in page.items {
                self.events += 1;
                assert_eq!((item.offset + 1, number(&item.payload)), (self.events, self.events));
            }
        }
        let state = engine.log().state(&log("events")).await.expect("state").unwrap_or_default();
        assert_eq!(state.end, batches, "an event came twice");
    }
}

fn start_child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("child")
}

/// Lets a child run, kills it after `life` (counted from its first word, or from its start), and returns what it said.
fn run_and_kill(dir: &Path, life: Duration, from_start: bool) -> Vec<String> {
    let mut child = start_child(dir);
    let stdout = child.stdout.take().expect("piped");
    let (opened, wait) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        while stdout.read_line(&mut line).is_ok_and(|length| length > 0) {
            if line == "OPEN\n" {
                // Not waited for when it is killed from its start.
                let _ = opened.send(());
            }
            // A line cut off by the kill is no acknowledgement.
            if let Some(whole) = line.strip_suffix('\n').filter(|whole| !whole.is_empty()) {
                lines.push(whole.to_owned());
            }
            line.clear();
        }
        lines
    });
    if !from_start {
        wait.recv_timeout(Duration::from_secs(30)).expect("the child opens");
    }
    std::thread::sleep(life);
    child.kill().expect("SIGKILL");
    let status = child.wait().expect("reaped");
    assert!(status.code().is_none(), "the child ended on its own: {status}");
    reader.join().expect("reader")
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_points() {
    let started = Instant::now();
    let mut random = env("DC_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos()
            as u64
    });
    println!("DC_SEED={random}");
    let kills = env("DC_KILLS").map_or(KILLS, |kills| kills as u32);
    let mut dir = tempfile::tempdir().expect("dir");
    let mut promises = Promises::default();
    let mut batches = 0;
    for kill in 0..kills {
        if kill % KILLS_PER_DIR == 0 {
            dir = tempfile::tempdir().expect("dir");
            batches += std::mem::take(&mut promises).events;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let from_start = kill % 8 == 7;
        let micros = (random >> 33) % if from_start { START_MICROS } else { LIFE_MICROS };
        for line in run_and_kill(dir.path(), Duration::from_micros(micros), from_start) {
            promises.note(&line);
        }
        let engine = Embedded::open(dir.path(), config()).expect("opens after a crash");
        promises.check(&engine).await;
        engine.shutdown().await;
    }
    batches += promises.events;
    println!("{kills} kills in {:?}, {batches} batches", started.elapsed());
    assert!(kills < KILLS || batches > 200, "too little was written to prove anything");
}

//! A full disk loses nothing that was acknowledged, and is told.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use datacentered_engine::{
    Append, Batch, Bucket, Durability, Embedded, EmbeddedConfig, Engine, Error, Key, LogName, Position,
};

const DIR: &str = "DC_FULL_DIR";
const MIB: u64 = 1024 * 1024;

fn bucket() -> Bucket {
    Bucket::new("control").expect("bucket")
}

fn log() -> LogName {
    LogName::parse("output.x").expect("log")
}

fn key(n: u64) -> Key {
    Key::parse(&format!("k{n}")).expect("key")
}

fn item(offset: u64) -> Append {
    let payload = vec![(offset / 200_000) as u8; 200_000];
    Append { position: Position::At(offset), span: 200_000, payload: payload.into() }
}

async fn append(engine: &Engine, end: u64) -> Result<u64, Error> {
    engine.log().append(&log(), vec![item(end)], Durability::Always).await.map(|state| state.end)
}

/// Appends until that fails. Returns the end acknowledged and the error.
async fn fill(engine: &Engine) -> (u64, Error) {
    let mut end = engine.log().state(&log()).await.expect("state").map_or(0, |state| state.end);
    loop {
        match append(engine, end).await {
            Ok(now) => end = now,
            Err(error) => return (end, error),
        }
    }
}

async fn check(engine: &Engine, acknowledged: u64) {
    let state = engine.log().state(&log()).await.expect("state").expect("there");
    assert!(state.end >= acknowledged, "{acknowledged} was acknowledged, {} is there", state.end);
    let mut at = state.oldest;
    while at < state.end {
        let page = engine.log().read(&log(), at, 4 << 20).await.expect("read");
        for item in page.items {
            assert!(item.payload.iter().all(|byte| *byte == (item.offset / 200_000) as u8));
            at = item.offset + item.span;
        }
    }
}

/// After a write failed: everything says so at once, and the end comes quickly.
async fn fails_for_good(engine: &Engine, error: &Error, end: u64) {
    assert!(matches!(error, Error::Indeterminate { .. }), "{error:?}");
    assert!(engine.failed().is_cancelled());
    assert!(matches!(append(engine, end).await, Err(Error::Unavailable { .. })));
    let put = Batch::new().put(key(0), "2");
    assert!(matches!(engine.kv().commit(&bucket(), put).await, Err(Error::Unavailable { .. })));
    let started = Instant::now();
    engine.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(10), "the end took {:?}", started.elapsed());
}

fn config() -> EmbeddedConfig {
    EmbeddedConfig {
        min_free_bytes: 0,
        // So that a journal grows beyond the limit before it is changed for another.
        log_memtable_bytes: 48 * MIB,
        ..EmbeddedConfig::default()
    }
}

/// Does nothing unless it is started by the test below, with a limit on how large files may grow.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let engine = Embedded::open(Path::new(&dir), config()).expect("open");
    engine.kv().open_bucket(&bucket(), Durability::Always).await.expect("bucket");
    engine.kv().commit(&bucket(), Batch::new().put(key(0), "1")).await.expect("commit");
    let (end, error) = fill(&engine).await;
    fails_for_good(&engine, &error, end).await;
    std::fs::write(Path::new(&dir).join("END"), end.to_string()).expect("write");
}

/// The system refuses a write in the middle of a journal.
#[tokio::test]
async fn a_refused_write() {
    let dir = tempfile::tempdir().expect("dir");
    let program = std::env::current_exe().expect("this program");
    // 65 MiB in blocks of 512 bytes: a little more than an empty journal takes.
    let script = "trap '' XFSZ; ulimit -f 133120; exec \"$0\" child --exact --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(program)
        .env(DIR, dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let end: u64 = std::fs::read_to_string(dir.path().join("END")).expect("END").parse().expect("number");
    assert!(end > 32 * MIB);
    let engine = Embedded::open(dir.path(), config()).expect("open");
    check(&engine, end).await;
    assert_eq!(engine.kv().get(&bucket(), &key(0)).await.expect("get").expect("there").value, "1");
    engine.shutdown().await;
}

/// A small file system of its own; needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, bytes: u64) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
            .arg(dir)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(dir.to_owned()))
    }

    fn resize(&self, bytes: u64) {
        let resized =
            Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&self.0).status();
        assert!(resized.expect("mount").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a failed test does not leave it behind.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_file_system() {
    let dir = tempfile::tempdir().expect("dir");
    let Some(disk) = SmallDisk::mount(dir.path(), 24 * MIB) else {
        println!("not root: `a_refused_write` alone has to do");
        return;
    };
    let data = dir.path().join("data");
    let engine = Embedded::open(&data, config()).expect("open");
    engine.kv().open_bucket(&bucket(), Durability::Always).await.expect("bucket");
    engine.kv().commit(&bucket(), Batch::new().put(key(0), "1")).await.expect("commit");
    let (end, error) = fill(&engine).await;
    fails_for_good(&engine, &error, end).await;
    drop(engine);
    disk.resize(200 * MIB);
    let engine = Embedded::open(&data, config()).expect("open");
    check(&engine, end).await;
    engine.shutdown().await;
}

/// With some space kept free, a full disk is only `unavailable`, and forgetting helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_file_system() {
    let dir = tempfile::tempdir().expect("dir");
    let Some(_disk) = SmallDisk::mount(dir.path(), 200 * MIB) else {
        println!("not root: the store's own test of the free space has to do");
        return;
    };
    let config = EmbeddedConfig {
        min_free_bytes: 24 * MIB,
        log_memtable_bytes: 4 * MIB,
        reclaim_bytes: MIB,
        janitor_interval_ms: 20,
        ..EmbeddedConfig::default()
    };
    let engine = Embedded::open(&dir.path().join("data"), config).expect("open");
    engine.kv().open_bucket(&bucket(), Durability::Always).await.expect("bucket");
    engine.kv().commit(&bucket(), Batch::new().put(key(0), "1")).await.expect("commit");
    let (end, error) = fill(&engine).await;
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(!engine.failed().is_cancelled());
    // Reading and forgetting go on.
    check(&engine, end).await;
    engine.kv().commit(&bucket(), Batch::new().delete(key(0))).await.expect("delete");
    engine.log().remove(&log()).await.expect("remove");
    let deadline = Instant::now() + Duration::from_secs(30);
    while append(&engine, 0).await.is_err() {
        assert!(Instant::now() < deadline, "the space is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    engine.shutdown().await;
}

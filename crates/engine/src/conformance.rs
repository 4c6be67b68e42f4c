//! The suite that every engine has to pass: the semantics of the three primitives, not of any store.
//!
//! Every part gets a fresh engine and panics with what is wrong. Random parts print their seed; `DC_SEED` sets it.

mod bus;
mod kv;
mod log;
mod model;
mod outbox;
mod watch;

use std::time::Duration;

use crate::engine::Engine;
use crate::key::{Bucket, Key, LogName, Prefix};
use crate::kv::{Watch, WatchBatch};

/// How long a part waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every part, each on an engine of its own that is shut down after it.
pub async fn run_all<F, Fut>(make_engine: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Engine>,
{
    macro_rules! parts {
        ($($part:path),* $(,)?) => {$(
            let engine = make_engine().await;
            $part(&engine).await;
            engine.shutdown().await;
        )*};
    }
    parts!(
        kv::batches_are_atomic,
        kv::conflicts_carry_what_is_there,
        kv::revisions_ascend,
        kv::limits,
        kv::buckets_are_apart,
        kv::concurrent_writers_lose_nothing,
        kv::every_durability,
        kv::reads_see_batches_whole,
        watch::start_after_now,
        watch::batches_are_seen_whole,
        watch::deletions_are_told,
        watch::slow_watchers_coalesce,
        watch::many_entries_in_revision_order,
        watch::prefixes,
        watch::gaps,
        log::idempotent_by_offset,
        log::idempotent_by_source,
        log::holes,
        log::reads_contain_the_offset,
        log::pages,
        log::trims,
        log::tails,
        log::removes,
        log::limits,
        log::all_or_nothing,
        bus::wildcards,
        bus::order_and_limits,
        outbox::moves_once_in_order,
        outbox::moves_while_it_fills,
        model::random_batches,
        model::random_appends,
        closes,
    );
}

/// After the end everything says so.
async fn closes(engine: &Engine) {
    use crate::Error;
    let bucket = bucket("closing");
    engine.kv().open_bucket(&bucket, crate::Durability::Always).await.expect("open");
    let mut watch = engine.kv().watch(&bucket, Prefix::all(), crate::WatchFrom::Start).await.expect("watch");
    next(&mut watch).await;
    let mut subscription = engine.bus().subscribe("a").expect("subscribe");
    let mut tail = engine.log().tail(&log_name("closing")).await.expect("tail");
    engine.shutdown().await;
    let put = crate::Batch::new().put(key("a"), "1");
    assert!(matches!(engine.kv().commit(&bucket, put).await, Err(Error::Closed)));
    assert!(matches!(engine.kv().get(&bucket, &key("a")).await, Err(Error::Closed)));
    assert!(matches!(watch.next().await, Err(Error::Closed)));
    assert!(matches!(subscription.recv().await, Err(Error::Closed)));
    assert!(matches!(engine.bus().publish("a", bytes::Bytes::new()), Err(Error::Closed)));
    assert!(matches!(engine.log().read(&log_name("closing"), 0, 1).await, Err(Error::Closed)));
    assert!(tail.changed().await.is_err());
}

fn key(stored: &str) -> Key {
    Key::parse(stored).expect("a valid key")
}

fn bucket(name: &str) -> Bucket {
    Bucket::new(name).expect("a valid bucket")
}

fn log_name(stored: &str) -> LogName {
    LogName::parse(stored).expect("a valid log name")
}

/// The next batch, which has to come.
async fn next(watch: &mut Watch) -> WatchBatch {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a watch batch in time").expect("a watch batch")
}

/// A small generator of the random parts, reproducible from its seed.
struct Random(u64);

impl Random {
    /// Seeded from `DC_SEED`, or freshly; says which.
    #[expect(clippy::print_stderr, reason = "a failed random test is worth nothing without its seed")]
    fn seeded(part: &str) -> Self {
        let seed = std::env::var("DC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).expect("random bytes");
            u64::from_le_bytes(bytes)
        });
        eprintln!("{part}: DC_SEED={seed}");
        Self(seed)
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is at least 1.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

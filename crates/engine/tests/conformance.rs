//! The embedded engine passes the suite.

use datacentered_engine::{Embedded, EmbeddedConfig, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let dir = tempfile::tempdir().expect("dir");
    let next = std::sync::atomic::AtomicUsize::new(0);
    conformance::run_all(|| async {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Embedded::open(&dir.path().join(n.to_string()), EmbeddedConfig::default()).expect("open")
    })
    .await;
}

/// Small limits, so that watchers fall behind and groups are cut short.
#[tokio::test]
async fn embedded_with_small_limits() {
    let dir = tempfile::tempdir().expect("dir");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let config = EmbeddedConfig {
        group_max: 3,
        queue_max: 2,
        watch_buffer_bytes: 2000,
        sync_interval_ms: 1,
        janitor_interval_ms: 5,
        reclaim_bytes: 1,
        ..EmbeddedConfig::default()
    };
    conformance::run_all(|| async {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Embedded::open(&dir.path().join(n.to_string()), config.clone()).expect("open")
    })
    .await;
}

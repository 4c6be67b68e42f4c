//! Signs of life, on tokio's paused clock.

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use datacentered_link::{CloseReason, Limits, Link, Side};
use datacentered_proto::Code;
use serde_json::json;
use support::*;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::protocol::Role;

/// A connection that can be cut so that neither side notices: writes are swallowed, reads wait for ever.
struct Hole {
    inner: DuplexStream,
    cut: Arc<AtomicBool>,
}

impl AsyncRead for Hole {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.cut.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hole {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.cut.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

async fn holed() -> (Link, Link, Arc<AtomicBool>, JoinSet<CloseReason>) {
    let (a, b) = tokio::io::duplex(16 * 1024);
    let cut = Arc::new(AtomicBool::new(false));
    let a = ws(Hole { inner: a, cut: cut.clone() }, Role::Client).await;
    let b = ws(Hole { inner: b, cut: cut.clone() }, Role::Server).await;
    let mut drivers = JoinSet::new();
    let (a, driver) = Link::start(a, Side::Dialled, echo(), Limits::default());
    drivers.spawn(driver);
    let (b, driver) = Link::start(b, Side::Accepted, echo(), Limits::default());
    drivers.spawn(driver);
    (a, b, cut, drivers)
}

#[tokio::test(start_paused = true)]
async fn a_quiet_link_lives_and_its_round_trip_is_measured() {
    let (a, b, _cut, _drivers) = holed().await;
    assert_eq!(a.quality().rtt, None);
    sleep(Duration::from_hours(1)).await;
    assert!(!a.is_closed() && !b.is_closed());
    assert!(a.quality().rtt.is_some() || b.quality().rtt.is_some());
    assert!(a.quality().last_heard <= Duration::from_secs(17), "{:?}", a.quality());
    // One ping a heartbeat or so, not more.
    assert!(a.counters().frames_out < 3600 / 8 * 3, "{:?}", a.counters());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_went_silent_is_found_dead_within_thirty_seconds() {
    let (a, b, cut, mut drivers) = holed().await;
    assert_eq!(call(&a, "test.x", json!(1)).await, Ok(json!(1)));
    sleep(Duration::from_secs(100)).await;
    cut.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let waiting = call(&a, "test.x", json!(2));
    let error = within(60, waiting).await.expect_err("lost");
    assert_eq!(error.code, Code::Indeterminate);
    for link in [a, b] {
        let reason = within(60, link.closed()).await;
        assert!(matches!(reason, CloseReason::Silent { .. }), "{reason:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    while let Some(driver) = within(60, drivers.join_next()).await {
        driver.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn anything_heard_is_a_sign_of_life() {
    // The other side answers no ping; notifications that nobody knows must do.
    let (mut peer, link, _drivers) = raw_peer(&Limits::default(), nothing()).await;
    for _ in 0..60 {
        sleep(Duration::from_secs(5)).await;
        peer.notify("nobody.knows", json!({})).await;
    }
    assert!(!link.is_closed());
    let reason = within(60, link.closed()).await;
    assert!(matches!(reason, CloseReason::Silent { .. }), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_link_is_measured_too() {
    let (mut peer, link, _drivers) = raw_peer(&Limits::default(), nothing()).await;
    let busy = async {
        for _ in 0..200 {
            sleep(Duration::from_secs(1)).await;
            peer.notify("nobody.knows", json!({})).await;
            while let Ok(message) = tokio::time::timeout(Duration::from_millis(1), peer.message()).await {
                let ping: serde_json::Value =
                    serde_json::from_str(message.to_text().expect("text")).expect("json");
                assert_eq!(ping["method"], json!("link.ping"));
                peer.send(&json!({"jsonrpc": "2.0", "id": ping["id"], "result": {}})).await;
            }
        }
    };
    busy.await;
    assert!(link.quality().rtt.is_some());
    assert!(link.counters().frames_out <= 10, "{:?}", link.counters());
}

//! Calls: both directions, limits, loss, panics, closing.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datacentered_link::{Answer, Called, CloseReason, Limits, Request};
use datacentered_proto::operations::LinkPing;
use datacentered_proto::ops::NoParams;
use datacentered_proto::rpc::Cause;
use datacentered_proto::{Code, Error};
use serde_json::json;
use support::*;
use tokio::sync::Semaphore;

#[tokio::test]
async fn both_ends_call_each_other_and_answers_overtake() {
    let gate = Arc::new(Semaphore::new(0));
    let inner = gate.clone();
    let slow = Arc::new(On(move |request: Request| {
        let gate = inner.clone();
        match request.method.as_str() {
            "test.slow" => Called::later(async move {
                gate.acquire().await.map_err(|_| Error::internal("closed"))?.forget();
                Answer::of(&"slow")
            }),
            // Calls back over the same link before it answers.
            "test.back" => Called::later(async move {
                let back = request.link.call_raw("test.x", &raw(&json!("back")), request.cause).await?;
                Ok(Answer::Reply(back))
            }),
            _ => Called::reply(&"fast"),
        }
    }));
    let (a, b, _drivers) = pair(&Limits::default(), echo(), slow).await;
    let waiting = call(&a, "test.slow", json!({}));
    tokio::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("not yet"),
        fast = call(&a, "test.fast", json!({})) => assert_eq!(fast, Ok(json!("fast"))),
    }
    gate.add_permits(1);
    assert_eq!(waiting.await, Ok(json!("slow")));
    assert_eq!(call(&a, "test.back", json!({})).await, Ok(json!("back")));
    assert_eq!(call(&b, "test.echo", json!([1])).await, Ok(json!([1])));
    a.call::<LinkPing>(&NoParams {}).await.expect("the link answers by itself");
    assert!(a.counters().calls_out >= 4 && a.counters().bytes_in > 0 && b.counters().calls_in >= 3);
}

#[tokio::test]
async fn errors_arrive_as_they_were_and_unknown_operations_are_named() {
    let handler = Arc::new(On(|request: Request| match request.method.as_str() {
        "test.fail" => Called::Now(Err(Error::conflict("changed").with_details(json!({"revision": 4})))),
        "test.typed" => Called::Now(request.params::<u32>().and_then(|n| Answer::of(&(n + 1)))),
        _ => Called::NoSuchMethod,
    }));
    let (a, _b, _drivers) = pair(&Limits::default(), nothing(), handler).await;
    let error = call(&a, "test.fail", json!({})).await.expect_err("fails");
    assert_eq!(error, Error::conflict("changed").with_details(json!({"revision": 4})));
    assert_eq!(call(&a, "test.typed", json!(1)).await, Ok(json!(2)));
    assert_eq!(call(&a, "test.typed", json!("x")).await.map_err(|e| e.code), Err(Code::Invalid));
    let error = call(&a, "test.none", json!({})).await.expect_err("unknown");
    assert!(error.code == Code::NotFound && error.message.contains("test.none"), "{error:?}");
}

#[tokio::test]
async fn a_panic_is_internal_for_that_call_only() {
    let handler = Arc::new(On(|request: Request| match request.method.as_str() {
        "test.now" => panic!("on purpose"),
        "test.later" => Called::later(async { panic!("on purpose") }),
        _ => Called::reply(&1),
    }));
    let (a, _b, _drivers) = pair(&Limits::default(), nothing(), handler).await;
    for method in ["test.now", "test.later"] {
        let error = call(&a, method, json!({})).await.expect_err("panicked");
        assert_eq!(error.code, Code::Internal);
    }
    assert_eq!(call(&a, "test.ok", json!({})).await, Ok(json!(1)));
}

/// A handler whose calls wait for permits, and how many are running.
fn waiting_handler() -> (Arc<dyn datacentered_link::Handler>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, running) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inner, count) = (gate.clone(), running.clone());
    let handler = Arc::new(On(move |request: Request| {
        if request.method == "test.count" {
            return Called::reply(&count.load(Ordering::SeqCst));
        }
        let (gate, count) = (inner.clone(), count.clone());
        count.fetch_add(1, Ordering::SeqCst);
        Called::later(async move {
            let done = gate.acquire().await.map(tokio::sync::SemaphorePermit::forget);
            count.fetch_sub(1, Ordering::SeqCst);
            done.map_err(|_| Error::internal("closed"))?;
            Answer::of(&true)
        })
    }));
    (handler, gate, running)
}

#[tokio::test]
async fn too_many_calls_are_answered_limited_and_the_link_stays() {
    let (handler, gate, running) = waiting_handler();
    let limits = Limits { calls_in_flight: 4, ..Limits::default() };
    let (mut peer, _link, _drivers) = raw_peer(&limits, handler).await;
    for id in 0..6 {
        peer.request(id, "test.wait", json!({})).await;
    }
    for id in [4, 5] {
        let answer = peer.json().await;
        assert_eq!((&answer["id"], &answer["error"]["data"]["code"]), (&json!(id), &json!("limited")));
        assert!(answer["error"]["data"]["retry_after_ms"].is_u64());
    }
    assert_eq!(running.load(Ordering::SeqCst), 4);
    gate.add_permits(4);
    for _ in 0..4 {
        assert_eq!(peer.json().await["result"], json!(true));
    }
    gate.add_permits(1);
    peer.request(9, "test.wait", json!({})).await;
    assert_eq!(peer.json().await["result"], json!(true));
}

#[tokio::test]
async fn our_calls_beyond_the_limit_wait_and_dropped_ones_free_their_slot() {
    let (handler, gate, _) = waiting_handler();
    let limits = Limits { calls_in_flight: 2, ..Limits::default() };
    let (a, _b, _drivers) = pair(&limits, nothing(), handler).await;
    for _ in 0..2 {
        let dropped = tokio::time::timeout(Duration::from_millis(20), call(&a, "test.wait", json!({})));
        assert!(dropped.await.is_err());
    }
    // The slots of this side are free again; those of the other side are still taken, and it says so.
    let error = within(5, call(&a, "test.wait", json!({}))).await.expect_err("limited");
    assert_eq!(error.code, Code::Limited);
    gate.add_permits(10);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let calls: Vec<_> = (0..5).map(|_| call(&a, "test.wait", json!({}))).collect();
    for result in within(5, futures_util::future::join_all(calls)).await {
        assert_eq!(result, Ok(json!(true)));
    }
}

#[tokio::test]
async fn a_lost_link_says_what_may_have_happened() {
    let (handler, _gate, running) = waiting_handler();
    let (a, b, mut drivers) = pair(&Limits::default(), nothing(), handler).await;
    let sent = call(&a, "test.wait", json!({}));
    let lose = async {
        while running.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        drivers.abort_all();
    };
    let (sent, ()) = tokio::join!(sent, lose);
    assert_eq!(sent.expect_err("lost").code, Code::Indeterminate);
    assert_eq!(call(&a, "test.wait", json!({})).await.expect_err("lost").code, Code::Unavailable);
    assert!(a.is_closed());
    assert_eq!((a.closed().await, b.closed().await), (CloseReason::Dropped, CloseReason::Dropped));
}

#[tokio::test]
async fn a_call_that_never_left_is_unavailable() {
    let (a, _b) = tokio::io::duplex(64);
    let ws = ws(a, tokio_tungstenite::tungstenite::protocol::Role::Client).await;
    let (link, driver) =
        datacentered_link::Link::start(ws, datacentered_link::Side::Dialled, nothing(), Limits::default());
    let call = call(&link, "test.x", json!({}));
    let (result, ()) = tokio::join!(call, async { drop(driver) });
    assert_eq!(result.expect_err("lost").code, Code::Unavailable);
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_before_they_are_sent() {
    let handler = Arc::new(On(|_| Called::reply(&"x".repeat(300 * 1024))));
    let (a, _b, _drivers) = pair(&Limits::default(), nothing(), handler).await;
    let big = json!("x".repeat(300 * 1024));
    assert_eq!(call(&a, "test.x", big).await.expect_err("too large").code, Code::TooLarge);
    let error = call(&a, "test.x", json!({})).await.expect_err("the answer is too large");
    assert_eq!(error.code, Code::TooLarge);
    assert!(!a.is_closed());
}

#[tokio::test]
async fn closing_sends_what_was_queued_and_says_why() {
    let notified = Arc::new(AtomicUsize::new(0));
    struct Count(Arc<AtomicUsize>);
    impl datacentered_link::Handler for Count {
        fn call(&self, _: Request) -> Called {
            Called::NoSuchMethod
        }
        fn notified(&self, method: &str, _: Option<&serde_json::value::RawValue>) {
            assert_eq!(method, "test.note");
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (a, b, mut drivers) = pair(&Limits::default(), nothing(), Arc::new(Count(notified.clone()))).await;
    for _ in 0..1000 {
        a.notify("test.note", &json!({}));
    }
    a.close("the test is over");
    assert_eq!(call(&a, "test.x", json!({})).await.expect_err("closing").code, Code::Unavailable);
    let there = within(5, b.closed()).await;
    assert_eq!(there, CloseReason::ClosedByPeer { code: 1000, reason: "the test is over".into() });
    assert_eq!(a.closed().await, CloseReason::Closed { reason: "the test is over".into() });
    assert_eq!(notified.load(Ordering::SeqCst), 1000);
    while let Some(driver) = within(5, drivers.join_next()).await {
        driver.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_is_bounded_where_the_other_side_does_not_read() {
    let (peer, link, mut drivers) = raw_peer(&Limits::default(), nothing()).await;
    for _ in 0..2000 {
        link.notify("test.note", &json!({"padding": "0123456789"}));
    }
    let begun = tokio::time::Instant::now();
    link.close("bye");
    let reason = within(60, drivers.join_next()).await.expect("a driver").expect("no panic");
    assert_eq!(reason, CloseReason::Closed { reason: "bye".into() });
    assert!(begun.elapsed() <= Duration::from_secs(7), "{:?}", begun.elapsed());
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn handlers_may_finish_after_the_end_but_not_for_ever() {
    let finished = Arc::new(AtomicUsize::new(0));
    let count = finished.clone();
    let handler = Arc::new(On(move |request: Request| {
        let count = count.clone();
        Called::later(async move {
            let seconds = request.params::<u64>()?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            count.fetch_add(1, Ordering::SeqCst);
            Answer::of(&())
        })
    }));
    let (mut peer, link, mut drivers) = raw_peer(&Limits::default(), handler).await;
    peer.request(1, "test.sleep", json!(1)).await;
    peer.request(2, "test.sleep", json!(1_000_000)).await;
    while link.counters().calls_in < 2 {
        tokio::task::yield_now().await;
    }
    drop(peer);
    let reason = within(60, drivers.join_next()).await.expect("a driver").expect("no panic");
    assert!(matches!(reason, CloseReason::Lost { .. }), "{reason:?}");
    assert_eq!(finished.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_cause_goes_with_the_call() {
    let handler = Arc::new(On(|request: Request| Called::reply(&request.cause)));
    let (a, _b, _drivers) = pair(&Limits::default(), nothing(), handler).await;
    let cause = Cause { request: Some("r1".into()), traceparent: None };
    let reply = a.call_raw("test.x", &empty(), cause.clone()).await.expect("reply");
    assert_eq!(serde_json::from_str::<Cause>(reply.get()).expect("cause"), cause);
}

#[tokio::test]
async fn many_calls_pipeline() {
    let (a, b, _drivers) = pair(&Limits::default(), echo(), echo()).await;
    let calls = (0..3000).map(|i| {
        let link = if i % 2 == 0 { &a } else { &b };
        async move { (i, call(link, "test.echo", json!(i)).await) }
    });
    for (i, reply) in within(20, futures_util::future::join_all(calls)).await {
        assert_eq!(reply, Ok(json!(i)));
    }
}

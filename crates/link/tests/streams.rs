//! Streams: order, credit, fairness, endings.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datacentered_link::{Answer, Called, Limits, Link, Request, SendError, StreamEvent, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::{EndReason, GapReason, StreamOpen};
use datacentered_proto::rpc::Cause;
use datacentered_proto::{Code, Cursor, Error};
use proptest::prelude::*;
use serde_json::json;
use support::*;
use tokio::sync::mpsc;

/// A method that carries items, by the table of operations.
const ITEMS: &str = "event.watch";

/// Bytes that tell their place.
fn pattern(from: u64, len: usize) -> Bytes {
    (from..from + len as u64).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

/// A handler that runs `body` for each stream that is opened to the caller.
fn sends<F, B>(body: B) -> Arc<dyn datacentered_link::Handler>
where
    B: Fn(StreamWriter) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(On(move |request: Request| match request.params::<Streaming>() {
        Ok(Streaming { stream }) => {
            Called::Now(Answer::send(stream, Some(Cursor::new("e", 0)), body.clone()))
        }
        Err(_) => Called::reply(&"pong"),
    }))
}

async fn open(link: &Link, method: &str) -> datacentered_link::StreamReader {
    link.open_raw(method, 0, Cause::default(), streaming).await.expect("opens").1
}

#[tokio::test]
async fn bytes_arrive_whole_and_in_order_far_beyond_the_window() {
    let handler = sends(|mut writer: StreamWriter| async move {
        let total = 1_000_000;
        writer.send_bytes(Kind::Stdout, 0, pattern(0, total)).await.expect("sends");
        writer.end(EndReason::Done, total as u64, None).await.expect("ends");
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let (reply, reader) = a.open_raw("test.bytes", 0, Cause::default(), streaming).await.expect("opens");
    assert_eq!(reply.get(), r#"{"cursor":"e-0"}"#);
    let (all, end) = within(20, drain(reader)).await;
    assert_eq!(all, pattern(0, 1_000_000));
    assert_eq!((end.reason, end.offset), (EndReason::Done, 1_000_000));
}

#[tokio::test]
async fn an_upload_waits_for_credit_and_arrives_whole() {
    let (done, mut result) = mpsc::channel(1);
    let handler = Arc::new(On(move |request: Request| {
        let done = done.clone();
        Called::Now(request.params::<Streaming>().and_then(|Streaming { stream }| {
            Answer::receive(&request.link, stream, 100, move |reader| async move {
                let _ = done.send(drain(reader).await).await;
            })
        }))
    }));
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let (_, mut writer) = a.upload_raw("test.upload", Cause::default(), streaming).await.expect("opens");
    writer.send_bytes(Kind::Stdin, 100, pattern(100, 500_000)).await.expect("sends");
    writer.end(EndReason::Done, 500_100, None).await.expect("ends");
    let (all, end) = within(20, result.recv()).await.expect("a result");
    assert_eq!(all, pattern(100, 500_000));
    assert_eq!(end.offset, 500_100);
}

#[tokio::test]
async fn a_reply_without_credit_gets_it_from_the_link() {
    let handler = Arc::new(On(|request: Request| {
        Called::Now(request.params::<Streaming>().map(|Streaming { stream }| Answer::Receive {
            reply: empty(),
            stream,
            from: 0,
            body: Box::new(|reader| {
                Box::pin(async move {
                    drain(reader).await;
                })
            }),
        }))
    }));
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let (_, mut writer) = a.upload_raw("test.upload", Cause::default(), streaming).await.expect("opens");
    within(5, writer.send_bytes(Kind::Stdin, 0, pattern(0, 100_000))).await.expect("sends");
}

#[tokio::test]
async fn items_gaps_and_ends_keep_their_order() {
    let handler = sends(|mut writer: StreamWriter| async move {
        for n in 0..500u64 {
            if n == 250 {
                writer.gap(1000, 2000, GapReason::Retention).await.expect("a gap");
            }
            writer.send_item(&Cursor::new("e", n), &json!({ "n": n })).await.expect("sends");
        }
        writer.end(EndReason::Done, 500, None).await.expect("ends");
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let mut reader = open(&a, ITEMS).await;
    for n in 0..500u64 {
        if n == 250 {
            let Some(StreamEvent::Gap(gap)) = reader.next().await else { panic!("a gap") };
            assert_eq!((gap.from, gap.to, gap.reason), (1000, 2000, GapReason::Retention));
        }
        let Some(StreamEvent::Item { cursor, value }) = reader.next().await else { panic!("item {n}") };
        assert_eq!((cursor, value.get()), (Cursor::new("e", n), format!("{{\"n\":{n}}}").as_str()));
    }
    assert!(matches!(reader.next().await, Some(StreamEvent::End(end)) if end.reason == EndReason::Done));
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn items_of_any_size_up_to_a_message_get_through_a_small_window() {
    let sizes = [10, 20_000, 33_000, 200_000, 5, 250_000, 16_000, 31_000, 17_000, 1];
    let handler = sends(move |mut writer: StreamWriter| async move {
        for round in 0..5u64 {
            for size in sizes {
                let item = "x".repeat(size);
                writer.send_item(&Cursor::new("e", round), &item).await.expect("sends");
            }
        }
        let big = "x".repeat(300_000);
        assert!(matches!(
            writer.send_item(&Cursor::new("e", 0), &big).await,
            Err(SendError::TooLarge { .. })
        ));
        writer.end(EndReason::Done, 0, None).await.expect("ends");
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let mut reader = open(&a, ITEMS).await;
    let mut seen = Vec::new();
    while let Some(event) = within(10, reader.next()).await {
        match event {
            StreamEvent::Item { value, .. } => seen.push(value.get().len() - 2),
            StreamEvent::End(end) => assert_eq!(end.reason, EndReason::Done, "{end:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, sizes.repeat(5));
}

#[tokio::test]
async fn credit_reaches_beyond_a_gap() {
    let handler = sends(|mut writer: StreamWriter| async move {
        writer.send_bytes(Kind::File, 0, pattern(0, 1000)).await.expect("sends");
        writer.gap(1000, 5_000_000, GapReason::Discarded).await.expect("a gap");
        let error = writer.send_bytes(Kind::File, 1000, pattern(0, 1)).await;
        assert!(matches!(error, Err(SendError::OutOfOrder { offset: 1000, expected: 5_000_000 })));
        writer.send_bytes(Kind::File, 5_000_000, pattern(0, 100_000)).await.expect("sends");
        writer.end(EndReason::Done, 5_100_000, None).await.expect("ends");
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let (all, end) = within(5, drain(open(&a, "test.bytes").await)).await;
    assert_eq!((all.len(), end.offset), (101_000, 5_100_000));
}

#[tokio::test]
async fn a_reader_that_stops_taking_delays_nobody_and_costs_a_window() {
    let (sent, mut progress) = mpsc::channel(10_000);
    let handler = sends(move |mut writer: StreamWriter| {
        let sent = sent.clone();
        async move {
            let mut at = 0;
            loop {
                if writer.send_bytes(Kind::Stdout, at, pattern(at, 10_000)).await.is_err() {
                    return;
                }
                at += 10_000;
                let _ = sent.try_send((writer.id(), at));
            }
        }
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let stuck = open(&a, "test.bytes").await;
    let mut taking = open(&a, "test.bytes").await;
    let mut taken = 0;
    while taken < 2_000_000 {
        let Some(StreamEvent::Bytes { payload, .. }) = within(5, taking.next()).await else {
            panic!("bytes")
        };
        taken += payload.len();
        if taken % 7 == 0 {
            assert_eq!(within(5, call(&a, "test.ping", json!(null))).await, Ok(json!("pong")));
        }
    }
    let mut most = 0;
    while let Ok((id, at)) = progress.try_recv() {
        if id == stuck.id() {
            most = most.max(at);
        }
    }
    // What the window and the lane hold, and not a byte more.
    assert!(most <= (32 + 16) * 1024 + 10_000, "{most}");
}

#[tokio::test]
async fn a_stream_that_was_widened_runs_further_ahead_and_others_do_not() {
    const WIDE: u64 = 200 * 1024;
    let handler = sends(|mut writer: StreamWriter| async move {
        let mut at = 0;
        while writer.send_bytes(Kind::File, at, pattern(at, 10_000)).await.is_ok() {
            at += 10_000;
        }
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let came = |reader: datacentered_link::StreamReader| async move {
        // Nothing is taken while it fills; what has come then is there without waiting.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (mut reader, mut bytes) = (reader, 0);
        while let std::task::Poll::Ready(Some(StreamEvent::Bytes { payload, .. })) =
            std::future::poll_fn(|cx| std::task::Poll::Ready(reader.poll_next(cx))).await
        {
            bytes += payload.len() as u64;
            if bytes > 4 * WIDE {
                break;
            }
        }
        bytes
    };
    let mut wide = open(&a, "test.bytes").await;
    wide.widen(WIDE);
    let plain = open(&a, "test.bytes").await;
    let (wide, plain) = within(10, async { tokio::join!(came(wide), came(plain)) }).await;
    assert!(wide >= WIDE, "{wide}");
    assert!(plain < WIDE, "{plain}");
}

#[tokio::test]
async fn dropping_the_reader_stops_the_sender() {
    let (told, mut stopped) = mpsc::channel(4);
    let handler = sends(move |mut writer: StreamWriter| {
        let told = told.clone();
        async move {
            let mut at = 0;
            while writer.send_bytes(Kind::Stdout, at, pattern(at, 1000)).await.is_ok() {
                at += 1000;
            }
            writer.closed().await;
            let _ = told.send(writer.is_closed()).await;
        }
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let mut reader = open(&a, "test.bytes").await;
    reader.next().await;
    drop(reader);
    assert_eq!(within(5, stopped.recv()).await, Some(true));
    assert_eq!(call(&a, "test.ping", json!(null)).await, Ok(json!("pong")));
}

#[tokio::test]
async fn giving_up_an_opening_leaves_no_stream_on_the_other_side() {
    // One count for each body that exists, begun or not.
    let bodies = Arc::new(());
    let alive = bodies.clone();
    let handler = Arc::new(On(move |request: Request| {
        let alive = alive.clone();
        Called::later(async move {
            let Streaming { stream } = request.params()?;
            tokio::time::sleep(Duration::from_millis(stream.id.into())).await;
            if request.method == "test.upload" {
                return Answer::receive(&request.link, stream, 0, move |reader| async move {
                    drain(reader).await;
                    drop(alive);
                });
            }
            Answer::send(stream, None, move |writer: StreamWriter| async move {
                writer.closed().await;
                drop(alive);
            })
        })
    }));
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    for _ in 0..20 {
        let opening = a.open_raw("test.bytes", 0, Cause::default(), streaming);
        let _ = tokio::time::timeout(Duration::from_millis(15), opening).await;
        let opening = a.upload_raw("test.upload", Cause::default(), streaming);
        let _ = tokio::time::timeout(Duration::from_millis(15), opening).await;
    }
    let all_gone = async {
        // This test holds one, the handler another.
        while Arc::strong_count(&bodies) > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(5, all_gone).await;
}

#[tokio::test]
async fn a_writer_dropped_or_panicking_ends_the_stream_as_failed() {
    let handler = sends(|mut writer: StreamWriter| async move {
        writer.send_bytes(Kind::Stdout, 0, pattern(0, 10)).await.expect("sends");
        assert!(writer.offset() != Some(10), "on purpose");
    });
    let (a, _b, _drivers) = pair(&small(), nothing(), handler).await;
    let (all, end) = within(5, drain(open(&a, "test.bytes").await)).await;
    assert_eq!((all.len(), end.reason, end.offset), (10, EndReason::Failed, 10));
    assert_eq!(end.error.map(|error| error.code), Some(Code::Internal));
}

#[tokio::test]
async fn a_lost_link_ends_streams_after_what_had_come() {
    let (told, mut stopped) = mpsc::channel(4);
    let handler = sends(move |mut writer: StreamWriter| {
        let told = told.clone();
        async move {
            writer.send_bytes(Kind::Stdout, 0, pattern(0, 5000)).await.expect("sends");
            writer.closed().await;
            let _ = told.send(()).await;
        }
    });
    let (a, b, _drivers) = pair(&small(), nothing(), handler).await;
    let reader = open(&a, "test.bytes").await;
    while a.counters().bytes_in < 5000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    b.close("gone");
    let (all, end) = within(5, drain(reader)).await;
    assert_eq!((all.len(), end.reason, end.offset), (5000, EndReason::Failed, 5000));
    assert_eq!(end.error.map(|error| error.code), Some(Code::Unavailable));
    within(5, stopped.recv()).await.expect("the sender learns of it");
    let error = a.open_raw("test.bytes", 0, Cause::default(), streaming).await.expect_err("ended");
    assert_eq!(error.code, Code::Unavailable);
}

#[tokio::test]
async fn too_many_streams_are_limited_on_both_sides_and_closing_makes_room() {
    let handler = sends(|writer: StreamWriter| async move { writer.closed().await });
    let limits = Limits { streams_per_link: 3, ..small() };
    let (a, _b, _drivers) = pair(&limits, nothing(), handler).await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(open(&a, "test.bytes").await);
    }
    let error = a.open_raw("test.bytes", 0, Cause::default(), streaming).await.expect_err("too many");
    assert_eq!(error.code, Code::Limited);
    drop(readers);
    let again = async {
        while a.open_raw("test.bytes", 0, Cause::default(), streaming).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(5, again).await;
}

#[tokio::test]
async fn a_refused_opening_leaves_nothing_behind() {
    let handler = Arc::new(On(|_| Called::Now(Err(Error::forbidden("no")))));
    let limits = Limits { streams_per_link: 1, ..small() };
    let (a, b, _drivers) = pair(&limits, nothing(), handler).await;
    for _ in 0..3 {
        let error = a.open_raw("test.bytes", 0, Cause::default(), streaming).await.expect_err("no");
        assert_eq!(error.code, Code::Forbidden);
        let error = a.upload_raw("test.upload", Cause::default(), streaming).await.expect_err("no");
        assert_eq!(error.code, Code::Forbidden);
    }
    // Neither a close nor an end goes to the other side for a stream that it never opened.
    assert_eq!(b.counters().frames_in, 6);
}

/// One thing that a stream of the interleaving test sends.
#[derive(Clone, Debug)]
enum Step {
    Bytes(usize),
    Gap(u64),
    Yield,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (1usize..40_000).prop_map(Step::Bytes),
        1 => (1u64..1 << 40).prop_map(Step::Gap),
        2 => Just(Step::Yield),
    ];
    proptest::collection::vec(step, 0..12)
}

async fn interleaved(streams: Vec<(Vec<Step>, usize)>, window: u64) {
    let plans: Vec<Vec<Step>> = streams.iter().map(|(steps, _)| steps.clone()).collect();
    let handler = Arc::new(On(move |request: Request| {
        let opened = request.params::<(usize, StreamOpen)>();
        let plans = plans.clone();
        Called::Now(opened.and_then(|(which, stream)| {
            Answer::send(stream, None, move |mut writer: StreamWriter| async move {
                let mut at = 0u64;
                for step in &plans[which] {
                    match step {
                        Step::Bytes(len) => {
                            let sent = writer.send_bytes(Kind::Stdout, at, pattern(at, *len)).await;
                            sent.expect("sends");
                            at += *len as u64;
                        }
                        Step::Gap(len) => {
                            writer.gap(at, at + len, GapReason::Lost).await.expect("a gap");
                            at += len;
                        }
                        Step::Yield => tokio::task::yield_now().await,
                    }
                }
                writer.end(EndReason::Done, at, None).await.expect("ends");
            })
        }))
    }));
    let limits = Limits { stream_window: window, stream_lane: 4096, ..Limits::default() };
    let (a, _b, _drivers) = pair(&limits, nothing(), handler).await;
    let readers = streams.into_iter().enumerate().map(|(which, (steps, lag))| {
        let a = a.clone();
        async move {
            let opening = |stream| raw(&json!([which, stream]));
            let (_, mut reader) =
                a.open_raw("test.bytes", 0, Cause::default(), opening).await.expect("opens");
            let mut at = 0u64;
            loop {
                for _ in 0..lag {
                    tokio::task::yield_now().await;
                }
                match reader.next().await.expect("no end before the end") {
                    StreamEvent::Bytes { offset, payload, .. } => {
                        assert_eq!(offset, at);
                        assert_eq!(payload, pattern(at, payload.len()));
                        at += payload.len() as u64;
                    }
                    StreamEvent::Gap(gap) => {
                        assert_eq!(gap.from, at);
                        at = gap.to;
                    }
                    StreamEvent::End(end) => {
                        assert_eq!((end.reason, end.offset), (EndReason::Done, at), "{end:?}");
                        break;
                    }
                    StreamEvent::Item { .. } => panic!("no items here"),
                }
            }
            let total: u64 = steps
                .iter()
                .map(|step| match step {
                    Step::Bytes(len) => *len as u64,
                    Step::Gap(len) => *len,
                    Step::Yield => 0,
                })
                .sum();
            assert_eq!(at, total);
        }
    });
    within(60, futures_util::future::join_all(readers)).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order(
        streams in proptest::collection::vec((steps(), 0usize..30), 1..6),
        window in 1024u64..100_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(interleaved(streams, window));
    }
}

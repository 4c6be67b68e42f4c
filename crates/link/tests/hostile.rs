//! A peer that breaks the rules, knowingly or not.

mod support;

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::{Answer, Called, CloseReason, Limits, Request, StreamReader, StreamWriter};
use datacentered_proto::Code;
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::{EndReason, StreamEnd};
use datacentered_proto::rpc::Cause;
use futures_util::SinkExt;
use proptest::prelude::*;
use serde_json::json;
use support::*;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// What came on a stream, and how it ended.
type Received = (Vec<u8>, StreamEnd);

/// Receives one stream per call and tells how it ended.
fn receives() -> (Arc<dyn datacentered_link::Handler>, mpsc::Receiver<Received>) {
    let (done, results) = mpsc::channel(16);
    let handler = Arc::new(On(move |request: Request| {
        let done = done.clone();
        if request.method == "test.echo" {
            return Called::reply(&"echo");
        }
        Called::Now(request.params::<Streaming>().and_then(|Streaming { stream }| {
            Answer::receive(&request.link, stream, 0, move |reader: StreamReader| async move {
                let _ = done.send(drain(reader).await).await;
            })
        }))
    }));
    (handler, results)
}

async fn alive(peer: &mut Raw) {
    peer.request(99, "test.echo", json!({})).await;
    loop {
        let answer = within(5, peer.json()).await;
        if answer["id"] == json!(99) {
            assert_eq!(answer["result"], json!("echo"));
            return;
        }
    }
}

#[tokio::test]
async fn overrunning_the_credit_ends_the_stream_only() {
    let (handler, mut results) = receives();
    let (mut peer, _link, _drivers) = raw_peer(&small(), handler).await;
    peer.request(1, "test.upload", json!({"stream": {"id": 1}})).await;
    assert_eq!(peer.json().await["result"]["credit"], json!(32 * 1024));
    peer.send_bytes(1, 0, vec![0; 32 * 1024 + 1]).await;
    let (_, end) = within(5, results.recv()).await.expect("an end");
    assert_eq!(end.error.as_ref().map(|error| error.code), Some(Code::Invalid), "{end:?}");
    assert_eq!(
        peer.json().await,
        json!({"jsonrpc": "2.0", "method": "stream.close", "params": {"stream": 1}})
    );
    // What still comes on it is ignored.
    peer.send_bytes(1, 0, vec![0; 100]).await;
    alive(&mut peer).await;
}

#[tokio::test]
async fn holes_without_a_gap_items_among_bytes_and_gaps_backwards_end_the_stream() {
    let (handler, mut results) = receives();
    let (mut peer, _link, _drivers) = raw_peer(&small(), handler).await;
    for (n, stream) in [1, 3, 5, 7, 9].into_iter().enumerate() {
        peer.request(stream, "test.upload", json!({"stream": {"id": stream}})).await;
        let stream = stream as u32;
        match n {
            0 => peer.send_bytes(stream, 1, vec![0; 10]).await,
            1 => peer.send_bytes(stream, u64::MAX, vec![0; 10]).await,
            2 => peer.notify("stream.item", json!({"stream": stream, "cursor": "e-1", "value": 1})).await,
            3 => {
                peer.notify("stream.gap", json!({"stream": stream, "from": 0, "to": 0, "reason": "lost"}))
                    .await;
            }
            _ => {
                peer.notify("stream.gap", json!({"stream": stream, "from": 5, "to": 9, "reason": "lost"}))
                    .await;
            }
        }
        let (_, end) = within(5, results.recv()).await.expect("an end");
        assert_eq!(end.reason, EndReason::Failed, "{n}");
        assert_eq!(end.error.map(|error| error.code), Some(Code::Invalid), "{n}");
    }
    alive(&mut peer).await;
}

#[tokio::test]
async fn stream_numbers_are_checked() {
    let (handler, _results) = receives();
    let (mut peer, _link, _drivers) = raw_peer(&small(), handler).await;
    for (id, stream, fine) in
        [(1, 1, true), (2, 1, false), (3, 2, false), (4, 0, false), (5, 3, true), (6, 3, false)]
    {
        peer.request(id, "test.upload", json!({"stream": {"id": stream}})).await;
        let answer = peer.json().await;
        assert_eq!(answer["id"], json!(id));
        assert_eq!(answer.get("result").is_some(), fine, "{answer}");
        if !fine {
            assert_eq!(answer["error"]["data"]["code"], json!("invalid"));
        }
    }
    alive(&mut peer).await;
}

#[tokio::test]
async fn unknown_streams_and_answers_are_ignored() {
    let (handler, _results) = receives();
    let (mut peer, link, _drivers) = raw_peer(&small(), handler).await;
    peer.send_bytes(77, 5, vec![1; 100]).await;
    peer.notify("stream.credit", json!({"stream": 8, "upto": 7})).await;
    peer.notify("stream.close", json!({"stream": 8})).await;
    peer.notify("stream.close", json!({"stream": 7})).await;
    peer.notify("stream.end", json!({"stream": 9, "reason": "done", "offset": 1})).await;
    peer.notify("stream.item", json!({"stream": 9, "cursor": "e-1", "value": 1})).await;
    peer.notify("nobody.knows", json!(null)).await;
    peer.send(&json!({"jsonrpc": "2.0", "id": 1234, "result": 1})).await;
    peer.send(&json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "no"}})).await;
    peer.ws.send(Message::Ping("x".into())).await.expect("sends");
    assert_eq!(peer.message().await, Message::Pong("x".into()));
    alive(&mut peer).await;
    // A stream that was given up before it was opened is not opened any more.
    peer.request(5, "test.upload", json!({"stream": {"id": 7}})).await;
    assert_eq!(peer.json().await["error"]["data"]["code"], json!("invalid"));
    assert!(!link.is_closed());
}

#[tokio::test]
async fn malformed_messages_are_answered_and_the_link_stays() {
    let (handler, _results) = receives();
    let (mut peer, _link, _drivers) = raw_peer(&small(), handler).await;
    for (text, number) in
        [("{", -32700), ("[]", -32600), ("7", -32600), (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, -32600)]
    {
        peer.send_text(text).await;
        assert_eq!(peer.json().await["error"]["code"], json!(number), "{text}");
    }
    alive(&mut peer).await;
}

#[tokio::test]
async fn what_cannot_be_understood_closes_the_link_and_says_why() {
    let header = {
        let mut bytes = vec![0u8; 20];
        bytes[0] = 9;
        bytes
    };
    let cases: Vec<(Message, u16)> = vec![
        (Message::Binary(header.into()), 1002),
        (Message::Binary(vec![1u8, 1].into()), 1002),
        (Message::Binary(vec![0u8; 300 * 1024].into()), 1009),
        (Message::text("x".repeat(300 * 1024)), 1009),
        (
            Message::Frame(tokio_tungstenite::tungstenite::protocol::frame::Frame::message(
                vec![0xff, 0xfe],
                tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode::Data(
                    tokio_tungstenite::tungstenite::protocol::frame::coding::Data::Text,
                ),
                true,
            )),
            1007,
        ),
        (Message::text(r#"{"jsonrpc":"2.0","method":"stream.item","params":{"stream":"x"}}"#), 1002),
    ];
    for (message, code) in cases {
        let shown: String = format!("{message:?}").chars().take(60).collect();
        let (mut peer, link, mut drivers) = raw_peer(&small(), nothing()).await;
        peer.ws.send(message).await.expect("sends");
        assert_eq!(within(5, peer.closed_with()).await, code, "{shown}");
        match link.closed().await {
            CloseReason::TooLarge { limit, .. } => assert_eq!((code, limit), (1009, 256 * 1024)),
            CloseReason::Protocol { .. } => assert_ne!(code, 1009),
            other => panic!("{shown}: {other:?}"),
        }
        drop(peer);
        within(5, drivers.join_next()).await.expect("a driver").expect("no panic");
    }
}

#[tokio::test]
async fn tiny_frames_cost_no_more_than_the_limit() {
    let (held, mut readers) = mpsc::channel(1);
    let handler = Arc::new(On(move |request: Request| {
        let held = held.clone();
        Called::Now(request.params::<Streaming>().and_then(|Streaming { stream }| {
            Answer::receive(&request.link, stream, 0, move |reader| async move {
                let _ = held.send(reader).await;
            })
        }))
    }));
    let limits = Limits { stream_events: 16, ..small() };
    let (mut peer, link, _drivers) = raw_peer(&limits, handler).await;
    // Frames of one kind are joined, however small.
    peer.request(1, "test.upload", json!({"stream": {"id": 1}})).await;
    peer.json().await;
    for at in 0..1000 {
        peer.send_bytes(1, at, vec![7]).await;
    }
    peer.notify("stream.end", json!({"stream": 1, "reason": "done", "offset": 1000})).await;
    let reader = readers.recv().await.expect("a reader");
    let (all, end) = within(5, drain(reader)).await;
    assert_eq!((all.len(), end.reason), (1000, EndReason::Done));
    // Alternating gaps cannot be joined; too many of them end the stream.
    peer.request(3, "test.upload", json!({"stream": {"id": 3}})).await;
    for at in 0..20 {
        peer.notify("stream.gap", json!({"stream": 3, "from": at, "to": at + 1, "reason": "lost"})).await;
    }
    while link.counters().frames_in < 1023 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (_, end) = within(5, drain(readers.recv().await.expect("a reader"))).await;
    assert_eq!(end.error.map(|error| error.code), Some(Code::Limited));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_calls_and_never_reads_is_held_back_and_then_dropped() {
    let limits = Limits { control_queue: 64, calls_in_flight: 16, ..Limits::default() };
    let (mut peer, link, mut drivers) = raw_peer(&limits, echo()).await;
    let flood = async {
        for id in 0..1_000_000u64 {
            let text = json!({"jsonrpc": "2.0", "id": id, "method": "x", "params": "0123456789"}).to_string();
            if peer.ws.send(Message::text(text)).await.is_err() {
                return id;
            }
        }
        1_000_000
    };
    let (sent, reason) = tokio::join!(flood, async {
        within(120, drivers.join_next()).await.expect("a driver").expect("no panic")
    });
    assert!(sent < 2000, "{sent} calls were taken from a peer that reads no answer");
    assert!(matches!(reason, CloseReason::Silent { .. }), "{reason:?}");
    assert!(link.is_closed());
}

#[tokio::test]
async fn a_sender_waits_for_credit_and_a_lower_credit_is_ignored() {
    let handler = Arc::new(On(|request: Request| {
        Called::Now(request.params::<Streaming>().and_then(|Streaming { stream }| {
            Answer::send(stream, None, |mut writer: StreamWriter| async move {
                let _ = writer.send_bytes(Kind::Stdout, 0, vec![0; 100_000].into()).await;
            })
        }))
    }));
    let (mut peer, _link, _drivers) = raw_peer(&small(), handler).await;
    peer.request(1, "test.bytes", json!({"stream": {"id": 1, "credit": 10}})).await;
    assert_eq!(peer.json().await["id"], json!(1), "the reply comes before the first byte");
    assert_eq!(peer.message().await.len(), 16 + 10);
    peer.notify("stream.credit", json!({"stream": 1, "upto": 5})).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), peer.message()).await.is_err());
    peer.notify("stream.credit", json!({"stream": 1, "upto": 25})).await;
    assert_eq!(peer.message().await.len(), 16 + 15);
    peer.notify("stream.close", json!({"stream": 1})).await;
    let end = within(5, peer.json()).await;
    assert_eq!((&end["method"], &end["params"]["reason"]), (&json!("stream.end"), &json!("closed")));
}

#[tokio::test]
async fn a_hub_that_answers_nonsense_to_an_opening_is_told_apart() {
    let (mut peer, link, _drivers) = raw_peer(&small(), nothing()).await;
    let calling =
        link.call::<datacentered_proto::operations::HubStatus>(&datacentered_proto::ops::NoParams {});
    let answering = async {
        let id = peer.json().await["id"].clone();
        peer.send(&json!({"jsonrpc": "2.0", "id": id, "result": "nonsense"})).await;
    };
    let (result, ()) = tokio::join!(calling, answering);
    assert_eq!(result.expect_err("nonsense").code, Code::Internal);
    let opening = link.upload_raw("test.upload", Cause::default(), streaming);
    let answering = async {
        let id = peer.json().await["id"].clone();
        peer.send(&json!({"jsonrpc": "2.0", "id": id, "result": 5})).await;
    };
    let (result, ()) = tokio::join!(opening, answering);
    assert_eq!(result.expect_err("nonsense").code, Code::Internal);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes, the driver ends or goes on, and never panics.
    #[test]
    fn garbage_never_panics(
        messages in proptest::collection::vec(
            prop_oneof![
                any::<String>().prop_map(Message::text),
                proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Message::Binary(bytes.into())),
                ("(stream\\.(item|gap|end|credit|close)|test.upload|link.ping)", any::<u8>(), any::<u64>(), any::<bool>())
                    .prop_map(|(method, stream, number, request)| {
                        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": {
                            "stream": stream % 6, "upto": number, "from": number % 7, "to": number % 11,
                            "reason": "lost", "cursor": "e-1", "value": number, "offset": number,
                        }});
                        if request {
                            message["id"] = json!(number);
                            message["params"] = json!({"stream": {"id": stream, "credit": number}});
                        }
                        Message::text(message.to_string())
                    }),
                (any::<u8>(), 0u64..40, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(stream, offset, payload)| {
                    let frame = datacentered_proto::frame::Frame {
                        kind: Kind::Stdin, stream: u32::from(stream % 6), offset, payload: payload.into(),
                    };
                    Message::Binary(frame.encode())
                }),
            ],
            0..40,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (handler, _results) = receives();
            let (mut peer, _link, mut drivers) = raw_peer(&small(), handler).await;
            for message in messages {
                if peer.ws.send(message).await.is_err() {
                    break;
                }
            }
            drop(peer);
            within(10, drivers.join_next()).await.expect("a driver").expect("no panic");
        });
    }
}

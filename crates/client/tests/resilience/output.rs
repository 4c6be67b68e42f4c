//! Output is byte-exact across lost connections.

use std::sync::Arc;

use bytes::Bytes;
use datacentered_client::{Clock, OutputEvent};
use datacentered_link::{Answer, Called};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::run::OutputParams;
use datacentered_proto::ops::{EndReason, GapReason};
use datacentered_proto::{Code, Cursor, Error};

use crate::fake_hub::FakeHub;

/// The one record of a job: both streams in one sequence, the kind by place.
fn record(len: usize) -> Arc<Vec<u8>> {
    Arc::new((0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8).collect())
}

fn kind_at(offset: u64) -> Kind {
    if (offset / 1000) % 3 == 2 { Kind::Stderr } else { Kind::Stdout }
}

/// A hub that sends `record` from where it is asked to, and cuts each connection after about `cut_after` bytes.
fn hub(record: Arc<Vec<u8>>, cut_after: usize) -> FakeHub {
    FakeHub::start(move |request, connection| {
        let params: OutputParams = request.params().expect("parameters");
        let from = match &params.cursor {
            Some(cursor) => {
                assert_eq!(cursor.epoch, "e1", "the cursor is handed back as it was given");
                cursor.offset
            }
            None => params.from,
        };
        let (record, connection) = (Arc::clone(&record), connection.clone());
        let answer =
            Answer::send(params.stream, Some(Cursor::new("e1", from)), move |mut writer| async move {
                let mut at = from;
                while at < record.len() as u64 {
                    if (at - from) as usize > cut_after {
                        connection.cut();
                        return std::future::pending().await;
                    }
                    let end = ((at / 1000 + 1) * 1000).min(record.len() as u64);
                    let piece = Bytes::copy_from_slice(&record[at as usize..end as usize]);
                    if writer.send_bytes(kind_at(at), at, piece).await.is_err() {
                        return;
                    }
                    at = end;
                }
                writer.end(EndReason::Done, at, None).await.ok();
            });
        Called::Now(answer)
    })
}

async fn read(hub: &FakeHub, from: u64) -> (Vec<u8>, Vec<u8>) {
    let client = hub.client().await;
    let mut output = client.output(Clock::system().run_id(), Some("web1".into()), from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut at = from;
    loop {
        match output.next().await.expect("no failure").expect("an end before the end") {
            OutputEvent::Bytes { kind, offset, bytes } => {
                assert_eq!(offset, at);
                assert_eq!(kind, kind_at(offset));
                at += bytes.len() as u64;
                if kind == Kind::Stderr {
                    err.extend_from_slice(&bytes);
                } else {
                    out.extend_from_slice(&bytes);
                }
                assert_eq!(output.position(), at);
            }
            OutputEvent::Gap { .. } => panic!("nothing is missing"),
            OutputEvent::End { offset } => {
                assert_eq!(offset, at);
                assert_eq!(output.next().await.expect("no failure"), None);
                return (out, err);
            }
        }
    }
}

fn expected(record: &[u8], from: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for (at, byte) in record.iter().enumerate().skip(from as usize) {
        if kind_at(at as u64) == Kind::Stderr { err.push(*byte) } else { out.push(*byte) }
    }
    (out, err)
}

#[tokio::test]
async fn byte_exact_across_many_cuts() {
    let record = record(300_000);
    let hub = hub(Arc::clone(&record), 40_000);
    assert_eq!(read(&hub, 0).await, expected(&record, 0));
    assert!(hub.connections() > 3, "{} connections", hub.connections());
}

#[tokio::test]
async fn from_the_middle_and_without_a_cut() {
    let record = record(10_500);
    let hub = hub(Arc::clone(&record), usize::MAX);
    assert_eq!(read(&hub, 4321).await, expected(&record, 4321));
    assert_eq!(hub.connections(), 1);
}

#[tokio::test]
async fn gaps_are_told_and_a_new_history_is_read_on() {
    let hub = FakeHub::start(|request, _| {
        let params: OutputParams = request.params().expect("parameters");
        let (stale, from) =
            (params.cursor.is_some(), params.cursor.map_or(params.from, |cursor| cursor.offset));
        Called::Now(Answer::send(
            params.stream,
            Some(Cursor::new("e1", from)),
            move |mut writer| async move {
                match (stale, from) {
                    (false, 0) => {
                        writer.gap(0, 100, GapReason::Retention).await.ok();
                        writer.send_bytes(Kind::Stdout, 100, Bytes::from_static(b"abc")).await.ok();
                        // The hub goes down in the middle, in good order.
                        writer.end(EndReason::Failed, 103, Some(Error::unavailable("going down"))).await.ok();
                    }
                    (true, _) => {
                        writer.end(EndReason::Gap, from, None).await.ok();
                    }
                    (false, _) => {
                        writer.send_bytes(Kind::Stdout, from, Bytes::from_static(b"def")).await.ok();
                        writer.end(EndReason::Done, from + 3, None).await.ok();
                    }
                }
            },
        ))
    });
    let client = hub.client().await;
    let mut output = client.output(Clock::system().run_id(), None, 0);
    let mut events = Vec::new();
    while let Some(event) = output.next().await.expect("no failure") {
        events.push(event);
    }
    let bytes = |offset, bytes: &'static [u8]| OutputEvent::Bytes {
        kind: Kind::Stdout,
        offset,
        bytes: Bytes::from_static(bytes),
    };
    assert_eq!(
        events,
        [
            OutputEvent::Gap { from: 0, to: 100, reason: GapReason::Retention },
            bytes(100, b"abc"),
            OutputEvent::Gap { from: 103, to: 103, reason: GapReason::Lost },
            bytes(103, b"def"),
            OutputEvent::End { offset: 106 },
        ]
    );
}

#[tokio::test]
async fn what_may_not_be_read_is_an_error_and_not_an_end() {
    let hub = FakeHub::start(|request, _| {
        let params: OutputParams = request.params().expect("parameters");
        Called::Now(Answer::send(params.stream, None, |mut writer| async move {
            writer.send_bytes(Kind::Stdout, 0, Bytes::from_static(b"a")).await.ok();
            writer.end(EndReason::Revoked, 1, None).await.ok();
        }))
    });
    let client = hub.client().await;
    let mut output = client.output(Clock::system().run_id(), None, 0);
    assert!(matches!(output.next().await, Ok(Some(OutputEvent::Bytes { .. }))));
    assert_eq!(output.next().await.expect_err("revoked").code(), Some(Code::Forbidden));
    assert_eq!(output.next().await, Ok(None));
}

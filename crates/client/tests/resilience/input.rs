//! Standard input reaches the hub whole, across lost connections.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use datacentered_client::{Clock, Error};
use datacentered_link::{Answer, Called, StreamEvent};
use datacentered_proto::ops::run::InputParams;
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::{Cursor, rpc};

use crate::fake_hub::FakeHub;

/// What the hub holds, and whether it has seen the end.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    ended: bool,
}

/// A hub that takes input, and cuts each connection after `cut_after` bytes; `forget` bytes are lost with it.
fn hub(held: Arc<Mutex<Held>>, cut_after: usize, forget: usize) -> FakeHub {
    FakeHub::start(move |request, connection| {
        let params: InputParams = request.params().expect("parameters");
        let from = {
            let mut held = held.lock().expect("lock");
            let kept = if connection.number == 1 { 0 } else { held.bytes.len().saturating_sub(forget) };
            held.bytes.truncate(kept);
            kept as u64
        };
        let credit = request.link.first_credit(from);
        let reply = rpc::raw(&StreamOpened { cursor: Some(Cursor::new("e", from)), credit: Some(credit) });
        let (held, connection) = (Arc::clone(&held), connection.clone());
        Called::Now(Ok(Answer::Receive {
            reply: reply.expect("encodes"),
            stream: params.stream,
            from,
            body: Box::new(move |mut reader| {
                Box::pin(async move {
                    let mut taken = 0;
                    while let Some(event) = reader.next().await {
                        match event {
                            StreamEvent::Bytes { offset, payload, .. } => {
                                let mut held = held.lock().expect("lock");
                                assert_eq!(offset, held.bytes.len() as u64);
                                held.bytes.extend_from_slice(&payload);
                                taken += payload.len();
                                if taken > cut_after {
                                    connection.cut();
                                    return;
                                }
                            }
                            StreamEvent::End(end) => {
                                held.lock().expect("lock").ended = end.reason == EndReason::Done;
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                })
            }),
        }))
    })
}

fn input(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 9) as u8).collect()
}

async fn send(hub: &FakeHub, bytes: &[u8], held: &Mutex<Held>) -> Result<(), Error> {
    let client = hub.client().await;
    let mut writer = client.input(Clock::system().run_id());
    for chunk in bytes.chunks(10_000) {
        assert!(writer.write(Bytes::copy_from_slice(chunk)).await?);
    }
    let ended = async {
        while !held.lock().expect("lock").ended {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        finished = writer.finish() => finished,
        () = ended => Ok(()),
    }
}

#[tokio::test]
async fn whole_across_many_cuts() {
    let bytes = input(700_000);
    let held = Arc::new(Mutex::new(Held::default()));
    let hub = hub(Arc::clone(&held), 150_000, 20_000);
    send(&hub, &bytes, &held).await.expect("sent");
    assert!(held.lock().expect("lock").bytes == bytes, "the bytes are the same");
    assert!(hub.connections() >= 4);
}

#[tokio::test]
async fn what_the_hub_has_lost_for_good_is_an_error() {
    let bytes = input(5_000_000);
    let held = Arc::new(Mutex::new(Held::default()));
    let hub = hub(Arc::clone(&held), 3_000_000, usize::MAX);
    let error = send(&hub, &bytes, &held).await.expect_err("three megabytes are not kept");
    assert_eq!(error, Error::InputLost { missing: 0 });
}

#[tokio::test]
async fn a_run_that_has_ended_takes_no_more() {
    let hub =
        FakeHub::start(|_, _| Called::Now(Err(datacentered_proto::Error::conflict("the run has ended"))));
    let client = hub.client().await;
    let mut writer = client.input(Clock::system().run_id());
    assert_eq!(writer.write(Bytes::from_static(b"x")).await, Ok(false));
    assert_eq!(writer.finish().await, Ok(()));
}

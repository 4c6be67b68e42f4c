//! Streams of items go on behind the last one.

use datacentered_client::ItemEvent;
use datacentered_link::{Answer, Called};
use datacentered_proto::operations::EventWatch;
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::event::{Event, WatchParams};
use datacentered_proto::{Cursor, Timestamp};
use serde_json::Value;

use crate::fake_hub::FakeHub;

const EVENTS: u64 = 500;

fn event(number: u64) -> Event {
    Event { at: Timestamp::EPOCH, kind: "test.event".into(), about: number.to_string(), detail: Value::Null }
}

async fn about(hub: &FakeHub) -> (Vec<String>, usize) {
    let client = hub.client().await;
    let mut stream =
        client.items::<EventWatch>(|cursor, stream| WatchParams { cursor, stream, ..WatchParams::default() });
    let (mut seen, mut gaps) = (Vec::new(), 0);
    while let Some(event) = stream.next().await.expect("no failure") {
        match event {
            ItemEvent::Item { value, .. } => seen.push(value.about),
            ItemEvent::Gap => gaps += 1,
        }
    }
    (seen, gaps)
}

#[tokio::test]
async fn every_item_once_and_in_order_across_cuts() {
    let hub = FakeHub::start(|request, connection| {
        let params: WatchParams = request.params().expect("parameters");
        let from = params.cursor.map_or(0, |cursor| cursor.offset);
        let connection = connection.clone();
        Called::Now(Answer::send(params.stream, None, move |mut writer| async move {
            for number in from..EVENTS {
                if number == from + 100 {
                    connection.cut();
                    return std::future::pending().await;
                }
                if writer.send_item(&Cursor::new("e", number + 1), &event(number)).await.is_err() {
                    return;
                }
            }
            writer.end(EndReason::Done, EVENTS, None).await.ok();
        }))
    });
    let (seen, gaps) = about(&hub).await;
    assert_eq!(seen, (0..EVENTS).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(gaps, 0);
    assert!(hub.connections() >= 5);
}

#[tokio::test]
async fn a_history_that_is_gone_is_told_and_begun_again() {
    let hub = FakeHub::start(|request, _| {
        let params: WatchParams = request.params().expect("parameters");
        let fresh = params.cursor.is_none();
        Called::Now(Answer::send(params.stream, None, move |mut writer| async move {
            if fresh {
                writer.send_item(&Cursor::new("e", 1), &event(1)).await.ok();
                writer
                    .end(EndReason::Failed, 0, Some(datacentered_proto::Error::limited("fell behind")))
                    .await
                    .ok();
            } else {
                writer.end(EndReason::Gap, 0, None).await.ok();
            }
        }))
    });
    let client = hub.client().await;
    let mut stream =
        client.items::<EventWatch>(|cursor, stream| WatchParams { cursor, stream, ..WatchParams::default() });
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(matches!(stream.next().await, Ok(Some(ItemEvent::Gap))));
    }
    assert_eq!(told, [false, true, false, true]);
}

//! Readers at their own pace: several on one run, one that never reads, input that is resumed.

use std::time::Duration;

use datacentered_link::StreamEvent;
use datacentered_proto::Outcome;
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{EventWatch, RunOutput};
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::event::{Event, WatchParams};
use datacentered_proto::ops::run::OutputParams;

use super::agent::{Agent, Script};
use super::clients::{create, output, wait};
use super::world::{World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn one_reader_that_never_reads_delays_nobody() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    eventually("accepted", || !agent.journal.lock().expect("lock").jobs.is_empty()).await;
    let job = *agent.journal.lock().expect("lock").jobs.keys().next().expect("job");
    let stuck = world.client(Role::Viewer).await;
    let open = |stream| OutputParams { run, host: None, cursor: None, from: 0, stream };
    let (_, never_read) = stuck.open::<RunOutput>(0, open).await.expect("output");
    let text = "0123456789abcdef".repeat(64 * 1024);
    for _ in 0..4 {
        agent.print(job, Kind::Stdout, &text);
    }
    agent.end(&link, job, Outcome::Exited { code: 0 }).await.expect("reported");
    let all: Vec<u8> = output(&client, run, None, 0).await.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(all.len(), 4 * text.len());
    assert!(all == text.repeat(4).into_bytes());
    wait(&client, run).await;
    // The same link still answers, and the stuck stream is still whole once it is read.
    let late = output(&stuck, run, None, all.len() as u64 - 5).await;
    assert_eq!(late, [(Kind::Stdout, b"bcdef".to_vec())]);
    let mut reader = never_read;
    let mut read = 0;
    while let Some(event) = reader.next().await {
        match event {
            StreamEvent::Bytes { payload, .. } => read += payload.len(),
            _ => break,
        }
    }
    assert_eq!(read, all.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_resumed_from_any_cursor() {
    let world = World::new().await;
    let client = world.client(Role::Viewer).await;
    let (_agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let open =
        |cursor| move |stream| WatchParams { cursor, from_start: true, kinds: vec!["host.".into()], stream };
    let mut seen = Vec::new();
    let mut cursor = None;
    for wanted in ["host.enrolled", "host.online"] {
        let (_, mut reader) = client.open::<EventWatch>(0, open(cursor.take())).await.expect("watch");
        let next = tokio::time::timeout(Duration::from_secs(10), reader.next()).await.expect("in time");
        let Some(StreamEvent::Item { cursor: at, value }) = next else { panic!("{next:?}") };
        let event: Event = serde_json::from_str(value.get()).expect("event");
        assert_eq!(event.kind, wanted);
        seen.push(event.about);
        cursor = Some(at);
    }
    assert_eq!(seen, ["a", "a"]);
}

//! What clients of these tests do.

use datacentered_link::{Link, StreamEvent};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{RunCreate, RunOutput, RunShow, RunWatch};
use datacentered_proto::ops::job::ExecSpec;
use datacentered_proto::ops::run::{
    CreateParams, OfflinePolicy, OutputParams, RunReply, ShowParams, Target, WatchParams,
};
use datacentered_proto::ops::{EndReason, StreamOpen};
use datacentered_proto::{Error, RunId};

use super::world::{PATIENCE, World};

impl World {
    pub(super) fn run_params(&self, on: &[&str]) -> CreateParams {
        CreateParams {
            key: RunId::from_uuid(self.hub.clock.uuid()),
            on: on.iter().map(ToString::to_string).collect(),
            exec: ExecSpec::command(vec!["true".into()]),
            offline: OfflinePolicy::Fail,
            expires_ms: 60_000,
            max_parallel: None,
        }
    }
}

pub(super) async fn create(client: &Link, params: &CreateParams) -> Result<RunReply, Error> {
    client.call::<RunCreate>(params).await
}

pub(super) async fn show(client: &Link, run: RunId) -> RunReply {
    client.call::<RunShow>(&ShowParams { run, limit: None, next: None }).await.expect("shown")
}

/// Watches a run to its end.
pub(super) async fn wait(client: &Link, run: RunId) -> RunReply {
    let watched = tokio::time::timeout(PATIENCE, async {
        let (_, mut reader) = client
            .open::<RunWatch>(0, |stream| WatchParams { run, cursor: None, stream })
            .await
            .expect("watch");
        loop {
            match reader.next().await.expect("an end") {
                StreamEvent::End(end) => {
                    assert_eq!(end.reason, EndReason::Done, "{end:?}");
                    return;
                }
                StreamEvent::Item { value, .. } => {
                    serde_json::from_str::<Target>(value.get()).expect("a target");
                }
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(watched.await.is_ok(), "the run never ended: {:#?}", show(client, run).await);
    show(client, run).await
}

/// Reads one target's output from an offset to its end.
pub(super) async fn output(client: &Link, run: RunId, host: Option<&str>, from: u64) -> Vec<(Kind, Vec<u8>)> {
    let open =
        |stream: StreamOpen| OutputParams { run, host: host.map(str::to_owned), cursor: None, from, stream };
    let (_, mut reader) = client.open::<RunOutput>(from, open).await.expect("output");
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, async {
        let mut at = from;
        while let Some(event) = reader.next().await {
            match event {
                StreamEvent::Bytes { kind, offset, payload } => {
                    assert_eq!(offset, at);
                    at += payload.len() as u64;
                    all.push((kind, payload.to_vec()));
                }
                StreamEvent::Gap(gap) => at = gap.to,
                StreamEvent::End(end) => {
                    assert_eq!((end.reason, end.offset), (EndReason::Done, at), "{end:?}");
                    return;
                }
                StreamEvent::Item { .. } => panic!("an item among bytes"),
            }
        }
    });
    assert!(read.await.is_ok(), "the output never ended");
    all
}

//! A change happens once, however often it is asked for.

use std::collections::BTreeMap;

use datacentered_proto::operations::{AuditList, HostLabel, HostList, HostRename, RunCreate, TokenCreate};
use datacentered_proto::ops::access::{Role, TokenCreateParams, TokenKind};
use datacentered_proto::ops::audit::{ListParams as AuditParams, Phase};
use datacentered_proto::ops::host::{LabelParams, ListParams, RenameParams};
use datacentered_proto::{ByteString, Code};

use super::agent::{Agent, Script};
use super::clients::{create, wait};
use super::world::World;

fn label(key: datacentered_proto::OperationKey, value: &str) -> LabelParams {
    LabelParams { key, host: "a".into(), set: [("x".to_owned(), value.to_owned())].into(), remove: vec![] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_reply_and_another_call_a_conflict() {
    let world = World::new().await;
    let (_agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let key = world.key();
    let first = client.call::<HostLabel>(&label(key, "1")).await.expect("labelled");
    client.call::<HostLabel>(&label(world.key(), "2")).await.expect("labelled again");
    let repeat = client.call::<HostLabel>(&label(key, "1")).await.expect("repeated");
    assert_eq!(repeat.labels, first.labels, "the first reply, not a second change");
    let now = client.call::<HostList>(&ListParams::default()).await.expect("list").hosts;
    assert_eq!(now[0].labels["x"], "2");
    let other = client.call::<HostLabel>(&label(key, "3")).await.expect_err("other parameters");
    assert_eq!(other.code, Code::Conflict);
    let rename = RenameParams { key, host: "a".into(), name: "b".into() };
    assert_eq!(client.call::<HostRename>(&rename).await.expect_err("other operation").code, Code::Conflict);
    // Another caller's keys are another scope.
    world.client(Role::Operator).await.call::<HostLabel>(&label(key, "4")).await.expect("its own");

    // And it outlives the hub.
    let admin_key = world.key();
    let admin = world.admin().await;
    let before = admin.call::<HostLabel>(&label(admin_key, "5")).await.expect("labelled");
    let world = world.restart().await;
    let again = world.admin().await.call::<HostLabel>(&label(admin_key, "5")).await.expect("repeated");
    assert_eq!(again.labels, before.labels);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_with_one_key_are_one_change() {
    let world = World::new().await;
    let (_agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let key = world.key();
    let params = label(key, "1");
    let calls = (0..20).map(|_| client.call::<HostLabel>(&params));
    for reply in futures_util::future::join_all(calls).await {
        reply.expect("each gets the reply");
    }
    let records = world.hub.store.view(|view| view.dedupe.keys().filter(|(_, used)| *used == key).count());
    assert_eq!(records, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_token_is_the_same_token() {
    let world = World::new().await;
    let params = TokenCreateParams {
        key: world.key(),
        kind: TokenKind::Api,
        name: "t".into(),
        role: Some(Role::Viewer.into()),
        ttl_ms: None,
        uses: None,
        labels: BTreeMap::new(),
    };
    let admin = world.admin().await;
    let first = admin.call::<TokenCreate>(&params).await.expect("made");
    let repeat = admin.call::<TokenCreate>(&params).await.expect("repeated");
    assert_eq!((first.id, first.token.clone()), (repeat.id, repeat.token));
    let stored = world.hub.store.view(|view| format!("{:?} {:?}", view.dedupe, view.tokens));
    assert!(!stored.contains(&first.token), "no secret is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_run_starts_nothing() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Exit(0)).await;
    let client = world.client(Role::Operator).await;
    let params = world.run_params(&["a"]);
    let first = create(&client, &params).await.expect("run");
    let repeat = create(&client, &params).await.expect("repeat");
    assert_eq!(first.targets[0].job, repeat.targets[0].job);
    wait(&client, params.key).await;
    create(&client, &params).await.expect("repeat after its end");
    assert_eq!(agent.journal.lock().expect("lock").offers.len(), 1);
    let mut other = params.clone();
    other.exec.argv.push(ByteString::from("x"));
    assert_eq!(client.call::<RunCreate>(&other).await.expect_err("another run").code, Code::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_audited_in_two_phases_and_refusals_too() {
    let world = World::new().await;
    let (_agent, _link) = Agent::join(&world, "a", Script::Exit(3)).await;
    let client = world.client(Role::Operator).await;
    client.call::<HostLabel>(&label(world.key(), "1")).await.expect("labelled");
    let run = world.run_params(&["a"]);
    create(&client, &run).await.expect("run");
    wait(&client, run.key).await;
    let viewer = world.client(Role::Viewer).await;
    viewer.call::<HostLabel>(&label(world.key(), "1")).await.expect_err("not allowed");
    let admin = world.admin().await;
    let mut entries;
    let deadline = tokio::time::Instant::now() + super::world::PATIENCE;
    loop {
        entries = admin
            .call::<AuditList>(&AuditParams { limit: Some(500), cursor: None })
            .await
            .expect("audit")
            .entries;
        let has = |operation: &str, phase: Phase| {
            entries.iter().any(|entry| entry.operation == operation && entry.phase == phase)
        };
        if has("host.label", Phase::Intent)
            && has("host.label", Phase::Outcome)
            && has("host.label", Phase::Refused)
            && has("run.create", Phase::Intent)
            && has("run.create", Phase::Outcome)
        {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{entries:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let ended =
        entries.iter().find(|e| e.operation == "run.create" && e.phase == Phase::Outcome).expect("outcome");
    assert_eq!(ended.outcome.as_deref(), Some("0 succeeded, 1 failed"));
    let intent =
        entries.iter().find(|e| e.operation == "run.create" && e.phase == Phase::Intent).expect("intent");
    assert_eq!((intent.hosts.as_slice(), intent.id), (&["a".to_owned()][..], ended.id));
}

//! Enrolment, names, labels, presence, watching.

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::StreamEvent;
use datacentered_proto::operations::{
    HostLabel, HostList, HostRemove, HostRename, HostReport, HostShow, HostWatch, SessionHello, TokenCreate,
};
use datacentered_proto::ops::access::{Role, TokenCreateParams, TokenKind};
use datacentered_proto::ops::host::{
    ChangeParams, Facts, HostParams, LabelParams, ListParams, RenameParams, ReportParams, WatchItem,
    WatchParams,
};
use datacentered_proto::ops::session::HelloParams;
use datacentered_proto::{Code, Cursor};

use super::agent::{Agent, Script};
use super::world::{Deaf, Key, World, eventually, hello};
use crate::sessions::Who;

#[tokio::test(flavor = "multi_thread")]
async fn join_tokens_enrol_as_often_as_they_say() {
    let world = World::new().await;
    let token = world.join_token(1).await;
    let key = Key::new();
    let first = world.enrol(&key, "a", &token).await.expect("enrolled");
    assert!(
        first.certificate.contains("BEGIN CERTIFICATE") && first.ca_certificate.contains("BEGIN CERTIFICATE")
    );
    let repeat = world.enrol(&key, "a", &token).await.expect("a repeat whose reply was lost");
    assert_eq!((repeat.host, repeat.name.as_str()), (first.host, "a"));
    let other = world.enrol(&Key::new(), "b", &token).await.expect_err("used up");
    assert_eq!(other.code, Code::Unauthenticated);
    let wrong = world.enrol(&Key::new(), "b", "dcj_nonsense").await.expect_err("unknown");
    assert_eq!(wrong.code, Code::Unauthenticated);
    let host = world.admin().await.call::<HostShow>(&HostParams { host: "a".into() }).await.expect("shown");
    assert_eq!(host.labels["from"], "token");
    assert!(!host.online && host.since.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_labels_and_stay_unique() {
    let world = World::new().await;
    let token = world.join_token(10).await;
    let first = world.enrol(&Key::new(), "web", &token).await.expect("enrolled");
    let second = world.enrol(&Key::new(), "web", &token).await.expect("enrolled");
    assert_eq!((first.name.as_str(), second.name.as_str()), ("web", "web-2"));
    let client = world.client(Role::Operator).await;
    let rename =
        |host: &str, name: &str| RenameParams { key: world.key(), host: host.into(), name: name.into() };
    assert_eq!(
        client.call::<HostRename>(&rename("web-2", "web")).await.expect_err("taken").code,
        Code::Conflict
    );
    assert_eq!(
        client.call::<HostRename>(&rename("web-2", "a b")).await.expect_err("malformed").code,
        Code::Invalid
    );
    let renamed = client.call::<HostRename>(&rename("web-2", "db")).await.expect("renamed");
    assert_eq!((renamed.id, renamed.name.as_str()), (second.host, "db"));
    client.call::<HostRename>(&rename("web", "web-2")).await.expect("the old name is free");
    let names: Vec<_> = client
        .call::<HostList>(&ListParams::default())
        .await
        .expect("list")
        .hosts
        .into_iter()
        .map(|h| h.name)
        .collect();
    assert_eq!(names, ["db", "web-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_on_two_machines_the_newer_link_wins() {
    let world = World::new().await;
    let (agent, first) = Agent::join(&world, "a", Script::Run).await;
    let second = agent.connect(&world).await;
    tokio::time::timeout(Duration::from_secs(5), first.closed()).await.expect("the older link ends");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!second.is_closed() && world.hub.live.is_online(agent.host));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_facts_are_made_harmless() {
    let world = World::new().await;
    let (_agent, link) = Agent::join(&world, "a", Script::Run).await;
    let facts = Facts { os_name: format!("<script>\u{1b}[2J{}", "x".repeat(5000)), ..Facts::default() };
    link.call::<HostReport>(&ReportParams { facts }).await.expect("reported");
    let host = world.admin().await.call::<HostShow>(&HostParams { host: "a".into() }).await.expect("shown");
    assert!(host.facts.os_name.len() <= 256 && !host.facts.os_name.contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_resumed_without_a_hole() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let open = |cursor: Option<Cursor>| move |stream| WatchParams { on: vec![], cursor, stream };
    let (_, mut reader) = client.open::<HostWatch>(0, open(None)).await.expect("watch");
    let mut cursor = None;
    let mut online = false;
    while let Some(StreamEvent::Item { cursor: at, value }) = reader.next().await {
        cursor = Some(at);
        match serde_json::from_str(value.get()).expect("item") {
            WatchItem::Host { host } => online = host.online,
            WatchItem::CaughtUp => break,
            WatchItem::Removed { .. } => panic!("removed"),
        }
    }
    assert!(online);
    drop(reader);
    // While nobody looks: it goes offline, gets a label, another comes, and one goes.
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    eventually("written down", || {
        world.hub.store.view(|view| view.presence.get(&agent.host).is_some_and(|presence| !presence.online))
    })
    .await;
    let (other, _other_link) = Agent::join(&world, "b", Script::Run).await;
    let (third, _third_link) = Agent::join(&world, "c", Script::Run).await;
    let label = LabelParams {
        key: world.key(),
        host: "a".into(),
        set: [("x".to_owned(), "1".to_owned())].into(),
        remove: vec![],
    };
    client.call::<HostLabel>(&label).await.expect("labelled");
    let remove = ChangeParams { key: world.key(), host: "c".into() };
    world.admin().await.call::<HostRemove>(&remove).await.expect("removed");

    let (_, mut reader) = client.open::<HostWatch>(0, open(cursor)).await.expect("resumed");
    let mut seen = Vec::new();
    while let Some(StreamEvent::Item { value, .. }) = reader.next().await {
        match serde_json::from_str(value.get()).expect("item") {
            WatchItem::Host { host } => seen.push((host.id, host.online, host.labels.contains_key("x"))),
            WatchItem::Removed { id, .. } => seen.push((id, false, false)),
            WatchItem::CaughtUp => break,
        }
    }
    assert!(seen.contains(&(agent.host, false, true)), "{seen:?}");
    assert!(seen.contains(&(other.host, true, false)), "{seen:?}");
    assert!(seen.contains(&(third.host, false, false)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_hellos_are_explained() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let (link, _) = world.link(Who::anonymous(), Some(agent.key.0.clone()), Arc::new(Deaf));
    let mut wrong = agent.hello();
    wrong.incarnation = "../x".into();
    assert_eq!(hello(&link, None, Some(wrong)).await.expect_err("malformed").code, Code::Invalid);
    let (link, _) = world.link_as(Who::anonymous(), Arc::new(Deaf));
    assert_eq!(hello(&link, None, Some(agent.hello())).await.expect_err("no key").code, Code::Invalid);
    let (link, _) = world.link_as(Who::anonymous(), Arc::new(Deaf));
    let error = hello(&link, Some("dc_nonsense".into()), None).await.expect_err("unknown token");
    assert_eq!(error.code, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_an_hour_is_shown_and_harms_nothing() {
    let world = World::new().await;
    let agent = Agent::enrol(&world, "a", Script::Exit(0)).await;
    let (link, _) = world.link(Who::anonymous(), Some(agent.key.0.clone()), Arc::new(agent.clone()));
    let params = HelloParams {
        protocol: datacentered_proto::PROTOCOL,
        capabilities: vec![],
        client: "test".into(),
        token: None,
        agent: Some(agent.hello()),
        now: Some(world.hub.clock.wall().plus_millis(3_600_000)),
    };
    link.call::<SessionHello>(&params).await.expect("hello");
    let client = world.client(Role::Operator).await;
    let host = client.call::<HostShow>(&HostParams { host: "a".into() }).await.expect("shown");
    let skew = host.link.expect("online").clock_skew_ms;
    assert!((3_590_000..3_610_000).contains(&skew), "{skew} ms");
    let run = super::clients::create(&client, &world.run_params(&["a"])).await.expect("run").run;
    let ended = super::clients::wait(&client, run).await;
    assert_eq!(ended.targets[0].outcome, Some(datacentered_proto::Outcome::Exited { code: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_join_token_enrols_nobody() {
    let world = World::new().await;
    let params = TokenCreateParams {
        key: world.key(),
        kind: TokenKind::Join,
        name: "short".into(),
        role: None,
        ttl_ms: Some(60_000),
        uses: None,
        labels: std::collections::BTreeMap::new(),
    };
    let made = world.admin().await.call::<TokenCreate>(&params).await.expect("made");
    let record = world.hub.store.view(|view| view.tokens[&made.id].clone());
    let mut change = crate::store::Change::new(&world.hub.clock, "test", None);
    let expired = crate::store::records::TokenRecord {
        expires: world.hub.clock.wall().plus_millis(-1),
        ..(*record.record).clone()
    };
    change.put(&expired, datacentered_engine::kv::Expect::Revision(record.revision));
    world.hub.store.commit(change).await.expect("aged");
    let error = world.enrol(&Key::new(), "a", &made.token).await.expect_err("expired");
    assert_eq!(error.code, Code::Unauthenticated);
    assert!(error.message.contains("expired"), "{error}");
}

//! Own roles: what they reach, what they do not, and that this is looked at again while streams are open.

use std::collections::BTreeMap;
use std::time::Duration;

use datacentered_link::{Link, StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{
    EventWatch, HostLabel, HostList, HostRemove, HostShow, HostWatch, RoleCreate, RoleList, RoleRevoke,
    RunCancel, RunList, RunOutput, RunShow, TokenCreate, TokenRevoke, UserCreate,
};
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::access::{
    Role, TokenCreateParams, TokenKind, TokenRevokeParams, UserCreateParams,
};
use datacentered_proto::ops::event::{Event, WatchParams as EventWatchParams};
use datacentered_proto::ops::host::{
    ChangeParams, HostParams, LabelParams, ListParams as HostListParams, WatchItem,
    WatchParams as HostWatchParams,
};
use datacentered_proto::ops::role::{RoleCreateParams, RoleName, RoleRevokeParams};
use datacentered_proto::ops::run::{
    CancelParams, ListParams as RunListParams, OutputParams, RunReply, ShowParams,
};
use datacentered_proto::{Code, Error, Outcome, RunId};

use super::agent::{Agent, Script};
use super::clients::{create, output, show, wait};
use super::world::{PATIENCE, World, eventually};

async fn next(reader: &mut StreamReader) -> StreamEvent {
    tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("not closed")
}

async fn label(world: &World, host: &str, team: &str) {
    let set = BTreeMap::from([("team".to_owned(), team.to_owned())]);
    let params = LabelParams { key: world.key(), host: host.into(), set, remove: vec![] };
    world.admin().await.call::<HostLabel>(&params).await.expect("labelled");
}

fn hosts_of(reply: &RunReply) -> Vec<&str> {
    reply.targets.iter().map(|target| target.host.as_str()).collect()
}

async fn try_show(client: &Link, run: RunId) -> Result<RunReply, Error> {
    client.call::<RunShow>(&ShowParams { run, limit: None, next: None }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_role_reaches_its_hosts_only() {
    let world = World::new().await;
    let _a = Agent::join(&world, "web1", Script::Exit(0)).await;
    let _b = Agent::join(&world, "web2", Script::Exit(0)).await;
    let _c = Agent::join(&world, "db1", Script::Exit(0)).await;
    let role = world.role("web", &["run.*", "host.*", "event.watch"], &[], &["web-*", "web?"]).await;
    let client = world.client(role).await;

    let listed = client.call::<HostList>(&HostListParams::default()).await.expect("listed");
    assert_eq!(listed.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["web1", "web2"]);
    let foreign = client.call::<HostShow>(&HostParams { host: "db1".into() }).await.expect_err("outside");
    assert_eq!(foreign.code, Code::Forbidden);
    let params = LabelParams { key: world.key(), host: "db1".into(), set: [].into(), remove: vec![] };
    assert_eq!(client.call::<HostLabel>(&params).await.expect_err("outside").code, Code::Forbidden);

    // A host outside that is named is refused; patterns and 'all' choose among what is inside.
    for named in [&["db1"][..], &["web1,db1"], &["web1", "db1"]] {
        let error = create(&client, &world.run_params(named)).await.expect_err("outside");
        assert_eq!(error.code, Code::Forbidden, "{named:?}");
        assert!(error.message.contains("db1"), "{error}");
    }
    let error = create(&client, &world.run_params(&["db*"])).await.expect_err("nothing inside");
    assert_eq!(error.code, Code::NotFound);
    let mine = create(&client, &world.run_params(&["all"])).await.expect("created");
    assert_eq!(hosts_of(&mine), ["web1", "web2"]);
    wait(&client, mine.run).await;
    output(&client, mine.run, Some("web1"), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_others_is_seen_as_far_as_the_role_goes() {
    let world = World::new().await;
    let (web, web_link) = Agent::join(&world, "web1", Script::Run).await;
    let (db, db_link) = Agent::join(&world, "db1", Script::Run).await;
    let role = world.role("web", &["run.*", "event.watch"], &[], &["web*"]).await;
    let client = world.client(role).await;
    let operator = world.client(Role::Operator).await;
    let events = |stream| EventWatchParams { cursor: None, from_start: true, kinds: vec![], stream };
    let (_, mut seen_events) = client.open::<EventWatch>(0, events).await.expect("events");

    let both = create(&operator, &world.run_params(&["web1", "db1"])).await.expect("created");
    let theirs = create(&operator, &world.run_params(&["db1"])).await.expect("created");
    let seen = show(&client, both.run).await;
    assert_eq!((hosts_of(&seen), seen.summary.counts.targets), (vec!["web1"], 1));
    assert!(seen.summary.on.is_empty(), "the selectors tell other hosts' names");
    assert_eq!(try_show(&client, theirs.run).await.expect_err("outside").code, Code::Forbidden);
    let listed = client.call::<RunList>(&RunListParams::default()).await.expect("listed").runs;
    assert_eq!(listed.iter().map(|run| run.run).collect::<Vec<_>>(), [both.run]);
    let open =
        |stream| OutputParams { run: both.run, host: Some("db1".into()), cursor: None, from: 0, stream };
    assert_eq!(client.open::<RunOutput>(0, open).await.expect_err("outside").code, Code::Forbidden);

    // A cancel of the run reaches what the caller may reach, and says so where more is asked for.
    let cancel = |run, hosts: &[&str]| CancelParams {
        key: world.key(),
        run,
        hosts: hosts.iter().map(ToString::to_string).collect(),
    };
    for params in [cancel(theirs.run, &[]), cancel(both.run, &["db1"]), cancel(both.run, &["web1", "db1"])] {
        assert_eq!(client.call::<RunCancel>(&params).await.expect_err("outside").code, Code::Forbidden);
    }
    let reached = client.call::<RunCancel>(&cancel(both.run, &[])).await.expect("cancelled");
    assert_eq!(reached.targets, 1);
    let job_of = |name: &str| both.targets.iter().find(|target| target.host == name).expect("target").job;
    eventually("the cancel is on web1", || {
        world.hub.store.view(|view| view.jobs[&job_of("web1")].cancel.is_some())
    })
    .await;
    assert!(world.hub.store.view(|view| view.jobs[&job_of("db1")].cancel.is_none()));

    for (agent, link) in [(&web, &web_link), (&db, &db_link)] {
        eventually("accepted", || {
            agent.journal.lock().expect("lock").jobs.contains_key(&job_of(&agent.name))
        })
        .await;
        agent.end(link, job_of(&agent.name), Outcome::Exited { code: 0 }).await.expect("reported");
    }
    let ended = wait(&client, both.run).await;
    assert_eq!(hosts_of(&ended), ["web1"]);

    // Among the events is nothing of the host that the role does not reach.
    let mut jobs = 0;
    loop {
        let StreamEvent::Item { value, .. } = next(&mut seen_events).await else { panic!("an end") };
        let event: Event = serde_json::from_str(value.get()).expect("an event");
        assert!(!value.get().contains("db1"), "{}", value.get());
        assert_ne!(event.about, theirs.run.to_string());
        assert!(!event.kind.starts_with("token."), "{}", event.kind);
        jobs += usize::from(event.kind == "job.ended");
        if event.kind == "run.ended" {
            assert_eq!(event.detail.get("targets"), None);
            break;
        }
    }
    assert_eq!(jobs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_leaves_the_role_leaves_open_streams() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "h1", Script::Run).await;
    label(&world, "h1", "web").await;
    let role = world.role("web", &["run.*", "host.*"], &[], &["team=web"]).await;
    let client = world.client(role).await;
    let run = create(&client, &world.run_params(&["h1"])).await.expect("created");
    let job = run.targets[0].job;
    eventually("accepted", || agent.journal.lock().expect("lock").jobs.contains_key(&job)).await;
    let open = |stream| OutputParams { run: run.run, host: None, cursor: None, from: 0, stream };
    let (_, mut bytes) = client.open::<RunOutput>(0, open).await.expect("output");
    let watch = |stream| HostWatchParams { on: vec![], cursor: None, stream };
    let (_, mut hosts) = client.open::<HostWatch>(0, watch).await.expect("watch");
    let item = |event: StreamEvent| match event {
        StreamEvent::Item { value, .. } => serde_json::from_str::<WatchItem>(value.get()).expect("an item"),
        other => panic!("{other:?}"),
    };
    assert!(matches!(item(next(&mut hosts).await), WatchItem::Host { .. }));
    assert!(matches!(item(next(&mut hosts).await), WatchItem::CaughtUp));

    label(&world, "h1", "db").await;
    let gone = tokio::time::timeout(Duration::from_secs(5), hosts.next()).await.expect("within 5 s");
    assert!(matches!(item(gone.expect("an item")), WatchItem::Removed { .. }));
    let end = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            match bytes.next().await {
                Some(StreamEvent::End(end)) => return end,
                Some(_) => {}
                None => panic!("no end"),
            }
        }
    });
    let end = end.await.expect("within 5 s");
    assert_eq!((end.reason, end.error.expect("why").code), (EndReason::Failed, Code::Forbidden));
    // What it prints from now on is not shown.
    agent.print(job, Kind::Stdout, "secret");
    agent.end(&link, job, Outcome::Exited { code: 0 }).await.expect("reported");
    assert_eq!(try_show(&client, run.run).await.expect_err("outside").code, Code::Forbidden);
    let open = |stream| OutputParams { run: run.run, host: None, cursor: None, from: 0, stream };
    assert_eq!(client.open::<RunOutput>(0, open).await.expect_err("outside").code, Code::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_made_and_revoked_with_care() {
    let world = World::new().await;
    let admin = world.admin().await;
    let make = |name: &str, allow: &[&str]| RoleCreateParams {
        key: world.key(),
        name: name.into(),
        allow: allow.iter().map(ToString::to_string).collect(),
        deny: vec![],
        on: vec![],
    };
    for name in ["viewer", "operator", "admin"] {
        let error = admin.call::<RoleCreate>(&make(name, &["run.*"])).await.expect_err("built in");
        assert_eq!(error.code, Code::Conflict, "{name}");
    }
    for (name, allow) in [("Bad", "run.*"), ("a b", "run.*"), ("x", "no.such"), ("x", "agent.drain")] {
        let error = admin.call::<RoleCreate>(&make(name, &[allow])).await.expect_err("invalid");
        assert_eq!(error.code, Code::Invalid, "{name} {allow}");
    }
    let first = make("web", &["run.*"]);
    let view = admin.call::<RoleCreate>(&first).await.expect("made");
    assert_eq!(admin.call::<RoleCreate>(&first).await.expect("a repeat"), view);
    assert!(view.operations.iter().any(|name| name == "run.create") && !view.built_in);
    let twice = admin.call::<RoleCreate>(&make("web", &["host.*"])).await.expect_err("taken");
    assert_eq!(twice.code, Code::Conflict);
    let roles = admin.call::<RoleList>(&datacentered_proto::ops::NoParams {}).await.expect("roles").roles;
    assert_eq!(roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>()[3..], ["web"]);

    // Nobody gets a role that is not there, and one that somebody has does not go.
    let user = |name: &str, role: &str| UserCreateParams {
        key: world.key(),
        name: name.into(),
        password: "a long enough one".into(),
        role: role.parse().expect("a role's name"),
    };
    let unknown = admin.call::<UserCreate>(&user("ann", "nothing")).await.expect_err("unknown");
    assert_eq!(unknown.code, Code::NotFound);
    let (token, _) = world.token(RoleName::Own("web".into())).await;
    let revoke = |name: &str| RoleRevokeParams { key: world.key(), name: name.into() };
    let error = admin.call::<RoleRevoke>(&revoke("web")).await.expect_err("in use");
    assert!(error.code == Code::Conflict && error.message.contains(&token.to_string()), "{error}");
    admin.call::<TokenRevoke>(&TokenRevokeParams { key: world.key(), id: token }).await.expect("revoked");
    admin.call::<UserCreate>(&user("ann", "web")).await.expect("made");
    assert_eq!(admin.call::<RoleRevoke>(&revoke("web")).await.expect_err("in use").code, Code::Conflict);
    assert_eq!(admin.call::<RoleRevoke>(&revoke("viewer")).await.expect_err("stays").code, Code::Conflict);
    assert_eq!(admin.call::<RoleRevoke>(&revoke("none")).await.expect_err("unknown").code, Code::NotFound);
    let end = datacentered_proto::ops::access::UserRevokeParams { key: world.key(), name: "ann".into() };
    admin.call::<datacentered_proto::operations::UserRevoke>(&end).await.expect("revoked");
    admin.call::<RoleRevoke>(&revoke("web")).await.expect("nobody has it");
    assert!(world.hub.store.view(|view| view.roles.is_empty()));

    // Roles survive a restart.
    let role = world.role("again", &["host.list"], &[], &[]).await;
    let world = world.restart().await;
    world.client(role).await.call::<HostList>(&HostListParams::default()).await.expect("allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_more_than_they_have() {
    let world = World::new().await;
    let makers = &["token.create", "user.create", "role.create", "run.*", "host.revoke"];
    let maker = world.role("maker", makers, &[], &[]).await;
    let client = world.client(maker).await;
    let token = |role: Option<&str>| TokenCreateParams {
        key: world.key(),
        kind: TokenKind::Api,
        name: String::new(),
        role: role.map(|role| role.parse().expect("a role's name")),
        ttl_ms: None,
        uses: None,
        labels: BTreeMap::new(),
    };
    world.role("other", &["run.*"], &[], &[]).await;
    for role in ["viewer", "operator", "admin", "other"] {
        let error = client.call::<TokenCreate>(&token(Some(role))).await.expect_err("more");
        assert_eq!(error.code, Code::Forbidden, "{role}");
        let params = UserCreateParams {
            key: world.key(),
            name: "mallory".into(),
            password: "a long enough one".into(),
            role: role.parse().expect("a role's name"),
        };
        assert_eq!(client.call::<UserCreate>(&params).await.expect_err("more").code, Code::Forbidden);
    }
    client.call::<TokenCreate>(&token(Some("maker"))).await.expect("the same");
    client.call::<TokenCreate>(&token(None)).await.expect("the same");
    let role = |allow: &str| RoleCreateParams {
        key: world.key(),
        name: "mine".into(),
        allow: vec![allow.into()],
        deny: vec![],
        on: vec![],
    };
    for more in ["host.list", "*", "token.create", "host.revoke"] {
        let error = client.call::<RoleCreate>(&role(more)).await.expect_err("more");
        assert_eq!(error.code, Code::Forbidden, "{more}");
    }
    client.call::<RoleCreate>(&role("run.*")).await.expect("less");

    // What admins named in full works, within the hosts that they named.
    let _web = Agent::enrol(&world, "web1", Script::Run).await;
    let _db = Agent::enrol(&world, "db1", Script::Run).await;
    let remover = world.role("remover", &["host.remove"], &[], &["web*"]).await;
    let client = world.client(remover).await;
    let remove = |host: &str| ChangeParams { key: world.key(), host: host.into() };
    assert_eq!(client.call::<HostRemove>(&remove("db1")).await.expect_err("outside").code, Code::Forbidden);
    client.call::<HostRemove>(&remove("web1")).await.expect("removed");
}

//! Every operation × every caller, through the whole dispatch; what one host may do with another's; revocation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datacentered_link::StreamEvent;
use datacentered_proto::operations::{
    EventWatch, HostRevoke, JobReport as JobReportOperation, OPERATIONS, TokenRevoke,
};
use datacentered_proto::ops::access::{Role, TokenRevokeParams};
use datacentered_proto::ops::event::WatchParams;
use datacentered_proto::ops::host::ChangeParams;
use datacentered_proto::rpc::Cause;
use datacentered_proto::{Code, JobState, Outcome, Permission, Served};
use serde_json::value::RawValue;

use super::agent::{Agent, Script};
use super::clients::create;
use super::world::{Deaf, World, eventually, hello};
use crate::sessions::Who;

/// What the own role of the walk may do besides what everybody may.
const TEAM_MAY: &[&str] = &["run.*", "host.list", "host.watch", "host.remove"];

/// With empty parameters an allowed call gets beyond the door (to `invalid`, mostly), a forbidden one does not.
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_for_every_caller() {
    let world = World::new().await;
    let (_, agent) = Agent::join(&world, "a", Script::Run).await;
    let (stranger, _) = world.link_as(Who::anonymous(), Arc::new(Deaf));
    hello(&stranger, None, None).await.expect("hello");
    let everything = world.role("everything", &["*"], &[], &[]).await;
    let team = world.role("team", TEAM_MAY, &["run.abandon"], &["web-*"]).await;
    let auditor = world.role("auditor", &["audit.list", "token.*"], &["user.password"], &[]).await;
    let callers = [
        ("nobody", stranger),
        ("agent", agent),
        ("viewer", world.client(Role::Viewer).await),
        ("operator", world.client(Role::Operator).await),
        ("admin", world.client(Role::Admin).await),
        ("everything", world.client(everything).await),
        ("team", world.client(team).await),
        ("auditor", world.client(auditor).await),
    ];
    let empty = RawValue::from_string("{}".into()).expect("json");
    for spec in OPERATIONS.iter().filter(|spec| spec.name != "session.hello" && spec.name != "session.logout")
    {
        if spec.served == Served::Link {
            continue;
        }
        for (caller, link) in &callers {
            let result = link.call_raw(spec.name, &empty, Cause::default()).await;
            let code = result.as_ref().err().map(|error| error.code);
            let allowed = match (spec.permission, *caller) {
                (Permission::Own | Permission::View | Permission::Operate | Permission::Admin, "team") => {
                    spec.permission == Permission::Own
                        || spec.name != "run.abandon"
                            && (spec.name.starts_with("run.")
                                || matches!(spec.name, "host.list" | "host.watch" | "host.remove"))
                }
                (Permission::Own | Permission::View | Permission::Operate | Permission::Admin, "auditor") => {
                    spec.name == "audit.list"
                        || spec.permission == Permission::Own && spec.name != "user.password"
                }
                (Permission::Own | Permission::View | Permission::Operate, "everything") => true,
                (Permission::Anyone, caller) => caller != "agent",
                (Permission::Enrol | Permission::Agent, caller) => caller == "agent",
                (Permission::Own | Permission::View, caller) => !matches!(caller, "nobody" | "agent"),
                (Permission::Operate, caller) => matches!(caller, "operator" | "admin"),
                // A pattern never reaches what only admins may do.
                (Permission::Admin, caller) => caller == "admin",
                (Permission::Hub, _) => false,
            };
            let what = format!("{} by {caller}: {result:?}", spec.name);
            if spec.served == Served::Agent {
                assert_eq!(code, Some(Code::NotFound), "{what}");
            } else if allowed {
                assert!(!matches!(code, Some(Code::Unauthenticated | Code::Forbidden)), "{what}");
            } else if *caller == "nobody" {
                assert_eq!(code, Some(Code::Unauthenticated), "{what}");
            } else {
                assert_eq!(code, Some(Code::Forbidden), "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_before_hello() {
    let world = World::new().await;
    let (link, _) = world.link_as(Who::local(0, 1), Arc::new(Deaf));
    let empty = RawValue::from_string("{}".into()).expect("json");
    let error = link.call_raw("host.list", &empty, Cause::default()).await.expect_err("refused");
    assert_eq!(error.code, Code::Unauthenticated);
    hello(&link, None, None).await.expect("hello");
    link.call_raw("host.list", &empty, Cause::default()).await.expect("allowed");
    assert_eq!(hello(&link, None, None).await.expect_err("twice").code, Code::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_touches_only_its_own_jobs() {
    let world = World::new().await;
    let (owner, _link) = Agent::join(&world, "owner", Script::Run).await;
    let (thief, thief_link) = Agent::join(&world, "thief", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["owner"])).await.expect("run");
    let job = run.targets[0].job;
    eventually("the job is accepted", || owner.journal.lock().expect("lock").jobs.contains_key(&job)).await;
    let mut forged = owner.journal.lock().expect("lock").jobs[&job].1.clone();
    forged.state = JobState::Ended;
    forged.outcome = Some(Outcome::Exited { code: 0 });
    let error = thief_link.call::<JobReportOperation>(&forged).await.expect_err("refused");
    assert_eq!(error.code, Code::Forbidden);

    // Nor by listing it as its own when it connects.
    let offer = owner.journal.lock().expect("lock").jobs[&job].0.clone();
    thief.journal.lock().expect("lock").jobs.insert(job, (offer, forged));
    let _again = thief.connect(&world).await;
    let mut changes = Vec::new();
    eventually("the claim is an event", || {
        let log = datacentered_engine::LogName::parse("events").expect("log");
        let hub = world.hub.clone();
        changes = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                // The log is there once the first event has been moved into it.
                let page = hub.engine.log().read(&log, 0, 1 << 20).await.ok();
                let items = page.map_or_else(Vec::new, |page| page.items);
                items.iter().map(|item| String::from_utf8_lossy(&item.payload).into_owned()).collect()
            })
        });
        changes.iter().any(|event| event.contains("job.claimed_by_another_host"))
    })
    .await;
    let stands = world.hub.store.view(|view| view.jobs[&job].outcome.clone());
    assert_eq!(stands, None, "the forged outcome must not count");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_tokens_open_streams_end() {
    let world = World::new().await;
    let (id, token) = world.token(Role::Viewer).await;
    let (link, _) = world.link_as(Who::anonymous(), Arc::new(Deaf));
    hello(&link, Some(token.clone()), None).await.expect("hello");
    let watch = |stream| WatchParams { cursor: None, from_start: false, kinds: vec![], stream };
    let (_, mut reader) = link.open::<EventWatch>(0, watch).await.expect("watch");
    let key = world.key();
    world.admin().await.call::<TokenRevoke>(&TokenRevokeParams { key, id }).await.expect("revoked");
    let revoked = Instant::now();
    loop {
        let event =
            tokio::time::timeout(Duration::from_secs(5), reader.next()).await.expect("ends within 5 s");
        if matches!(event, None | Some(StreamEvent::End(_))) {
            break;
        }
    }
    link.closed().await;
    assert!(revoked.elapsed() < Duration::from_secs(5));
    let (again, _) = world.link_as(Who::anonymous(), Arc::new(Deaf));
    assert_eq!(hello(&again, Some(token), None).await.expect_err("refused").code, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_is_cut_off_and_never_returns() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let key = world.key();
    let params = ChangeParams { key, host: "a".into() };
    world.admin().await.call::<HostRevoke>(&params).await.expect("revoked");
    tokio::time::timeout(Duration::from_secs(5), link.closed()).await.expect("cut off within 5 s");
    let (again, _) = world.link(Who::anonymous(), Some(agent.key.0.clone()), Arc::new(Deaf));
    let error = hello(&again, None, Some(agent.hello())).await.expect_err("refused");
    assert_eq!(error.code, Code::Forbidden);
    let token = world.join_token(1).await;
    assert_eq!(world.enrol(&agent.key, "b", &token).await.expect_err("burnt").code, Code::Forbidden);
}

//! A hub that was restored from a backup: what happened since, only the hosts know.

use std::time::Duration;

use datacentered_proto::operations::RunCancel;
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::run::{CancelParams, CreateParams, OfflinePolicy};
use datacentered_proto::outcome::Loss;
use datacentered_proto::{JobState, Outcome};

use super::agent::{Agent, Script};
use super::clients::{create, show, wait};
use super::world::{World, eventually};

fn queued(world: &World) -> CreateParams {
    CreateParams { offline: OfflinePolicy::Queue, ..world.run_params(&["a"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_not_ended_before_its_host_was_heard() {
    let world = World::new().await;
    let agent = Agent::enrol(&world, "a", Script::Exit(0)).await;
    let client = world.client(Role::Operator).await;
    let short = CreateParams { expires_ms: 5000, ..queued(&world) };
    let long = queued(&world);
    create(&client, &short).await.expect("run");
    create(&client, &long).await.expect("run");
    let backup = world.backup().await;
    // Both run after the backup, and are forgotten.
    let link = agent.connect(&world).await;
    for run in [&short, &long] {
        assert_eq!(wait(&client, run.key).await.targets[0].outcome, Some(Outcome::Exited { code: 0 }));
    }
    eventually("released", || agent.lock().released.len() == 2).await;
    link.close("test");

    let world = world.restored(&backup).await;
    let client = world.client(Role::Operator).await;
    let cancel = CancelParams { key: world.key(), run: long.key, hosts: vec![] };
    assert_eq!(client.call::<RunCancel>(&cancel).await.expect("asked").pending, 1);
    let due = world.hub.store.view(|view| view.expiries.first().map(|(at, _)| *at)).expect("waits");
    while world.hub.clock.wall() < due.plus_millis(1000) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for run in [&short, &long] {
        assert_eq!(show(&client, run.key).await.targets[0].outcome, None, "it may have run");
    }
    let _link = agent.connect(&world).await;
    for run in [&short, &long] {
        let lost = Outcome::Lost { why: Loss::JournalReplaced, by: None };
        assert_eq!(wait(&client, run.key).await.targets[0].outcome, Some(lost));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_that_never_ran_expires_and_is_cancelled_once_its_host_was_heard() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    // One job is under way, so that the run has no room for a second one.
    let _other = Agent::enrol(&world, "b", Script::Run).await;
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    let params = queued(&world);
    create(&client, &params).await.expect("run");
    let backup = world.backup().await;
    let world = world.restored(&backup).await;
    let client = world.client(Role::Operator).await;
    let cancel = CancelParams { key: world.key(), run: params.key, hosts: vec![] };
    assert_eq!(client.call::<RunCancel>(&cancel).await.expect("asked").pending, 1);
    assert_eq!(show(&client, params.key).await.targets[0].state, JobState::Queued);
    let _link = agent.connect(&world).await;
    let outcome = wait(&client, params.key).await.targets[0].outcome.clone();
    assert!(matches!(outcome, Some(Outcome::Cancelled { .. })), "{outcome:?}");
    assert!(agent.lock().offers.is_empty(), "it was offered after its cancel");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_that_its_host_runs_is_taken_in() {
    let world = World::new().await;
    let agent = Agent::enrol(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let params = CreateParams { max_parallel: Some(1), ..queued(&world) };
    let job = create(&client, &params).await.expect("run").targets[0].job;
    let backup = world.backup().await;
    let link = agent.connect(&world).await;
    eventually("accepted", || agent.lock().jobs.contains_key(&job)).await;
    link.close("test");

    let world = world.restored(&backup).await;
    let client = world.client(Role::Operator).await;
    let link = agent.connect(&world).await;
    let bound = || {
        world.hub.store.view(|view| {
            view.jobs.get(&job).is_some_and(|job| {
                job.state != JobState::Queued && job.incarnation.as_deref() == Some("first")
            })
        })
    };
    assert!(bound(), "taken in before its host is online");
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    let link = agent.connect(&world).await;
    agent.end(&link, job, Outcome::Exited { code: 3 }).await.expect("reported");
    assert_eq!(wait(&client, params.key).await.targets[0].outcome, Some(Outcome::Exited { code: 3 }));
    assert_eq!(agent.lock().offers, [job], "it was offered once");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_made_after_a_restore_are_sent() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Exit(0)).await;
    let backup = world.backup().await;
    // The journal goes on after the backup.
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    wait(&client, run).await;
    eventually("released", || agent.lock().released.len() == 1).await;
    link.close("test");

    let world = world.restored(&backup).await;
    let client = world.client(Role::Operator).await;
    let done = Some(Outcome::Exited { code: 0 });
    // Before the host was heard for the first time, and between two of its links.
    for _ in 0..2 {
        let params = queued(&world);
        create(&client, &params).await.expect("run");
        let link = agent.connect(&world).await;
        assert_eq!(wait(&client, params.key).await.targets[0].outcome, done);
        eventually("released", || agent.lock().jobs.is_empty()).await;
        link.close("test");
        eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    }
}

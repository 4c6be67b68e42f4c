//! What is tried again, and what waits for what: nothing hangs for ever on a moment's fault.

use std::time::Duration;

use bytes::Bytes;
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{RunCancel, RunInput};
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::job::{ExecSpec, Offer};
use datacentered_proto::ops::run::{CancelParams, InputParams, OfflinePolicy};
use datacentered_proto::{JobId, JobState, Outcome, RunId};

use super::agent::{Agent, Script};
use super::clients::{create, show, wait};
use super::world::{World, eventually};
use crate::store::Change;
use crate::store::records::JobRecord;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_hears_what_it_may_drop_without_printing_more() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let job = create(&client, &world.run_params(&["a"])).await.expect("run").targets[0].job;
    eventually("accepted", || agent.lock().jobs.contains_key(&job)).await;
    for _ in 0..8 {
        agent.print(job, Kind::Stdout, &"x".repeat(16 << 10));
    }
    let all = (job, 128 << 10);
    eventually("acknowledged when it is quiet", || agent.lock().acks.contains(&all)).await;
    agent.print(job, Kind::Stdout, "y");
    eventually("stored", || world.hub.outputs.stored(job) == Some(all.1 + 1)).await;
    agent.lock().acks.clear();
    let world = world.restart().await;
    let _link = agent.connect(&world).await;
    let all = (job, all.1 + 1);
    eventually("acknowledged by a new pull", || agent.lock().acks.contains(&all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_made_while_a_newer_link_takes_over_is_offered_on_it() {
    let world = World::new().await;
    let (agent, _older) = Agent::join(&world, "a", Script::Silence).await;
    let client = world.client(Role::Operator).await;
    // The comparison waits for the release of a job that the hub does not know.
    let stray = Offer {
        job: JobId::from_uuid(world.hub.clock.uuid()),
        run: RunId::from_uuid(world.hub.clock.uuid()),
        incarnation: "first".into(),
        by: "test".into(),
        spec: ExecSpec::command(vec!["true".into()]),
    };
    agent.knows(stray, JobState::Ended, Some(Outcome::Exited { code: 0 }));
    agent.lock().holds_releases = true;
    let meanwhile = async {
        eventually("compared", || agent.lock().releases_asked == 1).await;
        let run = create(&client, &world.run_params(&["a"])).await.expect("run");
        eventually("offered on the older link", || agent.lock().offers.len() == 1).await;
        agent.lock().script = Some(Script::Exit(0));
        agent.lock().holds_releases = false;
        run.run
    };
    let (_newer, run) = tokio::join!(agent.connect(&world), meanwhile);
    assert_eq!(wait(&client, run).await.targets[0].outcome, Some(Outcome::Exited { code: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_output_takes_no_place_in_the_history() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run");
    let job = run.targets[0].job;
    eventually("accepted", || agent.lock().jobs.contains_key(&job)).await;
    agent.print(job, Kind::Stdout, "kept");
    {
        let mut journal = agent.lock();
        journal.discarded.insert(job, 1 << 40);
        journal.jobs.get_mut(&job).expect("job").1.stdout_bytes += 1 << 40;
    }
    agent.end(&link, job, Outcome::Exited { code: 0 }).await.expect("reported");
    assert_eq!(wait(&client, run.run).await.targets[0].stdout_bytes, (1 << 40) + 4);
    eventually("released", || agent.lock().released == [job]).await;
    let held = world.hub.store.view(|view| view.output_bytes);
    assert!((4..100).contains(&held), "{held}");
    let world = world.restart().await;
    assert_eq!(world.hub.store.view(|view| view.output_bytes), held);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hosts_claim_counts_up_to_the_limit_of_the_run() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run");
    let job = run.targets[0].job;
    eventually("accepted", || agent.lock().jobs.contains_key(&job)).await;
    let report = {
        let mut journal = agent.lock();
        let (_, report) = journal.jobs.get_mut(&job).expect("job");
        report.state = JobState::Running;
        report.stdout_bytes = 1 << 45;
        report.clone()
    };
    link.call::<datacentered_proto::operations::JobReport>(&report).await.expect("reported");
    let written = || world.hub.store.view(|view| view.jobs.get(&job).is_some_and(|job| job.stdout_bytes > 0));
    eventually("written down", written).await;
    let limit = world.run_params(&["a"]).exec.output_bytes;
    assert_eq!(world.hub.store.view(|view| view.output_bytes), limit);
    let world = world.restart().await;
    assert_eq!(world.hub.store.view(|view| view.output_bytes), limit);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_the_host_cannot_answer_for_is_made_again() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Unclear).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    eventually("offered again", || agent.lock().offers.len() == 2).await;
    agent.lock().script = Some(Script::Exit(0));
    let target = wait(&client, run).await.targets.remove(0);
    assert_eq!(target.outcome, Some(Outcome::Exited { code: 0 }));
    assert!(target.evidence.iter().any(|evidence| evidence.fact == "offered_again"), "{target:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_waits_for_an_offer_that_is_on_its_way() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Later).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run");
    eventually("on its way", || agent.lock().offers.len() == 1).await;
    let cancel = CancelParams { key: world.key(), run: run.run, hosts: vec![] };
    client.call::<RunCancel>(&cancel).await.expect("cancelled");
    let outcome = wait(&client, run.run).await.targets[0].outcome.clone();
    assert!(matches!(outcome, Some(Outcome::Cancelled { .. })), "{outcome:?}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(agent.lock().releases_asked, 0, "the host would run the offer as a new one");
    agent.lock().script = Some(Script::Exit(0));
    eventually("released", || agent.lock().released.contains(&run.targets[0].job)).await;
    assert!(agent.lock().jobs.is_empty(), "it ran all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_goes_on_after_a_host_let_go_of_it() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Run).await;
    agent.lock().input_failures = 1;
    let client = world.client(Role::Operator).await;
    let mut params = world.run_params(&["a"]);
    params.exec.stdin = true;
    create(&client, &params).await.expect("run");
    let open = |stream| InputParams { run: params.key, stream };
    let (_, mut writer) = client.upload::<RunInput>(open).await.expect("input");
    writer.send_bytes(Kind::Stdin, 0, Bytes::from_static(b"one")).await.expect("sent");
    eventually("let go of", || agent.lock().input_failures == 0).await;
    writer.send_bytes(Kind::Stdin, 3, Bytes::from_static(b" two")).await.expect("sent");
    writer.end(EndReason::Done, 7, None).await.expect("ended");
    eventually("fed", || agent.lock().input.values().any(|input| input == b"one two")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_creation_makes_a_run_whole() {
    let world = World::new().await;
    let token = world.join_token(1000).await;
    for index in 0..170 {
        world.enrol(&super::world::Key::new(), &format!("h{index:03}"), &token).await.expect("enrolled");
    }
    let (agent, link) = Agent::join(&world, "z", Script::Exit(0)).await;
    let client = world.client(Role::Operator).await;
    let mut params = world.run_params(&["all"]);
    params.offline = OfflinePolicy::Queue;
    agent.lock().script = Some(Script::Run);
    let made = create(&client, &params).await.expect("run");
    assert_eq!(made.summary.counts.targets, 171);
    // As if the first call had failed after its first batch.
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    let later: Vec<_> = world.hub.store.view(|view| {
        let run = view.runs.get(&params.key).expect("run");
        view.targets(run).expect("targets").split_off(150)
    });
    let mut change = Change::new(&world.hub.clock, "test", None);
    for target in &later {
        change.delete::<JobRecord>(&[target.job.to_string()]);
    }
    world.hub.store.commit(change).await.expect("deleted");
    let there =
        || world.hub.store.view(|view| view.run_jobs.get(&params.key).map_or(0, |jobs| jobs.queued.len()));
    assert_eq!(there(), 150);
    assert_eq!(create(&client, &params).await.expect("repeated").run, params.key);
    assert_eq!(there(), 171);
    assert_eq!(show(&client, params.key).await.summary.counts.queued, 171);
}

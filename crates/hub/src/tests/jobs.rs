//! What becomes of a job, whatever happens on the way.

use std::time::Duration;

use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{HostRemove, RunAbandon, RunCancel};
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::host::ChangeParams;
use datacentered_proto::ops::run::{AbandonParams, CancelParams, OfflinePolicy};
use datacentered_proto::outcome::{Interruption, Loss};
use datacentered_proto::{Code, JobState, Outcome};

use super::agent::{Agent, Script};
use super::clients::{create, output, show, wait};
use super::world::{World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_two_hosts() {
    let world = World::new().await;
    let (_a, _link_a) = Agent::join(&world, "a", Script::Exit(0)).await;
    let (_b, _link_b) = Agent::join(&world, "b", Script::Exit(7)).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["all"])).await.expect("run");
    let ended = wait(&client, run.run).await;
    let outcomes: Vec<_> = ended.targets.iter().map(|one| (one.host.as_str(), one.outcome.clone())).collect();
    assert_eq!(
        outcomes,
        [("a", Some(Outcome::Exited { code: 0 })), ("b", Some(Outcome::Exited { code: 7 }))]
    );
    assert!(ended.targets.iter().all(|one| !one.evidence.is_empty() && one.stdout_bytes == 4));
    assert_eq!((ended.summary.counts.succeeded, ended.summary.counts.failed), (1, 1));
    let printed = output(&client, run.run, Some("a"), 0).await;
    assert_eq!(printed, [(Kind::Stdout, b"out\n".to_vec()), (Kind::Stderr, b"err\n".to_vec())]);
    let tail = output(&client, run.run, Some("a"), 6).await;
    assert_eq!(tail, [(Kind::Stderr, b"r\n".to_vec())]);
    eventually("the run has ended", || world.hub.store.view(|view| view.active_runs.is_empty())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_to_forget_what_the_hub_holds() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Exit(0)).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run");
    wait(&client, run.run).await;
    eventually("released", || agent.journal.lock().expect("lock").released == [run.targets[0].job]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_policies() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Exit(0)).await;
    let never = Agent::enrol(&world, "never", Script::Exit(0)).await;
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    let client = world.client(Role::Operator).await;

    let failed = create(&client, &world.run_params(&["all"])).await.expect("run");
    let failed = wait(&client, failed.run).await;
    assert!(matches!(failed.targets[0].outcome, Some(Outcome::Offline { since: Some(_) })));
    assert_eq!(failed.targets[1].outcome, Some(Outcome::Offline { since: None }));
    assert_eq!(failed.summary.counts.failed, 2);
    assert!(failed.targets.iter().all(|one| !one.evidence.is_empty()));

    let mut skip = world.run_params(&["a"]);
    skip.offline = OfflinePolicy::Skip;
    create(&client, &skip).await.expect("run");
    assert_eq!(wait(&client, skip.key).await.summary.counts.failed, 0);

    let mut queue = world.run_params(&["a"]);
    queue.offline = OfflinePolicy::Queue;
    create(&client, &queue).await.expect("run");
    assert_eq!(show(&client, queue.key).await.targets[0].state, JobState::Queued);
    // A restart of the hub in between changes nothing.
    let world = world.restart().await;
    let client = world.client(Role::Operator).await;
    let _link = agent.connect(&world).await;
    assert_eq!(wait(&client, queue.key).await.targets[0].outcome, Some(Outcome::Exited { code: 0 }));
    drop(never);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job_expires_and_can_be_cancelled() {
    let world = World::new().await;
    let _agent = Agent::enrol(&world, "a", Script::Exit(0)).await;
    let client = world.client(Role::Operator).await;
    let mut short = world.run_params(&["a"]);
    short.offline = OfflinePolicy::Queue;
    short.expires_ms = 50;
    create(&client, &short).await.expect("run");
    assert_eq!(wait(&client, short.key).await.targets[0].outcome, Some(Outcome::Expired));

    let mut long = world.run_params(&["a"]);
    long.offline = OfflinePolicy::Queue;
    create(&client, &long).await.expect("run");
    let cancel = CancelParams { key: world.key(), run: long.key, hosts: vec![] };
    assert_eq!(client.call::<RunCancel>(&cancel).await.expect("cancelled").targets, 1);
    let ended = wait(&client, long.key).await;
    assert!(matches!(ended.targets[0].outcome, Some(Outcome::Cancelled { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_goes_to_the_host_now_or_later() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let cancel = |run| CancelParams { key: world.key(), run, hosts: vec![] };

    let now = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    eventually("accepted", || !agent.journal.lock().expect("lock").jobs.is_empty()).await;
    client.call::<RunCancel>(&cancel(now)).await.expect("cancelled");
    assert!(matches!(wait(&client, now).await.targets[0].outcome, Some(Outcome::Cancelled { .. })));

    let later = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    eventually("accepted", || !agent.journal.lock().expect("lock").jobs.is_empty()).await;
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    assert!(show(&client, later).await.targets[0].unknown, "nobody can say while the link is lost");
    let reply = client.call::<RunCancel>(&cancel(later)).await.expect("cancelled");
    assert_eq!(reply.pending, 1);
    let _link = agent.connect(&world).await;
    assert!(matches!(wait(&client, later).await.targets[0].outcome, Some(Outcome::Cancelled { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_whose_answer_was_lost_runs_once() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Silence).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run");
    eventually("offered", || agent.journal.lock().expect("lock").offers.len() == 1).await;
    // The agent never journaled it: it is offered again, to the same journal.
    agent.journal.lock().expect("lock").script = Some(Script::Exit(0));
    link.close("test");
    let _link = agent.connect(&world).await;
    assert_eq!(wait(&client, run.run).await.targets[0].outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(agent.journal.lock().expect("lock").offers, [run.targets[0].job; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_host_is_asked_again() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Busy).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run");
    eventually("asked a few times", || agent.journal.lock().expect("lock").offers.len() > 3).await;
    agent.journal.lock().expect("lock").script = Some(Script::Exit(0));
    assert_eq!(wait(&client, run.run).await.targets[0].outcome, Some(Outcome::Exited { code: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_journal_means_lost_and_is_offered_nothing_old() {
    for rolled_back in [false, true] {
        let world = World::new().await;
        let (agent, link) = Agent::join(&world, "a", Script::Run).await;
        let client = world.client(Role::Operator).await;
        let run = create(&client, &world.run_params(&["a"])).await.expect("run");
        eventually("accepted", || !agent.journal.lock().expect("lock").jobs.is_empty()).await;
        link.close("test");
        let link = agent.connect(&world).await;
        {
            let mut journal = agent.journal.lock().expect("lock");
            journal.jobs.clear();
            journal.offers.clear();
            if rolled_back {
                journal.high_water = 0;
            } else {
                *agent.incarnation.lock().expect("lock") = "second".into();
            }
        }
        link.close("test");
        let _link = agent.connect(&world).await;
        let lost = Outcome::Lost { why: Loss::JournalReplaced, by: None };
        assert_eq!(wait(&client, run.run).await.targets[0].outcome, Some(lost));
        assert!(
            agent.journal.lock().expect("lock").offers.is_empty(),
            "an old job was offered to a new journal"
        );
        // New work goes to the new journal.
        agent.journal.lock().expect("lock").script = Some(Script::Exit(0));
        let run = create(&client, &world.run_params(&["a"])).await.expect("run");
        assert_eq!(wait(&client, run.run).await.targets[0].outcome, Some(Outcome::Exited { code: 0 }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_restart_loses_no_output_and_no_outcome() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run");
    let job = run.targets[0].job;
    eventually("accepted", || agent.journal.lock().expect("lock").jobs.contains_key(&job)).await;
    agent.print(job, Kind::Stdout, "before ");
    eventually("stored", || world.hub.outputs.stored(job) == Some(7)).await;
    let world = world.restart().await;
    // While the hub was away the job printed on and ended.
    agent.print(job, Kind::Stdout, "between ");
    {
        let mut journal = agent.journal.lock().expect("lock");
        let (_, report) = journal.jobs.get_mut(&job).expect("job");
        report.state = JobState::Ended;
        report.outcome = Some(Outcome::Interrupted { why: Interruption::ShimLost });
    }
    let _link = agent.connect(&world).await;
    let client = world.client(Role::Operator).await;
    let ended = wait(&client, run.run).await;
    assert_eq!(ended.targets[0].outcome, Some(Outcome::Interrupted { why: Interruption::ShimLost }));
    let printed: Vec<u8> =
        output(&client, run.run, None, 0).await.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(String::from_utf8_lossy(&printed), "before between ");
    eventually("released", || agent.journal.lock().expect("lock").released == [job]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallelism_is_limited_and_everything_runs() {
    let world = World::new().await;
    let mut agents = Vec::new();
    for index in 0..6 {
        agents.push(Agent::join(&world, &format!("h{index}"), Script::Run).await);
    }
    let client = world.client(Role::Operator).await;
    let mut params = world.run_params(&["h*"]);
    params.max_parallel = Some(2);
    create(&client, &params).await.expect("run");
    let mut ended = 0;
    while ended < 6 {
        eventually("two are under way", || {
            agents.iter().map(|(agent, _)| agent.journal.lock().expect("lock").jobs.len()).sum::<usize>()
                == 2.min(6 - ended)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        for (agent, link) in &agents {
            let open: Vec<_> = agent.journal.lock().expect("lock").jobs.keys().copied().collect();
            assert!(open.len() <= 1);
            for job in open {
                agent.end(link, job, Outcome::Exited { code: 0 }).await.expect("reported");
                ended += 1;
            }
        }
    }
    let counts = wait(&client, params.key).await.summary.counts;
    assert_eq!((counts.succeeded, counts.targets), (6, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_on_hosts() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let abandoned = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    let removed = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    eventually("accepted", || agent.journal.lock().expect("lock").jobs.len() == 2).await;
    let params = AbandonParams { key: world.key(), run: abandoned, hosts: vec!["a".into()] };
    assert_eq!(client.call::<RunAbandon>(&params).await.expect_err("online").code, Code::Conflict);
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    let params = AbandonParams { key: world.key(), run: abandoned, hosts: vec![] };
    assert_eq!(client.call::<RunAbandon>(&params).await.expect("abandoned").targets, 1);
    let ended = wait(&client, abandoned).await;
    assert!(matches!(&ended.targets[0].outcome, Some(Outcome::Lost { why: Loss::Abandoned, by: Some(_) })));
    let params = ChangeParams { key: world.key(), host: "a".into() };
    world.admin().await.call::<HostRemove>(&params).await.expect("removed");
    let ended = wait(&client, removed).await;
    assert_eq!(ended.targets[0].outcome, Some(Outcome::Lost { why: Loss::HostRemoved, by: None }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_many_offline_hosts_is_explained_whole() {
    let world = World::new().await;
    let token = world.join_token(1000).await;
    for index in 0..450 {
        world.enrol(&super::world::Key::new(), &format!("h{index:03}"), &token).await.expect("enrolled");
    }
    let client = world.client(Role::Operator).await;
    let params = world.run_params(&["all"]);
    create(&client, &params).await.expect("run");
    let first = wait(&client, params.key).await;
    assert_eq!((first.summary.counts.targets, first.summary.counts.failed), (450, 450));
    let next = first.next.expect("another page");
    let page =
        datacentered_proto::ops::run::ShowParams { run: params.key, limit: Some(1000), next: Some(next) };
    let second = client.call::<datacentered_proto::operations::RunShow>(&page).await.expect("page");
    assert_eq!(second.targets[0].host, format!("h{:03}", first.targets.len()));
    let world = world.restart().await;
    let ended = show(&world.client(Role::Viewer).await, params.key).await.summary;
    assert!(ended.ended.is_some() && ended.counts.failed == 450);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_hub_runs_nothing_twice_and_adopts_what_its_hosts_know() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let before = create(&client, &world.run_params(&["a"])).await.expect("run");
    let job = before.targets[0].job;
    eventually("accepted", || agent.journal.lock().expect("lock").jobs.contains_key(&job)).await;
    let backup = world.backup().await;
    // After the backup the job ends and is forgotten, and another one is started that the backup does not know.
    agent.end(&link, job, Outcome::Exited { code: 0 }).await.expect("reported");
    eventually("released", || agent.journal.lock().expect("lock").released.contains(&job)).await;
    let after = create(&client, &world.run_params(&["a"])).await.expect("run");
    let unknown = after.targets[0].job;
    eventually("accepted", || agent.journal.lock().expect("lock").jobs.contains_key(&unknown)).await;
    let offers = agent.journal.lock().expect("lock").offers.len();

    let world = world.restored(&backup).await;
    let link = agent.connect(&world).await;
    let client = world.client(Role::Operator).await;
    let lost = Outcome::Lost { why: Loss::JournalReplaced, by: None };
    assert_eq!(wait(&client, before.run).await.targets[0].outcome, Some(lost), "it may have run");
    agent.end(&link, unknown, Outcome::Exited { code: 5 }).await.expect("reported");
    assert_eq!(wait(&client, after.run).await.targets[0].outcome, Some(Outcome::Exited { code: 5 }));
    assert_eq!(
        agent.journal.lock().expect("lock").offers.len(),
        offers,
        "something was offered a second time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_wait_for_room_outlive_a_restart_of_the_hub() {
    let world = World::new().await;
    let mut agents = Vec::new();
    for index in 0..3 {
        agents.push(Agent::join(&world, &format!("h{index}"), Script::Run).await.0);
    }
    let client = world.client(Role::Operator).await;
    let mut params = world.run_params(&["all"]);
    params.max_parallel = Some(1);
    create(&client, &params).await.expect("run");
    let world = world.restart().await;
    for agent in &agents {
        agent.journal.lock().expect("lock").script = Some(Script::Exit(0));
    }
    let client = world.client(Role::Operator).await;
    let mut links = Vec::new();
    for agent in &agents {
        let link = agent.connect(&world).await;
        let open: Vec<_> = agent.journal.lock().expect("lock").jobs.keys().copied().collect();
        for job in open {
            agent.end(&link, job, Outcome::Exited { code: 0 }).await.expect("reported");
        }
        links.push(link);
    }
    let counts = wait(&client, params.key).await.summary.counts;
    assert_eq!((counts.succeeded, counts.failed), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_given_up_is_ended_on_its_host() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let run = create(&client, &world.run_params(&["a"])).await.expect("run").run;
    eventually("accepted", || !agent.journal.lock().expect("lock").jobs.is_empty()).await;
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    let params = AbandonParams { key: world.key(), run, hosts: vec![] };
    client.call::<RunAbandon>(&params).await.expect("abandoned");
    let _link = agent.connect(&world).await;
    eventually("cancelled and forgotten", || !agent.journal.lock().expect("lock").released.is_empty()).await;
    assert!(
        matches!(show(&client, run).await.targets[0].outcome, Some(Outcome::Lost { .. })),
        "it never changes"
    );
}

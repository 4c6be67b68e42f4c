//! The agent against a hub of the test's own: real TLS on loopback, a real data directory, the agent's real main.

mod fake_hub;

use std::path::Path;
use std::time::{Duration, Instant};

use datacentered_agent_lib::hub_link::EnrolError;
use datacentered_agent_lib::identity::IdentityError;
use datacentered_agent_lib::run::{JoinOptions, RunError, StartOptions, join_until, start_until};
use datacentered_proto::operations::{AgentDrain, JobCancel, JobList, OPERATIONS};
use datacentered_proto::ops::job::{CancelParams, DrainParams, ListParams};
use datacentered_proto::rpc::Cause;
use datacentered_proto::{Code, Error, JobId, JobState, Served};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use fake_hub::{FakeHub, SECRET};

/// Waits that a test can sit out.
const FAST: &str = "\
[reconnect]
base_ms = 20
cap_ms = 100
stable_ms = 0
[hub]
refused_retry_ms = 2000
report_retry_ms = 20
drain_linger_ms = 100
";

struct Agent {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Agent {
    fn join(options: JoinOptions) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(join_until(options, stop.clone())), stop }
    }

    fn start(data_dir: &Path) -> Self {
        let options = StartOptions { data_dir: Some(data_dir.to_owned()), ..StartOptions::default() };
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(start_until(options, stop.clone())), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("stops in good order");
    }
}

fn options(hub: &FakeHub, data_dir: &Path) -> JoinOptions {
    JoinOptions {
        url: hub.address.to_string(),
        token: Some(hub.token()),
        name: Some("web-1".into()),
        labels: [("role".to_owned(), "test".to_owned())].into(),
        run: StartOptions { data_dir: Some(data_dir.to_owned()), ..StartOptions::default() },
    }
}

fn data_dir() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("tempdir");
    std::fs::write(directory.path().join("agent.toml"), FAST).expect("writes");
    directory
}

async fn join_error(options: JoinOptions) -> RunError {
    let join = join_until(options, CancellationToken::new());
    tokio::time::timeout(Duration::from_secs(20), join).await.expect("fails at once").expect_err("is refused")
}

fn job(n: u8) -> JobId {
    format!("0192d3b0-5f7e-7c51-9b0e-1111111111{n:02x}").parse().expect("id")
}

#[tokio::test]
async fn a_host_enrols_once_and_comes_back_with_its_certificate() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    hub.link(1).await;
    hub.until("facts", |state| (!state.facts.is_empty()).then_some(())).await;
    hub.with(|state| {
        let [enrolment] = &state.enrolments[..] else { panic!("{} enrolments", state.enrolments.len()) };
        assert_eq!((enrolment.token.as_str(), enrolment.name.as_str()), (SECRET, "web-1"));
        assert_eq!(enrolment.labels["role"], "test");
        assert!(!enrolment.facts.kernel.is_empty());
        assert_eq!(state.issued, [true], "the link is made with the certificate that the hub gave");
        let hello = state.hellos.last().expect("a greeting");
        let journal = hello.agent.as_ref().expect("an agent tells about its journal");
        assert!(!journal.incarnation.is_empty() && !journal.boot_id.is_empty() && hello.now.is_some());
        assert_eq!(state.facts[0].boot_id, journal.boot_id);
    });
    agent.stop().await;

    // A second start needs no token, neither as `start` nor as `join`.
    let agent = Agent::start(data.path());
    hub.link(2).await;
    agent.stop().await;
    let agent = Agent::join(JoinOptions { token: None, ..options(&hub, data.path()) });
    hub.link(3).await;
    agent.stop().await;
    hub.with(|state| assert_eq!(state.enrolments.len(), 1));
}

#[tokio::test]
async fn an_enrolment_whose_answer_was_lost_is_repeated() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    hub.with(|state| state.lose_enrolments = 1);
    let agent = Agent::join(options(&hub, data.path()));
    hub.link(2).await;
    hub.until("a link with the hub's certificate", |state| {
        state.issued.last().copied().filter(|issued| *issued)
    })
    .await;
    hub.with(|state| assert_eq!((state.enrolments.len(), state.registry.len()), (2, 1)));
    agent.stop().await;
}

#[tokio::test]
async fn a_hub_that_takes_no_repeat_still_knows_the_key() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    hub.with(|state| (state.lose_enrolments, state.forbid_repeats) = (1, true));
    let agent = Agent::join(options(&hub, data.path()));
    hub.until("facts", |state| (!state.facts.is_empty()).then_some(())).await;
    agent.stop().await;
    let agent = Agent::start(data.path());
    hub.link(3).await;
    agent.stop().await;
    hub.with(|state| assert_eq!((state.enrolments.len(), state.registry.len()), (1, 1)));
}

#[tokio::test]
async fn a_hub_with_another_key_is_told_nothing() {
    let (hub, other, data) = (FakeHub::start().await, FakeHub::start().await, data_dir());
    let options = JoinOptions { token: Some(other.token()), ..options(&hub, data.path()) };
    let error = join_error(options).await;
    assert!(matches!(error, RunError::Enrol(EnrolError::Unreachable { .. })), "{error}");
    assert!(error.to_string().contains("is pinned"), "{error}");
    assert_eq!(error.exit_code(), 3);
    hub.with(|state| assert_eq!((state.connections, state.hellos.len()), (1, 0)));
}

#[tokio::test]
async fn what_cannot_work_fails_at_once_and_says_what_to_do() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let wrong = format!("dcj_wrong_{}", hub.token().rsplit('_').next().expect("fingerprint"));
    let error = join_error(JoinOptions { token: Some(wrong), ..options(&hub, data.path()) }).await;
    assert!(error.to_string().contains("no such token"), "{error}");
    assert_eq!(error.exit_code(), 4);

    let nobody = JoinOptions { url: "127.0.0.1:1".into(), ..options(&hub, data.path()) };
    assert_eq!(join_error(nobody).await.exit_code(), 3);
    let no_token = JoinOptions { token: None, ..options(&hub, data.path()) };
    let error = join_error(no_token).await;
    assert!(error.to_string().contains("token create --join"), "{error}");
    assert_eq!(error.exit_code(), 2);

    // The second of several addresses works as well as the first.
    let several = JoinOptions { url: format!("127.0.0.1:1,{}", hub.address), ..options(&hub, data.path()) };
    let agent = Agent::join(several);
    hub.link(1).await;
    let busy = start_until(
        StartOptions { data_dir: Some(data.path().to_owned()), ..StartOptions::default() },
        CancellationToken::new(),
    );
    let error = busy.await.expect_err("the directory is in use");
    assert!(matches!(error, RunError::Identity(IdentityError::Locked { .. })), "{error}");
    agent.stop().await;

    let other = FakeHub::start().await;
    let error = join_error(options(&other, data.path())).await;
    assert!(matches!(error, RunError::Identity(IdentityError::AnotherHub { .. })), "{error}");
}

#[tokio::test]
async fn a_revoked_host_stops_dialling_fast() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    let link = hub.link(1).await;
    let before = hub.with(|state| {
        state.refuse = Some(Error::forbidden("revoked").with_details(json!({"reason": "revoked"})));
        state.hellos.len()
    });
    link.close("revoked");
    hub.until("a refused greeting", |state| (state.hellos.len() == before + 1).then_some(())).await;
    // Unhindered it would have tried about twenty times by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    hub.with(|state| assert_eq!(state.hellos.len(), before + 1));
    // Should the hub change its mind, the host is back without anybody's help.
    hub.with(|state| state.refuse = None);
    hub.link(2).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_host_that_the_hub_knows_as_somebody_else_does_not_serve() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    let link = hub.link(1).await;
    let stranger = "0192d3b0-5f7e-7c51-9b0e-00000000ffff".parse().expect("id");
    hub.with(|state| state.registry.values_mut().for_each(|(id, _)| *id = stranger));
    let facts = hub.with(|state| state.facts.len());
    link.close("restored from a backup");
    let link = hub.link(2).await;
    link.closed().await;
    assert_eq!(hub.with(|state| state.facts.len()), facts);
    agent.stop().await;
}

#[tokio::test]
async fn another_protocol_version_is_no_link() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    let link = hub.link(1).await;
    hub.with(|state| state.protocol = Some(99));
    link.close("upgraded");
    hub.link(2).await.closed().await;
    hub.with(|state| state.protocol = None);
    hub.link(3).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_cut_link_comes_back() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    for count in 1..=5 {
        hub.link(count).await.close("cut by the test");
    }
    hub.link(6).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_draining_hub_is_left_alone_for_as_long_as_it_said() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    let link = hub.link(1).await;
    let announced = Instant::now();
    link.call::<AgentDrain>(&DrainParams { reconnect_after_ms: 700 }).await.expect("is answered");
    link.closed().await;
    hub.link(2).await;
    assert!(announced.elapsed() >= Duration::from_millis(700), "back after {:?}", announced.elapsed());
    agent.stop().await;
}

#[tokio::test]
async fn every_operation_of_the_table_that_is_an_agents_has_its_handler() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    let link = hub.link(1).await;
    let bogus = serde_json::value::to_raw_value(&json!({"bogus": 1})).expect("encodes");
    for spec in OPERATIONS.iter().filter(|spec| spec.served != Served::Link) {
        let answer = link.call_raw(spec.name, &bogus, Cause::default()).await;
        let code = answer.expect_err("takes no such parameters").code;
        let expected = match spec.served {
            Served::Agent => Code::Invalid,
            Served::Hub | Served::Link => Code::NotFound,
        };
        assert_eq!(code, expected, "{}", spec.name);
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_report_is_repeated_until_it_is_answered() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    let link = hub.link(1).await;
    let later = || Error::unavailable("the hub's disk is full");
    hub.with(|state| state.report_errors = [later(), later(), later()].into());
    // A job that is cancelled before it came leaves a tombstone, which is an outcome like any other.
    let run = "0192d3b0-5f7e-7c51-9b0e-222222222222".parse().expect("id");
    let cancel = CancelParams { job: job(1), run, by: "test".into() };
    let report = link.call::<JobCancel>(&cancel).await.expect("is cancelled");
    assert_eq!(report.state, JobState::Ended);
    let told = hub.until("the report", |state| state.reports.last().cloned()).await;
    assert_eq!((told.job, told.outcome), (job(1), report.outcome.clone()));
    hub.with(|state| assert!(state.report_errors.is_empty()));

    // A hub that was restored from a backup has forgotten it: it is told again.
    let before = hub.with(|state| {
        state.epoch = "e2".into();
        state.reports.len()
    });
    link.close("restored");
    let link = hub.link(2).await;
    hub.until("the report again", |state| (state.reports.len() > before).then_some(())).await;
    let listed = link.call::<JobList>(&ListParams::default()).await.expect("lists");
    assert_eq!(listed.jobs.iter().map(|report| report.job).collect::<Vec<_>>(), [job(1)]);
    agent.stop().await;
}

#[tokio::test]
async fn a_job_that_the_hub_does_not_know_is_told_again_at_the_next_greeting() {
    let (hub, data) = (FakeHub::start().await, data_dir());
    let agent = Agent::join(options(&hub, data.path()));
    let link = hub.link(1).await;
    hub.with(|state| state.report_errors = [Error::not_found("no such job")].into());
    let run = "0192d3b0-5f7e-7c51-9b0e-222222222222".parse().expect("id");
    let cancel = CancelParams { job: job(1), run, by: "test".into() };
    let report = link.call::<JobCancel>(&cancel).await.expect("is cancelled");
    assert_eq!(report.high_water, 1, "the tombstone is in the journal");
    hub.until("the refusal", |state| state.report_errors.is_empty().then_some(())).await;
    // On this link it is not repeated; `report_retry_ms` is 20.
    tokio::time::sleep(Duration::from_millis(300)).await;
    hub.with(|state| assert!(state.reports.is_empty()));

    // The epoch is the same: nothing else makes the agent tell it again.
    link.close("comes back");
    hub.link(2).await;
    let told = hub.until("the report again", |state| state.reports.last().cloned()).await;
    assert_eq!((told.job, told.high_water), (job(1), 1));

    // Taken now, so that it is not told a third time.
    hub.link(2).await.close("comes back");
    let link = hub.link(3).await;
    let listed = link.call::<JobList>(&ListParams::default()).await.expect("lists");
    assert_eq!(listed.jobs.iter().map(|report| report.high_water).collect::<Vec<_>>(), [1]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    hub.with(|state| assert_eq!(state.reports.len(), 1));
    agent.stop().await;
}

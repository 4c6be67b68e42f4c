//! The program as it is installed: a real process with real shims, against a hub of the test's own.

#[path = "../../../crates/agent/tests/hub_link/fake_hub.rs"]
mod fake_hub;
mod policy;
mod program;
mod terminal;

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::{Link, StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{JobAck, JobInput, JobList, JobOffer, JobOutput, JobRelease};
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::job::{
    AckParams, ExecSpec, InputParams, JobReport, ListParams, Offer, OutputParams, ReleaseParams,
};
use datacentered_proto::{ByteString, Code, Error, JobId, JobState, Outcome};
use rustix::process::Signal;
use serde_json::Value;

use fake_hub::FakeHub;
use program::Program;

/// What the agent may hold of its own, in KiB.
const MOST_ANONYMOUS_KIB: u64 = 5 * 1024;

/// What it may take with the pages of its program, in KiB; those of a program that is not optimised are several times as
/// many.
const MOST_RESIDENT_KIB: u64 = 15 * 1024;

fn job(n: u8) -> JobId {
    format!("0192d3b0-5f7e-7c51-9b0e-1111111111{n:02x}").parse().expect("id")
}

async fn offer(hub: &FakeHub, link: &Link, n: u8, script: &str, stdin: bool) -> JobReport {
    try_offer(hub, link, n, script, stdin).await.expect("is accepted")
}

async fn try_offer(hub: &FakeHub, link: &Link, n: u8, script: &str, stdin: bool) -> Result<JobReport, Error> {
    let argv = ["sh", "-c", script].map(ByteString::from).into();
    try_offer_spec(hub, link, n, ExecSpec { stdin, ..ExecSpec::command(argv) }).await
}

async fn offer_spec(hub: &FakeHub, link: &Link, n: u8, spec: ExecSpec) -> JobReport {
    try_offer_spec(hub, link, n, spec).await.expect("is accepted")
}

async fn try_offer_spec(hub: &FakeHub, link: &Link, n: u8, spec: ExecSpec) -> Result<JobReport, Error> {
    let incarnation = hub.with(|state| {
        state.hellos.last().and_then(|hello| hello.agent.clone()).expect("an agent's greeting").incarnation
    });
    let offer = Offer {
        job: job(n),
        run: "0192d3b0-5f7e-7c51-9b0e-222222222222".parse().expect("id"),
        incarnation,
        by: "test".into(),
        spec,
    };
    link.call::<JobOffer>(&offer).await
}

async fn output(link: &Link, n: u8, from: u64) -> StreamReader {
    let make = |stream| OutputParams { job: job(n), from, stream };
    link.open::<JobOutput>(from, make).await.expect("opens").1
}

/// Reads on until `text` ends in `until`, or the stream has ended; tells why it ended.
async fn read(reader: &mut StreamReader, text: &mut Vec<u8>, until: &str) -> Option<EndReason> {
    let all = async {
        while !text.ends_with(until.as_bytes()) || until.is_empty() {
            match reader.next().await.expect("has no end before its end") {
                StreamEvent::Bytes { offset, payload, .. } => {
                    assert_eq!(offset, text.len() as u64, "nothing missing, nothing twice");
                    text.extend_from_slice(&payload);
                }
                StreamEvent::End(end) => {
                    if end.reason == EndReason::Done {
                        assert_eq!(end.offset, text.len() as u64);
                    }
                    return Some(end.reason);
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        None
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("output comes")
}

async fn ended(hub: &FakeHub, n: u8) -> JobReport {
    let find = |state: &mut fake_hub::State| {
        state.reports.iter().find(|report| report.job == job(n) && report.state == JobState::Ended).cloned()
    };
    hub.until("the outcome", find).await
}

#[tokio::test]
async fn scripts_can_wait_for_what_it_prints_and_it_stops_in_good_order() {
    let hub = FakeHub::start().await;
    let mut agent = Program::join(&hub);
    let enrolled = agent.event("enrolled").await;
    assert_eq!(enrolled["name"], "web-1");
    assert_eq!(agent.event("connected").await["name"], "web-1");
    hub.link(1).await.close("cut by the test");
    let lost = agent.event("disconnected").await;
    assert!(lost["reason"] == "closed" && lost["retry_ms"].is_u64(), "{lost}");
    agent.event("connected").await;
    let (anonymous, resident) = (agent.memory_kib("Anonymous:"), agent.memory_kib("Rss:"));
    assert!(anonymous <= MOST_ANONYMOUS_KIB, "the agent holds {anonymous} KiB of its own");
    assert!(cfg!(debug_assertions) || resident <= MOST_RESIDENT_KIB, "the agent takes {resident} KiB");
    let data_dir = agent.data_dir();
    let (code, rest, log) = agent.end(Signal::TERM).await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(rest.last().map(|event| event["event"].clone()), Some(Value::from("stopped")));
    assert!(log.contains("enrolled") && !log.contains("a_secret"), "{log}");

    // Without `-o json` standard output stays empty.
    let agent = Program::start(data_dir, &[]);
    hub.link(3).await;
    let (code, events, _) = agent.end(Signal::INT).await;
    assert_eq!((code, events.len()), (Some(0), 0));
}

#[tokio::test]
async fn output_goes_on_over_a_new_link_where_it_stopped() {
    let hub = FakeHub::start().await;
    let agent = Program::join(&hub);
    let link = hub.link(1).await;
    let gate = agent.data_dir().path().join("gate");
    let script =
        format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two; exit 3", gate.display());
    offer(&hub, &link, 1, &script, false).await;
    let mut text = Vec::new();
    let mut reader = output(&link, 1, 0).await;
    assert_eq!(read(&mut reader, &mut text, "one\n").await, None);

    link.close("cut by the test");
    let link = hub.link(2).await;
    std::fs::write(&gate, "").expect("opens the gate");
    let mut reader = output(&link, 1, text.len() as u64).await;
    assert_eq!(read(&mut reader, &mut text, "").await, Some(EndReason::Done));
    assert_eq!(text, b"one\ntwo\n");

    let report = ended(&hub, 1).await;
    assert_eq!(report.outcome, Some(Outcome::Exited { code: 3 }));
    assert_eq!(report.stdout_bytes, text.len() as u64);
    // What was sent can be read again from anywhere, until the hub says that it has it.
    let mut again = b"one".to_vec();
    read(&mut output(&link, 1, 3).await, &mut again, "").await;
    assert_eq!(again, text);

    link.call::<JobAck>(&AckParams { job: job(1), upto: text.len() as u64 }).await.expect("takes the ack");
    link.call::<JobRelease>(&ReleaseParams { jobs: vec![job(1)] }).await.expect("releases");
    assert!(link.call::<JobList>(&ListParams::default()).await.expect("lists").jobs.is_empty());
    let gone = link.open::<JobOutput>(0, |stream| OutputParams { job: job(1), from: 0, stream }).await;
    assert_eq!(gone.expect_err("is gone").code, Code::NotFound);
    agent.end(Signal::TERM).await;
}

#[tokio::test]
async fn a_command_outlives_its_agent_and_is_told_by_the_next_one() {
    let hub = FakeHub::start().await;
    let mut agent = Program::join(&hub);
    let link = hub.link(1).await;
    for (n, signal) in [(1, Signal::KILL), (2, Signal::TERM)] {
        let link = hub.link(usize::from(n)).await;
        let gate = agent.data_dir().path().join(format!("gate{n}"));
        let script =
            format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two; exit {n}", gate.display());
        offer(&hub, &link, n, &script, false).await;
        let mut text = Vec::new();
        read(&mut output(&link, n, 0).await, &mut text, "one\n").await;
        agent.signal(signal);
        agent.gone().await;
        // Ends while no agent is there.
        std::fs::write(&gate, "").expect("opens the gate");
        tokio::time::sleep(Duration::from_millis(200)).await;
        agent = Program::start(agent.data_dir(), &["-o", "json"]);
        let link = hub.link(usize::from(n) + 1).await;
        let report = ended(&hub, n).await;
        assert_eq!(report.outcome, Some(Outcome::Exited { code: i32::from(n) }), "{:?}", report.evidence);
        read(&mut output(&link, n, text.len() as u64).await, &mut text, "").await;
        assert_eq!(text, b"one\ntwo\n");
    }
    assert!(link.is_closed());
    agent.end(Signal::TERM).await;
}

#[tokio::test]
async fn a_journal_that_fails_ends_the_agent_and_the_next_one_takes_jobs() {
    let hub = FakeHub::start().await;
    let mut agent = Program::join(&hub);
    let link = hub.link(1).await;
    agent.fail_writes();
    try_offer(&hub, &link, 1, "exit 4", false).await.expect_err("the journal takes nothing");
    assert_eq!(agent.gone().await, Some(1), "it did not stay online to take nothing");

    let agent = Program::start(agent.data_dir(), &["-o", "json"]);
    let link = hub.link(2).await;
    offer(&hub, &link, 1, "exit 4", false).await;
    assert_eq!(ended(&hub, 1).await.outcome, Some(Outcome::Exited { code: 4 }));
    agent.end(Signal::TERM).await;
}

#[tokio::test]
async fn input_goes_on_where_the_host_has_it() {
    let hub = FakeHub::start().await;
    let agent = Program::join(&hub);
    let link = hub.link(1).await;
    offer(&hub, &link, 1, "cat", true).await;
    let mut text = Vec::new();
    let (opened, mut writer) =
        link.upload::<JobInput>(|stream| InputParams { job: job(1), stream }).await.expect("opens");
    assert_eq!(opened.cursor.map(|cursor| cursor.offset), Some(0));
    assert!(opened.credit.is_some_and(|credit| credit > 0));
    writer.send_bytes(Kind::Stdin, 0, "first\n".into()).await.expect("sends");
    read(&mut output(&link, 1, 0).await, &mut text, "first\n").await;

    link.close("cut by the test");
    let link = hub.link(2).await;
    let (opened, mut writer) =
        link.upload::<JobInput>(|stream| InputParams { job: job(1), stream }).await.expect("opens");
    let held = opened.cursor.map(|cursor| cursor.offset).expect("says what it holds");
    assert_eq!(held, 6);
    writer.send_bytes(Kind::Stdin, held, "second\n".into()).await.expect("sends");
    writer.end(EndReason::Done, held + 7, None).await.expect("ends");
    assert_eq!(read(&mut output(&link, 1, 6).await, &mut text, "").await, Some(EndReason::Done));
    assert_eq!(text, b"first\nsecond\n");
    assert_eq!(ended(&hub, 1).await.outcome, Some(Outcome::Exited { code: 0 }));
    agent.end(Signal::TERM).await;
}

#[tokio::test]
async fn mistakes_end_it_with_their_exit_code_and_a_reason() {
    let data = Arc::new(tempfile::tempdir().expect("tempdir"));
    let (code, events, log) = Program::start(data.clone(), &["-o", "json"]).finish().await;
    assert_eq!((code, events.len()), (Some(2), 0));
    assert!(log.contains("not enrolled") && log.contains("token create --join"), "{log}");
    assert!(!data.path().join("agent").exists(), "nothing is made in a directory that may be a mistake");

    std::fs::create_dir(data.path().join("agent")).expect("creates");
    std::fs::write(data.path().join("agent/enrolment.json"), "{}").expect("writes");
    std::fs::write(data.path().join("agent.toml"), "\n[hub]\nfoo = 1\n").expect("writes");
    let (code, _, log) = Program::start(data.clone(), &["--log-format", "json"]).finish().await;
    assert_eq!(code, Some(2));
    assert!(log.contains("agent.toml:3: unknown field `foo`"), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
}

#[tokio::test]
async fn as_many_outputs_and_inputs_as_jobs_are_followed_and_cost_little() {
    const EACH: u64 = 1000;
    /// Most that one takes which has nothing to send or to feed, in bytes of the agent's memory.
    const MOST: u64 = 8 << 10;
    let hub = FakeHub::start().await;
    let agent = Program::join(&hub);
    let link = hub.link(1).await;
    // The agent takes more open files than it was given, and does not pass that on.
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let expected = own.map_or("unlimited\n".to_owned(), |soft| format!("{soft}\n"));
    offer(&hub, &link, 1, "ulimit -Sn; cat", true).await;
    let mut text = Vec::new();
    read(&mut output(&link, 1, 0).await, &mut text, &expected).await;
    assert_eq!(String::from_utf8_lossy(&text), expected);

    let from = text.len() as u64;
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    let before = agent.memory_kib("Anonymous:");
    for _ in 0..EACH {
        readers.push(output(&link, 1, from).await);
    }
    let between = agent.memory_kib("Anonymous:");
    for _ in 0..EACH {
        let input = link.upload::<JobInput>(|stream| InputParams { job: job(1), stream }).await;
        writers.push(input.expect("takes input"));
    }
    let after = agent.memory_kib("Anonymous:");
    for (what, kib) in [("output", between.saturating_sub(before)), ("input", after.saturating_sub(between))]
    {
        assert!(kib * 1024 / EACH <= MOST, "an idle {what} takes {} bytes", kib * 1024 / EACH);
    }
    drop((readers, writers));
    agent.end(Signal::TERM).await;
}

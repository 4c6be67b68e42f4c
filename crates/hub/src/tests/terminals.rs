//! Terminals: several writers and readers at one, and what is refused.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use datacentered_link::{Link, StreamEvent, StreamReader, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{
    AuditList, EventWatch, RunCreate, RunInput, RunOutput, TerminalInput, TerminalList, TerminalOpen,
    TerminalOutput, TerminalResize,
};
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::event::{Event, WatchParams};
use datacentered_proto::ops::job::{ExecSpec, TerminalSpec, Window};
use datacentered_proto::ops::run::RunReply;
use datacentered_proto::ops::terminal::{
    InputParams, ListParams, ListReply, OpenParams, OutputParams, ResizeParams,
};
use datacentered_proto::ops::{EndReason, GapReason, StreamOpened, audit, run};
use datacentered_proto::{Code, Error, JobId, OperationKey, Outcome, RunId};

use super::agent::{Agent, Script};
use super::clients::wait;
use super::world::{PATIENCE, World, eventually};

fn shell() -> ExecSpec {
    ExecSpec {
        terminal: Some(TerminalSpec { window: Window { cols: 80, rows: 24 }, term: "xterm".into() }),
        ..ExecSpec::command(vec![])
    }
}

async fn open(world: &World, client: &Link, host: &str) -> Result<RunReply, Error> {
    let key = RunId::from_uuid(world.hub.clock.uuid());
    client.call::<TerminalOpen>(&OpenParams { key, host: host.into(), exec: shell() }).await
}

async fn type_into(client: &Link, run: RunId, writer: OperationKey) -> (u64, StreamWriter) {
    let opened = client.upload::<TerminalInput>(|stream| InputParams { run, writer, stream }).await;
    let (reply, stream) = opened.expect("input");
    (reply.cursor.expect("a cursor").offset, stream)
}

async fn watch(
    client: &Link,
    run: RunId,
    from: u64,
    tail: Option<u64>,
) -> Result<(StreamOpened, StreamReader), Error> {
    let params = |stream| OutputParams { run, cursor: None, from, tail, stream };
    client.open::<TerminalOutput>(from, params).await
}

async fn next(reader: &mut StreamReader) -> StreamEvent {
    tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("an event")
}

fn typed(agent: &Agent, job: JobId) -> Vec<u8> {
    agent.journal.lock().expect("lock").input.get(&job).cloned().unwrap_or_default()
}

async fn accepted(agent: &Agent, job: JobId) {
    eventually("accepted", || agent.journal.lock().expect("lock").jobs.contains_key(&job)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_type_each_byte_once_and_in_order_across_restarts() {
    const PIECES: usize = 60;
    let mut world = World::new().await;
    let (agent, mut agent_link) = Agent::join(&world, "a", Script::Run).await;
    let mut client = world.client(Role::Operator).await;
    let opened = open(&world, &client, "a").await.expect("opened");
    let (run, job) = (opened.run, opened.targets[0].job);
    accepted(&agent, job).await;
    let keys = [world.key(), world.key()];
    // Each writes its own letters, so that what arrived can be taken apart again.
    let texts: Vec<Vec<u8>> =
        [b'a', b'A'].iter().map(|first| (0..PIECES * 7).map(|i| first + (i % 26) as u8).collect()).collect();
    for round in 0..4 {
        let mut streams = HashMap::new();
        for key in keys {
            streams.insert(key, type_into(&client, run, key).await);
        }
        let upto = (round + 1) * texts[0].len() / 4;
        for at in (0..upto).step_by(7) {
            for (key, text) in keys.iter().zip(&texts) {
                let (held, stream) = streams.get_mut(key).expect("a stream");
                let end = (at + 7).min(upto);
                if (*held as usize) < end {
                    let piece = Bytes::copy_from_slice(&text[*held as usize..end]);
                    stream.send_bytes(Kind::Stdin, *held, piece).await.expect("sent");
                    *held = end as u64;
                }
            }
        }
        if round < 3 {
            // Whatever of it the hub did not take in has to be sent again, and nothing else.
            drop(streams);
            world = world.restart().await;
            client = world.client(Role::Operator).await;
            agent_link = agent.connect(&world).await;
        } else {
            let total = texts[0].len() + texts[1].len();
            eventually("all has arrived", || typed(&agent, job).len() >= total).await;
        }
    }
    let all = typed(&agent, job);
    let of = |own: fn(&u8) -> bool| all.iter().copied().filter(own).collect::<Vec<_>>();
    assert_eq!(of(u8::is_ascii_lowercase), texts[0]);
    assert_eq!(of(u8::is_ascii_uppercase), texts[1]);

    agent.end(&agent_link, job, Outcome::Exited { code: 0 }).await.expect("reported");
    wait(&client, run).await;
    let again = client
        .upload::<TerminalInput>(|stream| InputParams { run, writer: keys[0], stream })
        .await
        .expect_err("it has ended");
    assert_eq!(again.code, Code::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_writer_over_two_links_types_nothing_twice() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let (first, second) = (world.client(Role::Operator).await, world.client(Role::Operator).await);
    let opened = open(&world, &first, "a").await.expect("opened");
    let (run, job) = (opened.run, opened.targets[0].job);
    let key = world.key();
    let (held, mut old) = type_into(&first, run, key).await;
    let (again, mut new) = type_into(&second, run, key).await;
    assert_eq!((held, again), (0, 0));
    old.send_bytes(Kind::Stdin, 0, Bytes::from_static(b"abc")).await.expect("sent");
    new.send_bytes(Kind::Stdin, 0, Bytes::from_static(b"abcdef")).await.expect("sent");
    eventually("all has arrived", || typed(&agent, job).len() >= 6).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(typed(&agent, job), b"abcdef");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_is_dropped_and_the_writer_still_goes_on() {
    let world = World::new().await;
    let (agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let opened = open(&world, &client, "a").await.expect("opened");
    let (run, job) = (opened.run, opened.targets[0].job);
    let key = world.key();
    let (_, mut stream) = type_into(&client, run, key).await;
    let piece = Bytes::from(vec![b'x'; 16 * 1024]);
    let total = 5 << 20;
    for at in (0..total).step_by(piece.len()) {
        stream.send_bytes(Kind::Stdin, at as u64, piece.clone()).await.expect("sent");
    }
    eventually("all has arrived", || typed(&agent, job).len() == total).await;
    let log = crate::jobs::input_log(run).expect("a name");
    let mut kept = 0;
    for _ in 0..200 {
        kept = world.hub.engine.log().state(&log).await.expect("state").expect("a log").bytes;
        if kept < 3 << 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(kept < 3 << 20, "{kept} bytes are kept");
    drop(stream);
    let world = world.restart().await;
    let client = world.client(Role::Operator).await;
    let (held, _stream) = type_into(&client, run, key).await;
    assert_eq!(held, total as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_terminals_is_its_own() {
    let world = World::new().await;
    let (_agent, _link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let opened = open(&world, &client, "a").await.expect("opened");
    let id = opened.run;
    let mut create = world.run_params(&["a"]);
    create.exec = shell();
    let refused = client.call::<RunCreate>(&create).await.expect_err("refused");
    assert!(refused.code == Code::Invalid && refused.message.contains("terminal.open"), "{refused}");
    let params = |stream| run::OutputParams { run: id, host: None, cursor: None, from: 0, stream };
    let refused = client.open::<RunOutput>(0, params).await.map(|_| ()).expect_err("refused");
    assert!(refused.code == Code::Invalid && refused.message.contains("terminal.output"), "{refused}");
    let refused = client.upload::<RunInput>(|stream| run::InputParams { run: id, stream }).await;
    let refused = refused.map(|_| ()).expect_err("refused");
    assert!(refused.code == Code::Invalid && refused.message.contains("terminal.input"), "{refused}");
    // And the other way round.
    let plain = super::clients::create(&client, &world.run_params(&["a"])).await.expect("run").run;
    let refused = watch(&client, plain, 0, None).await.map(|_| ()).expect_err("refused");
    assert!(refused.code == Code::Invalid && refused.message.contains("run.output"), "{refused}");
    // Only a literal name, and only what is a terminal.
    assert_eq!(open(&world, &client, "all").await.expect_err("no host").code, Code::NotFound);
    let key = RunId::from_uuid(world.hub.clock.uuid());
    let no_terminal = OpenParams { key, host: "a".into(), exec: ExecSpec::command(vec!["true".into()]) };
    assert_eq!(client.call::<TerminalOpen>(&no_terminal).await.expect_err("refused").code, Code::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_size_reaches_the_host_now_or_later() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let opened = open(&world, &client, "a").await.expect("opened");
    let (run, job) = (opened.run, opened.targets[0].job);
    accepted(&agent, job).await;
    let resize = |cols, rows| ResizeParams { key: world.key(), run, window: Window { cols, rows } };
    for (cols, rows) in [(0, 24), (80, 0), (Window::MAX + 1, 24), (80, u16::MAX)] {
        let refused = client.call::<TerminalResize>(&resize(cols, rows)).await.expect_err("refused");
        assert_eq!(refused.code, Code::Invalid, "{cols}x{rows}");
    }
    let now = client.call::<TerminalResize>(&resize(100, 30)).await.expect("resized");
    assert_eq!((now.targets, now.pending), (1, 0));
    assert_eq!(agent.journal.lock().expect("lock").windows, [Window { cols: 100, rows: 30 }]);
    link.close("test");
    eventually("offline", || !world.hub.live.is_online(agent.host)).await;
    for cols in [110, 120] {
        let later = client.call::<TerminalResize>(&resize(cols, 40)).await.expect("resized");
        assert_eq!((later.targets, later.pending), (0, 1));
    }
    let _link = agent.connect(&world).await;
    let last = Window { cols: 120, rows: 40 };
    eventually("told", || agent.journal.lock().expect("lock").windows.last() == Some(&last)).await;
}

async fn list(client: &Link, active: bool) -> ListReply {
    client.call::<TerminalList>(&ListParams { active, ..ListParams::default() }).await.expect("list")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_is_counted_told_and_written_down() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let opened = open(&world, &client, "a").await.expect("opened");
    let (run, job) = (opened.run, opened.targets[0].job);
    accepted(&agent, job).await;
    let (_, reader) = watch(&client, run, 0, None).await.expect("output");
    let (_, writer) = type_into(&client, run, world.key()).await;
    let terminal = list(&client, true).await.terminals.remove(0);
    assert_eq!((terminal.watchers, terminal.writers, terminal.host.as_str()), (1, 1, "a"));
    assert_eq!(terminal.summary.command, "<login shell>");
    drop((reader, writer));
    for _ in 0..400 {
        let terminal = list(&client, true).await.terminals.remove(0);
        if (terminal.watchers, terminal.writers) == (0, 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    agent.end(&link, job, Outcome::Exited { code: 3 }).await.expect("reported");
    wait(&client, run).await;
    assert!(list(&client, true).await.terminals.is_empty());
    let ended = list(&client, false).await.terminals.remove(0);
    assert_eq!((ended.watchers, ended.writers), (0, 0));
    assert_eq!(ended.outcome, Some(Outcome::Exited { code: 3 }));

    let params =
        |stream| WatchParams { cursor: None, from_start: true, kinds: vec!["terminal.".into()], stream };
    let (_, mut events) = client.open::<EventWatch>(0, params).await.expect("events");
    let mut kinds = Vec::new();
    while kinds.len() < 6 {
        let StreamEvent::Item { value, .. } = next(&mut events).await else { panic!("no item") };
        let event: Event = serde_json::from_str(value.get()).expect("an event");
        assert_eq!(event.about, run.to_string());
        assert_eq!(event.detail["by"], "token:operator", "{event:?}");
        kinds.push(event.kind);
    }
    kinds.sort();
    let twice = ["terminal.attached", "terminal.attached", "terminal.detached", "terminal.detached"];
    assert_eq!(kinds[..4], twice);
    assert_eq!(kinds[4..], ["terminal.ended", "terminal.opened"]);
    let admin = world.client(Role::Admin).await;
    eventually_audited(&admin).await;
}

async fn eventually_audited(admin: &Link) {
    for _ in 0..400 {
        let params = audit::ListParams::default();
        let entries = admin.call::<AuditList>(&params).await.expect("audit").entries;
        let of = |operation: &str| entries.iter().filter(|entry| entry.operation == operation).count();
        // Each when it begins and when it ends.
        if (of("terminal.open"), of("terminal.output"), of("terminal.input")) == (2, 2, 2) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never written down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_delays_nobody() {
    let world = World::new().await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let opened = open(&world, &client, "a").await.expect("opened");
    let (run, job) = (opened.run, opened.targets[0].job);
    accepted(&agent, job).await;
    let stuck = world.client(Role::Operator).await;
    let (_, mut never_read) = watch(&stuck, run, 0, None).await.expect("output");
    let (_, mut reader) = watch(&client, run, 0, None).await.expect("output");
    let text = "0123456789abcdef".repeat(64 * 1024);
    for _ in 0..4 {
        agent.print(job, Kind::Terminal, &text);
    }
    agent.end(&link, job, Outcome::Exited { code: 0 }).await.expect("reported");
    for reader in [&mut reader, &mut never_read] {
        let mut read = 0;
        loop {
            match next(reader).await {
                StreamEvent::Bytes { payload, .. } => read += payload.len(),
                StreamEvent::End(end) => {
                    assert_eq!(end.reason, EndReason::Done);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, 4 * text.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_drops_its_oldest_and_the_terminal_goes_on() {
    const KEEP: u64 = 256 << 10;
    let world = World::with(|config| config.terminals.recording_bytes = KEEP).await;
    let (agent, link) = Agent::join(&world, "a", Script::Run).await;
    let client = world.client(Role::Operator).await;
    let opened = open(&world, &client, "a").await.expect("opened");
    let (run, job) = (opened.run, opened.targets[0].job);
    accepted(&agent, job).await;
    assert_eq!(agent.journal.lock().expect("lock").jobs[&job].0.spec.output_bytes, 1 << 52);
    let text = "0123456789abcdef".repeat(4 * 1024);
    for i in 1..=16u64 {
        agent.print(job, Kind::Terminal, &text);
        let stored = i * text.len() as u64;
        eventually("stored", || world.hub.outputs.stored(job) == Some(stored)).await;
    }
    let total = 16 * text.len() as u64;
    let kept = list(&client, true).await.terminals[0].recorded_bytes;
    assert!((KEEP / 2..=KEEP * 2).contains(&kept), "{kept}");
    // From the beginning: told of the gap, then the rest.
    agent.end(&link, job, Outcome::Exited { code: 0 }).await.expect("reported");
    let (_, mut reader) = watch(&client, run, 0, None).await.expect("output");
    let StreamEvent::Gap(gap) = next(&mut reader).await else { panic!("no gap") };
    assert_eq!((gap.from, gap.to, gap.reason), (0, total - kept, GapReason::Retention));
    // Near the end: begins with a whole piece, and not before credit was given from there.
    let (opened, mut reader) = watch(&client, run, 0, Some(100)).await.expect("output");
    let at = opened.cursor.expect("a cursor").offset;
    assert!(at <= total - 100 && at > total - 100 - 64 * 1024, "{at} of {total}");
    reader.begin_at(at);
    let StreamEvent::Bytes { offset, .. } = next(&mut reader).await else { panic!("no bytes") };
    assert_eq!(offset, at);
    wait(&client, run).await;
    // As stored: each piece has a byte that says what it is.
    let counted = world.hub.store.view(|view| view.output_bytes);
    assert!((kept..=kept + 1024).contains(&counted), "the rest does not count: {counted} of {kept}");
}

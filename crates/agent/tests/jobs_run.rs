//! Commands that run to an end of their own: outcomes, output, environment, scripts, input.

#![allow(clippy::print_stdout, reason = "the figures are for who reads the log")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Host, Output, command, eventually, exited, facts, offer_of, sh};
use datacentered_proto::error::Code;
use datacentered_proto::ops::job::{ExecSpec, Script};
use datacentered_proto::outcome::{StartFailure, Witness};
use datacentered_proto::{ByteString, JobState, Outcome};

#[tokio::test]
async fn exit_codes_and_signals_are_exact() {
    let host = Host::new().await;
    for code in [0, 1, 7, 127, 128, 255] {
        let report = host.run(sh(&format!("exit {code}"))).await;
        assert_eq!(report.outcome, exited(code), "{report:?}");
        assert!(report.started.is_some() && report.ended >= report.started);
    }
    for signal in [1, 6, 9, 15] {
        let report = host.run(sh(&format!("kill -{signal} $$; sleep 5"))).await;
        assert_eq!(report.outcome, Some(Outcome::Signaled { signal }), "{report:?}");
    }
}

#[tokio::test]
async fn evidence_tells_the_story_in_order() {
    let host = Host::new().await;
    let report = host.run(command(&["true"])).await;
    assert_eq!(facts(&report), ["accepted", "started", "exited"]);
    let witnesses: Vec<Witness> = report.evidence.iter().map(|evidence| evidence.witness).collect();
    assert_eq!(witnesses, [Witness::Agent, Witness::Shim, Witness::Shim]);
    let job = report.job;
    let host = host.reopen().await;
    let again = host.jobs.report(job).expect("is known");
    assert_eq!(again, report, "the same from disk");
}

#[tokio::test]
async fn starting_costs_one_sync_each() {
    let host = Host::new().await;
    let before = host.jobs.syncs();
    let begin = Instant::now();
    let job = host.start(command(&["true"])).await;
    let accepted = begin.elapsed();
    let report = host.ended(job).await;
    let took = begin.elapsed();
    eventually("synced", || host.jobs.syncs().end == before.end + 1).await;
    let after = host.jobs.syncs();
    let counts =
        (after.journal - before.journal, after.starting - before.starting, after.spool - before.spool);
    assert_eq!(counts, (1, 1, 0), "{report:?}");
    println!("accepted after {accepted:?}, ended after {took:?}");
    let mut changes = host.jobs.changes();
    let mut times = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        let job = host.start(command(&["true"])).await;
        let accepted = begin.elapsed();
        let mut started = None;
        while host.jobs.report(job).is_some_and(|report| report.state != JobState::Ended) {
            changes.next().await;
            if host.jobs.report(job).is_some_and(|report| report.started.is_some()) {
                started.get_or_insert(begin.elapsed());
            }
        }
        times.push((begin.elapsed(), started, accepted));
    }
    times.sort_unstable();
    println!("median of 20 (ended, started, accepted): {:?}", times[10]);
    let before_spool = host.jobs.syncs().spool;
    host.run(sh("echo x")).await;
    eventually("synced", || host.jobs.syncs().spool == before_spool + 1).await;
}

#[tokio::test]
async fn every_start_failure_has_its_word() {
    let host = Host::with(|config| config.max_spec = 1 << 20).await;
    let dir = host.dir.path();
    let write = |name: &str, text: &[u8], mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join(name);
        std::fs::write(&path, text).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("sets");
        path.to_str().expect("text").to_owned()
    };
    let plain = write("plain", b"hello", 0o644);
    let garbage = write("garbage", b"\x7fELF nonsense", 0o755);
    let no_interpreter = write("no-interpreter", b"#!/nowhere/at/all\n", 0o755);
    let mut in_nowhere = command(&["true"]);
    in_nowhere.cwd = Some("/no/such/dir".into());
    let mut as_nobody = command(&["true"]);
    as_nobody.user = Some("no-such-user-here".into());
    let large = "x".repeat(200 << 10);
    for (spec, why) in [
        (command(&["no-such-program-here"]), StartFailure::CommandNotFound),
        (command(&["/no/such/program"]), StartFailure::CommandNotFound),
        (command(&[&plain]), StartFailure::PermissionDenied),
        (command(&["/"]), StartFailure::PermissionDenied),
        (command(&[&garbage]), StartFailure::NotExecutable),
        (command(&[&no_interpreter]), StartFailure::NotExecutable),
        (in_nowhere, StartFailure::NoSuchDirectory),
        (as_nobody, StartFailure::NoSuchUser),
        (command(&["true", &large]), StartFailure::ArgumentsTooLarge),
    ] {
        let report = host.run(spec).await;
        assert_eq!(report.outcome, Some(Outcome::FailedToStart { why }), "{report:?}");
        assert_eq!(report.started, None);
        let evidence = report.evidence.last().expect("has some");
        assert_eq!(evidence.fact, "start_failed");
        let detail = evidence.detail.as_deref().expect("says why");
        assert!(detail.len() > 10, "{evidence:?}");
        if why == StartFailure::NoSuchDirectory {
            assert!(detail.starts_with("cannot enter the working directory /no/such/dir: "), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_user_that_may_not_be_taken_on_is_denied_and_one_that_may_is_taken_on() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new().await;
    let mut spec = sh("id -un; id -Gn; echo $HOME $USER; pwd; umask");
    spec.user = Some("nobody".into());
    let report = host.run(spec).await;
    assert_eq!(report.outcome, exited(0));
    let text = host.output(report.job).await.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["nobody", "nogroup", "/nonexistent nobody", "/", "0022"]);
    assert!(facts(&report).contains(&"home_missing"), "{report:?}");

    // A script is readable for its user though the job's directory is not.
    let mut spec = ExecSpec::command(vec!["a b".into()]);
    spec.script =
        Some(Script { interpreter: vec![], body: "#!/bin/sh\necho \"$1\"; id -un; test -w $0".into() });
    spec.user = Some("65534".into());
    let report = host.run(spec).await;
    assert_eq!(report.outcome, exited(0), "{report:?}");
    assert_eq!(host.output(report.job).await.text(), "a b\nnobody\n");
}

#[tokio::test]
async fn out_of_processes_is_out_of_resources() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new().await;
    // A user may have no processes at all: then the identity cannot be taken on, or the program not be executed.
    let mut spec = command(&["true"]);
    spec.user = Some("daemon".into());
    let mut config = host.config.clone();
    config.dir = host.dir.path().join("other");
    config.cgroups = datacentered_agent_lib::cgroup::Choice::Off;
    let other = common::open(&config).await;
    spec.limits.processes = Some(0);
    let mut first = command(&["sleep", "20"]);
    first.user = Some("daemon".into());
    let first = offer_of(first, other.incarnation());
    other.offer(first.clone()).await.expect("takes it");
    eventually("runs", || other.report(first.job).is_some_and(|report| report.started.is_some())).await;
    let offer = offer_of(spec, other.incarnation());
    let job = offer.job;
    other.offer(offer).await.expect("takes it");
    eventually("ended", || other.report(job).is_some_and(|report| report.state == JobState::Ended)).await;
    let report = other.report(job).expect("is known");
    assert_eq!(
        report.outcome,
        Some(Outcome::FailedToStart { why: StartFailure::OutOfResources }),
        "{report:?}"
    );
    other.cancel(first.job, first.run, "tester").await.expect("cancels");
    eventually("ended", || other.report(first.job).is_some_and(|report| report.state == JobState::Ended))
        .await;
}

#[tokio::test]
async fn both_streams_arrive_exactly_and_merged_in_true_order() {
    let host = Host::new().await;
    let script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let report = host.run(sh(script)).await;
    let output = host.output(report.job).await;
    let expected = |word: &str| common::lines(2000, |i| format!("{word} {i}\n")).into_bytes();
    assert_eq!(output.stdout, expected("out"));
    assert_eq!(output.stderr, expected("err"));
    assert_eq!(
        (report.stdout_bytes, report.stderr_bytes),
        (output.stdout.len() as u64, output.stderr.len() as u64)
    );

    let mut spec = sh(script);
    spec.merge = true;
    let report = host.run(spec).await;
    let output = host.output(report.job).await;
    let expected = common::lines(2000, |i| format!("out {i}\nerr {i}\n"));
    assert_eq!(output.text(), expected);
    assert!(output.stderr.is_empty());

    // From the middle, byte by byte the same.
    let rest = host.output_from(report.job, 12_345).await;
    assert_eq!(rest.stdout, &expected.as_bytes()[12_345..]);
}

#[tokio::test]
async fn bytes_that_are_not_text_pass_unchanged() {
    let host = Host::new().await;
    let odd = vec![0xff, 0xfe, b' ', b'"', 0x01, 0x80];
    let mut spec = ExecSpec::command(vec![
        "/bin/sh".into(),
        "-c".into(),
        "printf %s \"$1\"; printf %s \"$ODD\" >&2".into(),
        "x".into(),
        ByteString(odd.clone()),
    ]);
    spec.env.insert("ODD".into(), ByteString(odd.clone()));
    let report = host.run(spec).await;
    let output = host.output(report.job).await;
    assert_eq!((output.stdout, output.stderr), (odd.clone(), odd));
}

#[tokio::test]
async fn the_environment_is_clean() {
    let host = Host::new().await;
    let mut spec = command(&["env"]);
    spec.env.insert("EXTRA".into(), "1".into());
    let report = host.run(spec).await;
    let text = host.output(report.job).await.text();
    let mut names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    let wanted = ["EXTRA", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"];
    names.retain(|name| *name != "DATACENTERED_JOB");
    assert_eq!(names, wanted);

    // No descriptors, no blocked or ignored signals, a session of its own.
    let report = host.run(command(&["ls", "/proc/self/fd"])).await;
    assert_eq!(host.output(report.job).await.text(), "0\n1\n2\n3\n", "three, and the directory itself");
    let report = host.run(command(&["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])).await;
    let text = host.output(report.job).await.text();
    assert!(
        text.lines().count() == 2 && text.lines().all(|line| line.ends_with("0000000000000000")),
        "{text}"
    );
    let report = host.run(sh("[ $(ps -o sid= -p $$) = $$ ] && echo leads; pwd")).await;
    assert!(host.output(report.job).await.text().starts_with("leads\n"));
}

#[tokio::test]
async fn scripts_run_with_their_interpreter() {
    let host = Host::new().await;
    let script = |interpreter: &[&str], body: &str| {
        let mut spec = ExecSpec::command(vec!["a".into(), "b c".into()]);
        let interpreter = interpreter.iter().map(|text| (*text).into()).collect();
        spec.script = Some(Script { interpreter, body: body.into() });
        spec
    };
    for (interpreter, body, expected) in [
        (&[][..], "echo $# \"$2\"", "2 b c\n"),
        (&[], "#!/bin/sh -e\necho $-:$2", ""),
        (&["sh", "-x"], "echo $2", "b c\n"),
        (&["cat"], "text\n", ""),
    ] {
        let report = host.run(script(interpreter, body)).await;
        let output = host.output(report.job).await;
        assert!(output.text().ends_with(expected), "{body}: {output:?}");
    }
    let report = host.run(script(&[], "#!/no/such/interpreter\n")).await;
    let why = StartFailure::NotExecutable;
    assert_eq!(report.outcome, Some(Outcome::FailedToStart { why }), "{report:?}");
}

#[tokio::test]
async fn standard_input_is_null_or_fed_to_its_end() {
    let host = Host::new().await;
    let report = host.run(sh("cat; readlink /proc/self/fd/0")).await;
    assert_eq!(host.output(report.job).await.text(), "/dev/null\n");
    let refused = host.jobs.input(report.job).await.expect_err("has none");
    assert_eq!(refused.code, Code::Invalid);

    let mut spec = command(&["sha256sum"]);
    spec.stdin = true;
    let job = host.start(spec).await;
    let mut input = host.jobs.input(job).await.expect("opens");
    let block: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let block = Bytes::from(block);
    for chunk in 0..10 {
        let offset = chunk * block.len() as u64;
        input.write(offset, block.clone()).await.expect("writes");
        // A repetition, as after a lost answer.
        input.write(offset, block.clone()).await.expect("writes");
    }
    assert_eq!(input.held(), 10 * block.len() as u64);
    let hole = input.write(input.held() + 1, block.clone()).await.expect_err("leaves a hole");
    assert_eq!(hole.code, Code::Conflict);

    // The agent comes back in between.
    let host = host.reopen().await;
    let mut input = host.jobs.input(job).await.expect("opens");
    assert_eq!(input.held(), 10 * block.len() as u64);
    input.write(input.held(), Bytes::from_static(b"end")).await.expect("writes");
    input.eof().await.expect("ends");
    input.eof().await.expect("again");
    let report = host.ended(job).await;
    assert_eq!(report.stdin_bytes, 4_000_003);
    let sum = {
        use sha2::Digest;
        let mut hasher = sha2::Sha256::new();
        (0..10).for_each(|_| hasher.update(&block));
        hasher.update(b"end");
        let digest = hasher.finalize();
        common::lines(32, |i| format!("{:02x}", digest[i as usize]))
    };
    assert_eq!(host.output(job).await.text(), format!("{sum}  -\n"));
    let late = host.jobs.input(job).await.expect("opens").write(4_000_003, block).await.expect_err("is over");
    assert_eq!(late.code, Code::Conflict);
}

#[tokio::test]
async fn much_input_waits_for_its_reader_and_takes_no_more_than_its_limit() {
    let host = Host::with(|config| config.max_stdin = 256 << 10).await;
    let mut spec = sh("sleep 0.5; wc -c");
    spec.stdin = true;
    let job = host.start(spec).await;
    let mut input = host.jobs.input(job).await.expect("opens");
    let block = Bytes::from(vec![7u8; 64 << 10]);
    let begin = Instant::now();
    for chunk in 0..32 {
        input.write(chunk * block.len() as u64, block.clone()).await.expect("writes");
    }
    assert!(begin.elapsed() > Duration::from_millis(300), "waited for the reader");
    input.eof().await.expect("ends");
    host.ended(job).await;
    assert_eq!(host.output(job).await.text(), format!("{}\n", 32 * block.len()));
}

#[tokio::test]
async fn children_left_behind_are_named_and_left_alone() {
    let host = Host::with(|config| config.drain_after_exit = Duration::from_millis(200)).await;
    let begin = Instant::now();
    let report = host.run(sh("sleep 41.25 & setsid sleep 42.25 & echo begun")).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "their pipes do not hold it up");
    assert_eq!(report.outcome, exited(0));
    let left = report.evidence.iter().find(|evidence| evidence.fact == "children_left").expect("is told");
    assert_eq!(left.detail.as_ref().expect("names").matches("(sleep)").count(), 2, "{left:?}");
    assert_eq!(host.output(report.job).await.text(), "begun\n");
    for text in ["41.25", "42.25"] {
        let pids = common::processes_with(text);
        assert_eq!(pids.len(), 1, "left alone");
        common::kill(pids[0], 9);
    }
}

#[tokio::test]
async fn sixty_four_megabytes_pass_quickly_and_exactly() {
    let host = Host::new().await;
    let begin = Instant::now();
    let job = host.start(sh("head -c 67108864 /dev/zero | tr '\\0' 'x'")).await;
    let mut reader = host.jobs.output(job, 0).await.expect("opens");
    let mut output = Output::default();
    let mut count = 0u64;
    loop {
        let event = reader.next().await.expect("reads");
        if let datacentered_agent_lib::jobs::OutputEvent::Bytes { bytes, .. } = &event {
            assert!(bytes[..] == [b'x'; 16 << 10][..bytes.len()]);
            count += bytes.len() as u64;
            if count.is_multiple_of(16 << 20) {
                host.jobs.ack(job, count).await.expect("acks");
            }
        }
        if output.add(event) {
            break;
        }
    }
    let took = begin.elapsed();
    assert_eq!((count, output.gaps.len()), (64 << 20, 0));
    println!("64 MiB in {took:?}: {:.0} MB/s", 67.1 / took.as_secs_f64());
    let report = host.ended(job).await;
    assert_eq!(report.stdout_bytes, 64 << 20);
}

#[tokio::test]
async fn malformed_offers_are_errors_and_leave_nothing() {
    let host = Host::new().await;
    let mut nul = command(&["a"]);
    nul.argv.push(ByteString(vec![b'a', 0]));
    let mut name = command(&["a"]);
    name.env.insert("A=B".into(), "1".into());
    let large = command(&["a", &"x".repeat(97 << 10)]);
    for (spec, code) in
        [(command(&[]), Code::Invalid), (nul, Code::Invalid), (name, Code::Invalid), (large, Code::TooLarge)]
    {
        let error = host.jobs.offer(host.offer_of(spec)).await.expect_err("is refused");
        assert_eq!(error.code, code, "{error}");
    }
    let error = host.jobs.offer(offer_of(command(&["true"]), "another")).await.expect_err("is refused");
    assert_eq!(error.code, Code::Conflict);
    assert!(host.jobs.list(None, 10).jobs.is_empty());
    assert_eq!(std::fs::read_dir(host.config.dir.join("jobs")).expect("reads").count(), 0);
    // An empty program's name is well-formed, and found nowhere.
    let report = host.run(command(&[""])).await;
    assert_eq!(report.outcome, Some(Outcome::FailedToStart { why: StartFailure::CommandNotFound }));
}

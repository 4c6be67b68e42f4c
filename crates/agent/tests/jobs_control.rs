//! Ending jobs early, limits, full spools, and jobs that never come.

mod common;

use std::time::{Duration, Instant};

use common::{
    Host, Output, PATIENCE, command, eventually, exited, facts, is_alive, kill, processes_with, sh, shim_of,
};
use datacentered_agent_lib::boot::BootReader;
use datacentered_agent_lib::jobs::{OutputEvent, Refuse};
use datacentered_proto::error::Code;
use datacentered_proto::ops::GapReason;
use datacentered_proto::ops::job::{JobReport, WhenFull};
use datacentered_proto::outcome::{Interruption, StartFailure};
use datacentered_proto::{JobState, Outcome};

#[tokio::test]
async fn a_timeout_ends_the_whole_tree() {
    let host = Host::new().await;
    let mut spec = sh("trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 61.5' & sleep 61.5; sleep 61.5");
    spec.timeout_ms = Some(300);
    spec.grace_ms = 200;
    let begin = Instant::now();
    let report = host.run(spec).await;
    let took = begin.elapsed();
    assert_eq!(report.outcome, Some(Outcome::TimedOut));
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    let facts = facts(&report);
    assert!(facts.contains(&"terminating") && facts.contains(&"killed"), "{report:?}");
    assert_eq!(processes_with("61.5"), [0i32; 0]);

    // One that ends on TERM is not waited for longer than that.
    let mut spec = sh("sleep 62.5");
    spec.timeout_ms = Some(100);
    spec.grace_ms = 20_000;
    let begin = Instant::now();
    let report = host.run(spec).await;
    assert_eq!(report.outcome, Some(Outcome::TimedOut));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(!common::facts(&report).contains(&"killed"), "{report:?}");
}

#[tokio::test]
async fn cancel_ends_a_running_job_and_names_who() {
    let host = Host::new().await;
    let job = host.start(sh("echo on; sleep 63.5 & sleep 63.5")).await;
    let report = host.until(job, |report| report.stdout_bytes == 3).await;
    let answer = host.jobs.cancel(job, report.run, "ann").await.expect("cancels");
    assert_eq!(answer.job, job);
    let report = host.ended(job).await;
    assert_eq!(report.outcome, Some(Outcome::Cancelled { by: "ann".into() }));
    assert!(facts(&report).contains(&"cancel_requested"), "{report:?}");
    assert_eq!(processes_with("63.5"), [0i32; 0]);
    assert_eq!(host.output(job).await.text(), "on\n");
    // The first outcome stays.
    let again = host.jobs.cancel(job, report.run, "bob").await.expect("answers");
    assert_eq!(again.outcome, report.outcome);
    let host = host.reopen().await;
    assert_eq!(host.jobs.report(job).expect("is known"), report);
}

#[tokio::test]
async fn a_cancel_that_comes_first_leaves_a_tombstone() {
    let host = Host::new().await;
    let offer = host.offer_of(sh("touch ran"));
    let cancelled = Some(Outcome::Cancelled { by: "ann".into() });
    let report = host.jobs.cancel(offer.job, offer.run, "ann").await.expect("cancels");
    assert_eq!((report.state, report.outcome), (JobState::Ended, cancelled.clone()));
    let host = host.reopen().await;
    let mut offer = offer;
    host.jobs.incarnation().clone_into(&mut offer.incarnation);
    let report = host.jobs.offer(offer.clone()).await.expect("answers");
    assert_eq!(report.outcome, cancelled);
    assert!(!host.job_dir(offer.job).exists(), "nothing was begun");
    host.jobs.release(&[offer.job]).await.expect("releases");
    assert_eq!(host.jobs.report(offer.job), None);
}

#[tokio::test]
async fn a_repeated_offer_is_answered_and_starts_nothing() {
    let host = Host::new().await;
    let mark = host.dir.path().join("ran");
    let offer = host.offer_of(sh(&format!("echo x >> {}; sleep 0.1", mark.display())));
    let (one, two, three) = tokio::join!(
        host.jobs.offer(offer.clone()),
        host.jobs.offer(offer.clone()),
        host.jobs.offer(offer.clone())
    );
    for report in [one, two, three] {
        assert_eq!(report.expect("answers").job, offer.job);
    }
    host.ended(offer.job).await;
    host.jobs.offer(offer.clone()).await.expect("answers");
    assert_eq!(std::fs::read_to_string(mark).expect("reads"), "x\n");
    let spec = host.jobs.spec(offer.job).await.expect("is known");
    assert_eq!(spec, offer);
}

#[tokio::test]
async fn what_the_host_refuses_is_refused_durably() {
    let host = Host::with(|config| {
        config.refuse = Refuse::by(|offer| {
            let forbidden = offer.spec.argv.first().is_some_and(|program| program.as_bytes() == b"reboot");
            forbidden.then(|| "no reboots here".to_owned())
        });
    })
    .await;
    let refused = host.run(command(&["reboot"])).await;
    let why = "no reboots here".to_owned();
    assert_eq!(refused.outcome, Some(Outcome::Refused { why }));
    assert_eq!(host.run(command(&["true"])).await.outcome, exited(0));
    let host = host.reopen().await;
    let again = host.jobs.report(refused.job).expect("is known");
    assert!(again.high_water > refused.high_water, "the journal has another job since");
    assert_eq!(JobReport { high_water: refused.high_water, ..again }, refused);
    assert_eq!(host.jobs.spec(refused.job).await.expect_err("has none").code, Code::NotFound);
}

#[tokio::test]
async fn signals_reach_the_tree() {
    let host = Host::new().await;
    let job = host.start(sh("trap 'echo usr1; exit 3' USR1; echo ready; while :; do sleep 0.05; done")).await;
    let mut reader = host.jobs.output(job, 0).await.expect("opens");
    reader.next().await.expect("is ready");
    for bad in [0, -9, 65] {
        assert_eq!(host.jobs.signal(job, bad).await.expect_err("is none").code, Code::Invalid);
    }
    // It also reaches the sleep, which it ends.
    host.jobs.signal(job, 10).await.expect("sends");
    let report = host.ended(job).await;
    assert_eq!(report.outcome, exited(3));
    assert_eq!(host.jobs.signal(job, 10).await.expect_err("is over").code, Code::Conflict);
}

#[tokio::test]
async fn a_lost_shim_interrupts_its_job_and_leaves_no_process() {
    for off in [false, true] {
        let host = Host::with(|config| {
            if off {
                config.cgroups = datacentered_agent_lib::cgroup::Choice::Off;
            }
        })
        .await;
        let mark = if off { "64.5" } else { "64.25" };
        let script = format!(
            "echo one; setsid sh -c 'setsid sleep {mark} & sleep {mark}' & sleep {mark}; sleep {mark}"
        );
        let job = host.start(sh(&script)).await;
        eventually("all begun", || processes_with(mark).len() >= 4).await;
        kill(shim_of(job), 9);
        let report = host.ended(job).await;
        let why = Interruption::ShimLost;
        assert_eq!(report.outcome, Some(Outcome::Interrupted { why }), "{report:?}");
        assert!(facts(&report).contains(&"shim_lost"));
        assert_eq!(processes_with(mark), [0i32; 0], "cgroups off: {off}");
        let output = host.output(job).await;
        assert_eq!((output.text().as_str(), report.stdout_bytes), ("one\n", 4));
        let host = host.reopen().await;
        assert_eq!(host.jobs.report(job).expect("is known"), report);
        host.jobs.release(&[job]).await.expect("releases");
    }
}

#[tokio::test]
async fn a_shim_lost_while_the_agent_is_away_is_found_out() {
    let host = Host::new().await;
    let job = host.start(sh("sleep 65.5 & sleep 65.5")).await;
    host.running(job).await;
    let shim = shim_of(job);
    host.jobs.shutdown().await;
    assert!(is_alive(shim), "it outlives the agent");
    kill(shim, 9);
    let host = host.reopen().await;
    let report = host.ended(job).await;
    assert_eq!(report.outcome, Some(Outcome::Interrupted { why: Interruption::ShimLost }));
    assert_eq!(processes_with("65.5"), [0i32; 0]);
}

#[tokio::test]
async fn a_reboot_is_told_from_a_lost_shim() {
    let host = Host::new().await;
    let job = host.start(command(&["sleep", "66.5"])).await;
    host.running(job).await;
    let before = host.jobs.boot_id();
    let t = Instant::now();
    host.jobs.shutdown().await;
    println!("A {:?}", t.elapsed());
    kill(shim_of(job), 9);
    println!("B {:?}", t.elapsed());
    eventually("gone", || processes_with("66.5").is_empty()).await;
    let host = host.reopen_with(BootReader::fixed("another")).await;
    let report = host.ended(job).await;
    assert_eq!(report.outcome, Some(Outcome::Interrupted { why: Interruption::Reboot }), "{report:?}");
    assert_eq!(facts(&report).last(), Some(&"rebooted"));
    assert_ne!(host.jobs.boot_id(), before);
}

#[tokio::test]
async fn a_full_spool_makes_the_process_wait_until_it_is_acknowledged() {
    let host = Host::new().await;
    let mut spec = sh("i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done; echo done >&2");
    spec.spool_bytes = 64 << 10;
    let job = host.start(spec).await;
    let mut before = 0;
    // It fills the spool and the pipe and then stands still.
    let begin = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let report = host.jobs.report(job).expect("is known");
        assert_eq!(report.state, JobState::Running);
        if report.stdout_bytes == before && before > 0 {
            break;
        }
        before = report.stdout_bytes;
        assert!(begin.elapsed() < PATIENCE);
    }
    assert!(before <= (128 << 10), "{before}");
    // A slow reader that acknowledges what it has; the agent goes away in between.
    let mut host = host;
    let mut output = Output::default();
    let mut next_restart = 100_000;
    'all: loop {
        let mut reader = host.jobs.output(job, output.end).await.expect("opens");
        loop {
            let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("reads");
            if output.add(event) {
                break 'all;
            }
            host.jobs.ack(job, output.end).await.expect("acks");
            if output.end > next_restart {
                next_restart += 100_000;
                break;
            }
        }
        drop(reader);
        host = host.reopen().await;
    }
    let expected = common::lines(40_000, |i| format!("line {i}\n"));
    let report = host.ended(job).await;
    assert_eq!(output.gaps, [], "{report:?}");
    assert_eq!(output.stderr, b"done\n");
    assert!(output.text() == expected, "{} of {} bytes", output.stdout.len(), expected.len());
    assert_eq!(report.outcome, exited(0));
    let kept: u64 = std::fs::read_dir(host.job_dir(job))
        .expect("reads")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    assert!(kept < 300 << 10, "acknowledged segments are gone: {kept}");
}

#[tokio::test]
async fn a_full_spool_discards_where_that_was_asked_for() {
    let host = Host::new().await;
    let mut spec = sh("head -c 1000000 /dev/zero; printf tail >&2");
    spec.spool_bytes = 100 << 10;
    spec.when_full = WhenFull::Discard;
    let report = host.run(spec).await;
    assert_eq!((report.stdout_bytes, report.stderr_bytes), (1_000_000, 4));
    let output = host.output(report.job).await;
    assert_eq!(output.end, 1_000_004);
    assert!(output.stdout.len() <= 2 << 20 && !output.stdout.is_empty());
    assert!(output.gaps.iter().all(|gap| gap.2 == GapReason::Discarded) && !output.gaps.is_empty());
    let missing: u64 = output.gaps.iter().map(|gap| gap.1 - gap.0).sum();
    assert_eq!(missing + (output.stdout.len() + output.stderr.len()) as u64, 1_000_004);
}

#[tokio::test]
async fn output_beyond_the_cap_is_counted_and_marked_while_it_goes_on() {
    let host = Host::new().await;
    let mut spec = command(&["yes"]);
    spec.output_bytes = 1 << 20;
    let job = host.start(spec).await;
    let run = host.running(job).await.run;
    let mut reader = host.jobs.output(job, 0).await.expect("opens");
    let mut output = Output::default();
    // Readers see the gap grow while the process still writes.
    while output.gaps.len() < 3 {
        let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("reads");
        assert!(!output.add(event), "goes on");
    }
    assert_eq!(output.stdout.len(), 1 << 20);
    let on_disk: u64 = std::fs::read_dir(host.job_dir(job))
        .expect("reads")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    assert!(on_disk < 1200 << 10, "{on_disk}");
    host.jobs.cancel(job, run, "ann").await.expect("cancels");
    loop {
        let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("reads");
        if output.add(event) {
            break;
        }
    }
    let report = host.ended(job).await;
    assert_eq!(report.stdout_bytes, output.end);
    assert!(output.end > 16 << 20, "{}", output.end);
}

#[tokio::test]
async fn several_readers_follow_the_same_job() {
    let host = Host::new().await;
    let job = host.start(sh("for i in 1 2 3 4 5; do echo $i; sleep 0.05; done")).await;
    let (one, two, late) = tokio::join!(host.output(job), host.output(job), host.output_from(job, 4));
    assert_eq!(
        (one.text(), two.text(), late.text()),
        ("1\n2\n3\n4\n5\n".into(), one.text(), "3\n4\n5\n".into())
    );
    let mut reader = host.jobs.output(job, 0).await.expect("opens");
    host.jobs.release(&[job]).await.expect("releases");
    assert_eq!(reader.next().await.expect_err("is gone").code, Code::NotFound);
    assert!(!host.job_dir(job).exists());
    assert_eq!(host.jobs.output(job, 0).await.expect_err("is gone").code, Code::NotFound);
}

#[tokio::test]
async fn release_forgets_only_what_has_ended_and_frees_the_place() {
    let host = Host::with(|config| config.max_jobs = 3).await;
    let running = host.start(sh("sleep 67.5")).await;
    assert_eq!(host.jobs.release(&[running]).await.expect_err("runs").code, Code::Conflict);
    for round in 0..10 {
        let a = host.run(sh(&format!("exit {round}"))).await;
        let b = host.run(sh("echo x")).await;
        let full = host.jobs.offer(host.offer_of(command(&["true"]))).await.expect_err("is full");
        assert_eq!(full.code, Code::Limited);
        assert_eq!(a.outcome, exited(round));
        host.jobs.release(&[a.job, b.job, a.job]).await.expect("releases");
    }
    let host = host.reopen().await;
    assert_eq!(host.jobs.list(None, 10).jobs.len(), 1);
    let run = host.jobs.report(running).expect("is known").run;
    host.jobs.cancel(running, run, "x").await.expect("cancels");
    host.ended(running).await;
}

#[tokio::test]
async fn lists_are_paged_and_changes_told_once() {
    let host = Host::new().await;
    let mut changes = host.jobs.changes();
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(host.run(command(&["true"])).await.job);
    }
    jobs.sort_unstable();
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = host.jobs.list(after, 2);
        listed.extend(page.jobs.iter().map(|report| report.job));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, jobs);
    let mut changed = std::collections::BTreeSet::new();
    while let Ok(job) = tokio::time::timeout(Duration::from_millis(100), changes.next()).await {
        assert!(changed.insert(job), "told once");
    }
    assert_eq!(changed.into_iter().collect::<Vec<_>>(), jobs);
}

#[tokio::test]
async fn limits_contain_a_fork_bomb_and_a_memory_hog() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new().await;
    let mut bomb = sh("b() { b 68.5 | b 68.5 & }; b; sleep 68.5");
    bomb.limits.processes = Some(20);
    bomb.timeout_ms = Some(1000);
    bomb.grace_ms = 100;
    let job = host.start(bomb).await;
    host.running(job).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let count = std::fs::read_dir("/proc").expect("reads").count();
    let report = host.ended(job).await;
    assert_eq!(report.outcome, Some(Outcome::TimedOut), "{report:?}");
    assert!(count < 1000, "{count}");
    assert_eq!(processes_with("68.5"), [0i32; 0]);

    let mut hog = sh("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}");
    hog.limits.memory_bytes = Some(32 << 20);
    let report = host.run(hog).await;
    assert!(facts(&report).contains(&"memory_limit"), "{report:?}");
    assert_ne!(report.outcome, exited(0));
}

#[tokio::test]
async fn without_control_groups_limits_are_weaker_or_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::with(|config| config.cgroups = datacentered_agent_lib::cgroup::Choice::Off).await;
    let mut spec = command(&["true"]);
    spec.limits.processes = Some(10);
    let report = host.run(spec).await;
    let why = StartFailure::LimitsNotApplied;
    assert_eq!(report.outcome, Some(Outcome::FailedToStart { why }), "{report:?}");
    let mut spec = sh("ulimit -v");
    spec.limits.memory_bytes = Some(512 << 20);
    let report = host.run(spec).await;
    assert!(facts(&report).contains(&"limits_by_rlimit"), "{report:?}");
    assert_eq!(host.output(report.job).await.text(), "524288\n");
    // The tree is still ended as a whole.
    let job = host.start(sh("setsid sleep 69.5 & sleep 69.5")).await;
    let run = host.running(job).await.run;
    eventually("begun", || processes_with("69.5").len() >= 3).await;
    host.jobs.cancel(job, run, "x").await.expect("cancels");
    host.ended(job).await;
    assert_eq!(processes_with("69.5"), [0i32; 0]);
}

#[tokio::test]
async fn a_second_agent_is_kept_out() {
    let host = Host::new().await;
    let clock = datacentered_link::clock::Clock::system();
    let second =
        datacentered_agent_lib::jobs::Jobs::open(host.config.clone(), clock, BootReader::system()).await;
    let error = second.expect_err("is kept out");
    assert!(error.to_string().contains("another agent"), "{error}");
}

#[tokio::test]
async fn reading_ends_when_the_agent_stops() {
    let host = Host::new().await;
    let job = host.start(sh("echo a; sleep 70.5")).await;
    let mut reader = host.jobs.output(job, 0).await.expect("opens");
    assert!(matches!(reader.next().await, Ok(OutputEvent::Bytes { .. })));
    let run = host.jobs.report(job).expect("is known").run;
    let (stopped, ()) = tokio::join!(reader.next(), host.jobs.shutdown());
    assert_eq!(stopped.expect_err("stops").code, Code::Unavailable);
    let host = host.reopen().await;
    host.jobs.cancel(job, run, "x").await.expect("cancels");
    host.ended(job).await;
}

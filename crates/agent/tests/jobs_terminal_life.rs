//! Terminals: how they end, what they survive, what they cost.

#![allow(clippy::print_stdout, reason = "the figures are for who reads the log")]

mod common;

use std::time::{Duration, Instant};

use common::holder::{Holder, line_of};
use common::terminal::{Screen, terminal, terminal_sh};
use common::{Host, eventually, exited, facts, is_alive, offer_of, processes_with, sh, shim_of};
use datacentered_proto::error::Code;
use datacentered_proto::{JobState, Outcome};

#[tokio::test]
async fn a_killed_agent_leaves_the_program_at_its_terminal() {
    let dir = tempfile::tempdir().expect("makes");
    let data = dir.path().join("data");
    let mut holder = Holder::start(&data);
    assert!(holder.hear().starts_with("open "));
    let script = "echo on; n=0; while [ $n -lt 12 ]; do n=$((n+1)); echo line $n; sleep 0.1; done; exec sh";
    let offer = offer_of(terminal_sh(script), "-");
    holder.say(&line_of(&offer));
    assert!(holder.hear().contains("\"accepted\""));
    std::thread::sleep(Duration::from_millis(300));
    let shim = shim_of(offer.job);
    holder.kill();
    assert!(is_alive(shim));
    std::thread::sleep(Duration::from_millis(300));

    let jobs = common::open(&common::config(&data)).await;
    assert_eq!(jobs.report(offer.job).expect("is known").state, JobState::Running);
    let mut screen = Screen::of(&jobs, offer.job).await;
    screen.shows("line 12").await;
    screen.types("echo still$((1+1))\n").await;
    screen.shows("still2").await;
    screen.resize(111, 22).await;
    screen.types("stty size\n").await;
    screen.shows("22 111").await;
    screen.types("exit 8\n").await;
    let (report, output) = screen.ends().await;
    assert_eq!((report.outcome, output.gaps.len()), (exited(8), 0));
    let lines = output.text();
    assert!((1..=12).all(|n| lines.contains(&format!("line {n}\r\n"))), "{lines}");
    shim_is_gone(shim).await;
}

async fn shim_is_gone(shim: i32) {
    eventually("the shim leaves", || !is_alive(shim)).await;
}

#[tokio::test]
async fn the_agent_comes_and_goes_while_somebody_types() {
    let mut host = Host::new().await;
    let job = host.start(terminal(&["/bin/sh"])).await;
    for round in 0..5 {
        let mut screen = Screen::of(&host.jobs, job).await;
        screen.types(format!("echo round$(({round}+100))\n")).await;
        screen.shows(&format!("round{}", round + 100)).await;
        drop(screen);
        host = host.reopen().await;
    }
    let screen = Screen::of(&host.jobs, job).await;
    screen.types("exit 6\n").await;
    assert_eq!(screen.ends().await.0.outcome, exited(6));
}

#[tokio::test]
async fn cancel_hangs_up_a_shell_that_ignores_the_polite_word() {
    let host = Host::new().await;
    let mut screen = Screen::open(&host, terminal(&["/bin/bash", "--norc", "-i"])).await;
    screen.types("sleep 83.5 &\n").await;
    screen.types("echo up$((1+1))\n").await;
    screen.shows("up2").await;
    let run = host.jobs.report(screen.job).expect("is known").run;
    let begin = Instant::now();
    host.jobs.cancel(screen.job, run, "ann").await.expect("cancels");
    let (report, _) = screen.ends().await;
    assert_eq!(report.outcome, Some(Outcome::Cancelled { by: "ann".into() }));
    assert!(begin.elapsed() < Duration::from_secs(5), "{report:?}");
    assert!(!facts(&report).contains(&"killed"), "{report:?}");
    assert_eq!(processes_with("83.5"), [0i32; 0]);

    // What ignores HUP gets TERM, what ignores both is killed.
    let mut spec = terminal_sh("trap 'echo told; exit 1' TERM; trap '' HUP; while :; do sleep 0.02; done");
    spec.timeout_ms = Some(200);
    spec.grace_ms = 1000;
    let (report, output) = Screen::open(&host, spec).await.ends().await;
    assert_eq!(report.outcome, Some(Outcome::TimedOut));
    assert!(output.text().ends_with("told\r\n"), "{output:?}");
    assert!(!facts(&report).contains(&"killed"), "{report:?}");
    let mut spec = terminal_sh("trap '' HUP TERM; sleep 84.5; sleep 84.5");
    spec.timeout_ms = Some(200);
    spec.grace_ms = 400;
    let (report, _) = Screen::open(&host, spec).await.ends().await;
    assert!(facts(&report).contains(&"killed"), "{report:?}");
    assert_eq!(processes_with("84.5"), [0i32; 0]);
}

#[tokio::test]
async fn the_end_of_the_input_hangs_up() {
    let host = Host::new().await;
    let mut screen = Screen::open(&host, terminal_sh("echo on; sleep 85.5")).await;
    screen.shows("on").await;
    host.jobs.input(screen.job).await.expect("has one").eof().await.expect("ends");
    let (report, _) = screen.ends().await;
    assert_eq!(report.outcome, Some(Outcome::Signaled { signal: 1 }), "{report:?}");
    assert!(facts(&report).contains(&"hung_up"), "{report:?}");

    // Who ignores it goes on without a terminal, and without a window.
    let mut screen = Screen::open(&host, terminal_sh("trap '' HUP; echo on; sleep 0.7; exit 2")).await;
    screen.shows("on").await;
    host.jobs.input(screen.job).await.expect("has one").eof().await.expect("ends");
    eventually("hung up", || {
        std::fs::read_dir(format!("/proc/{}/fd", shim_of(screen.job))).is_ok_and(|fds| {
            !fds.flatten().any(|fd| {
                std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("/ptmx"))
            })
        })
    })
    .await;
    let refused = host.jobs.resize(screen.job, common::terminal::WINDOW).await.expect_err("has none");
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(screen.ends().await.0.outcome, exited(2));
}

#[tokio::test]
async fn children_left_behind_are_named_and_do_not_hold_the_end_up() {
    let host = Host::with(|config| config.drain_after_exit = Duration::from_millis(300)).await;
    let begin = Instant::now();
    let report = host.run(terminal_sh("trap '' HUP; sleep 86.5 & echo x; exit 3")).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!((report.outcome.clone(), report.stdout_bytes), (exited(3), 3));
    assert!(facts(&report).contains(&"children_left"), "{report:?}");
    let left = processes_with("86.5");
    assert_eq!(left.len(), 1, "is left alone");
    common::kill(left[0], 9);
}

#[tokio::test]
async fn a_terminal_that_nobody_has_open_for_a_while_does_not_end() {
    let host = Host::new().await;
    let script = "echo one; exec < /dev/null > /dev/null 2>&1; sleep 0.3; echo two > /dev/tty; exit 5";
    let (report, output) = Screen::open(&host, terminal_sh(script)).await.ends().await;
    assert_eq!((report.outcome, output.text().as_str()), (exited(5), "one\r\ntwo\r\n"));
}

#[tokio::test]
async fn all_that_was_printed_before_the_end_is_recorded() {
    let host = Host::new().await;
    for _ in 0..5 {
        let spec = terminal_sh("stty -opost; head -c 200000 /dev/zero; printf tail; exit 1");
        let (report, output) = Screen::open(&host, spec).await.ends().await;
        assert_eq!((report.outcome, output.stdout.len()), (exited(1), 200_004));
        assert!(output.stdout.ends_with(b"tail"));
    }
}

#[tokio::test]
async fn what_was_typed_does_not_stay_on_the_disk() {
    let host = Host::new().await;
    let mut screen =
        Screen::open(&host, terminal_sh("stty -echo; echo ask; read word; echo ok; read y")).await;
    screen.shows("ask").await;
    screen.types("hunter2secret\n").await;
    screen.shows("ok").await;
    let path = host.job_dir(screen.job).join("stdin");
    eventually("wiped", || std::fs::read(&path).is_ok_and(|bytes| bytes == [0; 14])).await;
    screen.types("\n").await;
    assert_eq!(screen.ends().await.0.outcome, exited(0));
}

#[tokio::test]
async fn a_lost_shim_leaves_its_record() {
    let host = Host::new().await;
    let mut screen = Screen::open(&host, terminal_sh("echo one; sleep 0.1; echo two; sleep 88.5")).await;
    screen.shows("two").await;
    screen.resize(90, 30).await;
    common::kill(shim_of(screen.job), 9);
    let (report, output) = screen.ends().await;
    assert!(matches!(report.outcome, Some(Outcome::Interrupted { .. })), "{report:?}");
    assert_eq!((output.text().as_str(), output.gaps.len()), ("one\r\ntwo\r\n", 0));
    assert!(output.marks.len() >= 3, "{output:?}");
    assert_eq!(processes_with("88.5"), [0i32; 0]);
}

#[tokio::test]
async fn a_fork_bomb_is_contained_at_a_terminal_as_elsewhere() {
    const MOST: usize = 25;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new().await;
    for at_terminal in [false, true] {
        // Each process carries the variable, so that they can be counted and none is missed.
        let marker = format!("bomb-{}", common::run_id());
        let bomb = "echo on; b() { b | b & }; b; sleep 89.5; sleep 89.5";
        let mut spec = if at_terminal { terminal(&["/bin/bash", "--norc", "-i"]) } else { sh(bomb) };
        spec.env.insert("BOMB".into(), marker.as_str().into());
        spec.limits.processes = Some(MOST as u64);
        spec.grace_ms = 500;
        let mut screen = Screen::open(&host, spec).await;
        if at_terminal {
            screen.types(format!("{bomb}\n")).await;
        }
        screen.shows("on").await;
        let mut peak = 0;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            peak = peak.max(processes_with(&marker).len());
        }
        // The list is not made in one moment: some were counted that had made room for others.
        assert!(peak > 2 && peak <= MOST * 2, "{peak}");
        if at_terminal {
            screen.resize(70, 20).await;
        }
        // Other jobs do not notice.
        assert_eq!(host.run(terminal_sh("exit 6")).await.outcome, exited(6));
        let run = host.jobs.report(screen.job).expect("is known").run;
        let begin = Instant::now();
        host.jobs.cancel(screen.job, run, "ann").await.expect("cancels");
        let report = host.ended(screen.job).await;
        println!("a peak of {peak} processes, gone after {:?}", begin.elapsed());
        assert_eq!(report.outcome, Some(Outcome::Cancelled { by: "ann".into() }), "{report:?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{report:?}");
        assert_eq!(processes_with(&marker), [0i32; 0]);
    }
}

#[tokio::test]
async fn the_shim_of_a_terminal_is_small() {
    let host = Host::new().await;
    let mut screen =
        Screen::open(&host, terminal_sh("stty -opost; head -c 3000000 /dev/zero; exec sh")).await;
    screen.types("echo ready$((1+1))\n").await;
    screen.shows("ready2").await;
    for cols in 1..=200 {
        screen.resize(cols, 50).await;
    }
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", shim_of(screen.job)));
    let private = rollup
        .expect("reads")
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .expect("is told");
    println!("shim of a terminal: {private} kB private");
    assert!(private <= 1024, "{private} kB");
    screen.types("exit\n").await;
    screen.ends().await;
}

#[tokio::test]
async fn fifty_at_once() {
    let host = Host::new().await;
    let begin = Instant::now();
    let one = async |n: u32| {
        let mut screen = Screen::open(&host, terminal(&["/bin/sh"])).await;
        screen.types(format!("echo n$(({n}+1000))\n")).await;
        screen.shows(&format!("n{}", n + 1000)).await;
        screen.types(format!("exit {n}\n")).await;
        let (report, _) = screen.ends().await;
        assert_eq!(report.outcome, exited(i32::try_from(n).expect("is small")));
    };
    futures_util::future::join_all((0..50).map(one)).await;
    let took = begin.elapsed();
    println!("50 terminals in {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

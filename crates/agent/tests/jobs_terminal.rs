//! Terminals: what programs see of theirs, what is typed, what is recorded.

#![allow(clippy::print_stdout, reason = "the seed is for who reads the log")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::terminal::{Screen, WINDOW, terminal, terminal_sh};
use common::{Host, exited, processes_with, sh};
use datacentered_agent_lib::process::Identity;
use datacentered_proto::Outcome;
use datacentered_proto::error::Code;
use datacentered_proto::ops::GapReason;
use datacentered_proto::ops::job::{WhenFull, Window};
use datacentered_proto::ops::terminal::Mark;

#[tokio::test]
async fn a_program_finds_a_terminal_of_its_own() {
    let host = Host::new().await;
    let script = "tty; stty size; echo $TERM; stty -a | grep -o ' iutf8'; ps -o tpgid= -o pgid= -p $$; \
                  for fd in 0 1 2; do test -t $fd || exit 9; done; exit 3";
    let screen = Screen::open(&host, terminal_sh(script)).await;
    let (report, output) = screen.ends().await;
    assert_eq!(report.outcome, exited(3), "{output:?}");
    let text = output.text();
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{text:?}");
    assert_eq!(lines[1..4], ["24 80", "xterm-256color", " iutf8"]);
    let groups: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!(groups[0], groups[1], "it is in the foreground of its controlling terminal: {text:?}");
}

#[tokio::test]
async fn exit_codes_and_signals_are_exact() {
    let host = Host::new().await;
    for code in [0, 1, 127, 255] {
        let report = host.run(terminal_sh(&format!("echo x; exit {code}"))).await;
        assert_eq!((report.outcome, report.stdout_bytes), (exited(code), 3));
    }
    for signal in [1, 9, 15] {
        let report = host.run(terminal_sh(&format!("kill -{signal} $$; sleep 5"))).await;
        assert_eq!(report.outcome, Some(Outcome::Signaled { signal }), "{report:?}");
    }
    let report = host.run(terminal(&["/nonexistent/program"])).await;
    assert!(matches!(report.outcome, Some(Outcome::FailedToStart { .. })), "{report:?}");
    assert_eq!(report.mark_bytes, 0, "nothing was executed, so there is no record");
}

#[tokio::test]
async fn the_window_follows_each_resize() {
    let host = Host::new().await;
    let mut screen = Screen::open(&host, terminal(&["/bin/sh"])).await;
    screen.types("stty size\n").await;
    screen.shows("24 80").await;
    for (cols, rows) in [(132, 43), (1, 1), (Window::MAX, Window::MAX), (100, 30)] {
        screen.resize(cols, rows).await;
        screen.types("stty size\n").await;
        screen.shows(&format!("{rows} {cols}\r\n")).await;
    }
    screen.types("exit 5\n").await;
    let (report, output) = screen.ends().await;
    assert_eq!(report.outcome, exited(5));
    let mut windows: Vec<Window> = output.marks.iter().map(|(mark, _)| mark.window).collect();
    windows.dedup();
    let window = |cols, rows| Window { cols, rows };
    let all = [WINDOW, window(132, 43), window(1, 1), window(Window::MAX, Window::MAX), window(100, 30)];
    assert_eq!(windows, all);

    // The program is told, in the foreground or not asking for it.
    let script = "trap 'stty size; exit 6' WINCH; echo on; while :; do sleep 0.02; done";
    let mut screen = Screen::open(&host, terminal_sh(script)).await;
    screen.shows("on").await;
    screen.resize(90, 20).await;
    screen.shows("20 90").await;
    assert_eq!(screen.ends().await.0.outcome, exited(6));
}

#[tokio::test]
async fn windows_and_names_that_make_no_sense_are_refused() {
    let host = Host::new().await;
    let screen = Screen::open(&host, terminal(&["cat"])).await;
    let bad = [(0, 24), (80, 0), (0, 0), (Window::MAX + 1, 24), (80, u16::MAX)];
    for (cols, rows) in bad {
        let window = Window { cols, rows };
        let refused = host.jobs.resize(screen.job, window).await.expect_err("is refused");
        assert_eq!(refused.code, Code::Invalid, "{window:?}");
        let mut spec = terminal(&["cat"]);
        spec.terminal.as_mut().expect("has one").window = window;
        let refused = host.jobs.offer(host.offer_of(spec)).await.expect_err("is refused");
        assert_eq!(refused.code, Code::Invalid, "{window:?}");
    }
    for term in ["", "a b", "x\0", "x=\u{e9}", &"x".repeat(129)] {
        let mut spec = terminal(&["cat"]);
        spec.terminal.as_mut().expect("has one").term = term.into();
        let refused = host.jobs.offer(host.offer_of(spec)).await.expect_err("is refused");
        assert_eq!(refused.code, Code::Invalid, "{term:?}");
    }
    screen.types([4]).await;
    let job = screen.job;
    assert_eq!(screen.ends().await.0.outcome, exited(0));
    assert_eq!(host.jobs.resize(job, WINDOW).await.expect_err("has ended").code, Code::Conflict);
    let pipes = host.start(sh("sleep 80.5")).await;
    assert_eq!(host.jobs.resize(pipes, WINDOW).await.expect_err("has none").code, Code::Invalid);
    let unknown = host.offer_of(sh("true")).job;
    assert_eq!(host.jobs.resize(unknown, WINDOW).await.expect_err("is unknown").code, Code::NotFound);
    let run = host.running(pipes).await.run;
    host.jobs.cancel(pipes, run, "x").await.expect("cancels");
    host.ended(pipes).await;
}

#[tokio::test]
async fn job_control_works() {
    let host = Host::new().await;
    let mut screen = Screen::open(&host, terminal(&["/bin/sh", "-i"])).await;
    let sleeps = |text: &'static str| move || !processes_with(text).is_empty();
    screen.types("sleep 81.5\n").await;
    common::eventually("sleeps", sleeps("81.5")).await;
    screen.types([3]).await;
    screen.types("echo back$((1+1))\n").await;
    screen.shows("back2").await;
    assert_eq!(processes_with("81.5"), [0i32; 0]);
    screen.types("sleep 81.6\n").await;
    common::eventually("sleeps", sleeps("81.6")).await;
    screen.types([0x1a]).await;
    screen.shows("Stopped").await;
    screen.types("kill -9 %1; wait; echo gone$((1+1))\n").await;
    screen.shows("gone2").await;
    screen.types("(exit 7)\n").await;
    screen.types([4]).await;
    assert_eq!(screen.ends().await.0.outcome, exited(7));
}

#[tokio::test]
async fn text_passes_as_it_was_typed() {
    let host = Host::new().await;
    let mut screen = Screen::open(&host, terminal(&["cat"])).await;
    let text = "grüße 日本語 🎉 Ω";
    screen.types(format!("{text}\n")).await;
    // Once as the terminal's echo, once from the program.
    screen.shows(text).await;
    screen.shows(text).await;
    // Erasing takes whole characters.
    screen.types("a日\u{7f}b\n").await;
    screen.shows("\r\nab\r\n").await;
    screen.types([4]).await;
    assert_eq!(screen.ends().await.0.outcome, exited(0));
}

#[tokio::test]
async fn any_bytes_can_be_typed() {
    let seed = datacentered_link::clock::Clock::system().random();
    println!("seed {seed}");
    let mut state = seed;
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend((0..60_000).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()[0]
    }));
    let host = Host::new().await;
    // Raw: every byte comes back as it is.
    let length = bytes.len();
    let script = format!("stty raw -echo; echo ready; head -c {length}; exit 3");
    let mut screen = Screen::open(&host, terminal_sh(&script)).await;
    screen.shows("ready\n").await;
    for piece in bytes.chunks(1000) {
        screen.types(piece).await;
    }
    let (report, output) = screen.ends().await;
    assert_eq!(report.outcome, exited(3), "{report:?}");
    assert_eq!(report.stdin_bytes, length as u64);
    assert!(output.stdout.ends_with(&bytes), "{} bytes", output.stdout.len());

    // Cooked: it means interrupts, ends and erasures to the terminal; the shim lives on.
    let script = "trap '' INT QUIT TSTP; echo ready; while :; do cat > /dev/null; sleep 0.01; done";
    let mut screen = Screen::open(&host, terminal_sh(script)).await;
    screen.shows("ready").await;
    for piece in bytes.chunks(1000) {
        screen.types(piece).await;
    }
    screen.resize(70, 20).await;
    let run = host.jobs.report(screen.job).expect("is known").run;
    host.jobs.cancel(screen.job, run, "ann").await.expect("cancels");
    let (report, _) = screen.ends().await;
    assert_eq!(report.outcome, Some(Outcome::Cancelled { by: "ann".into() }), "{report:?}");
}

#[tokio::test]
async fn a_program_that_never_reads_holds_nothing_up() {
    let host = Host::with(|config| config.max_stdin = 64 << 10).await;
    let script = "stty raw -echo; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.02; done";
    let mut screen = Screen::open(&host, terminal_sh(script)).await;
    screen.shows("tick 1\n").await;
    let mut input = host.jobs.input(screen.job).await.expect("has one");
    let piece = Bytes::from(vec![b'x'; 8 << 10]);
    let mut typed = 0;
    loop {
        let write = input.write(typed, piece.clone());
        match tokio::time::timeout(Duration::from_millis(400), write).await {
            Ok(written) => written.expect("takes it"),
            Err(_) => break,
        }
        typed += piece.len() as u64;
        assert!(typed < 1 << 20, "what nobody reads is not taken without end");
    }
    assert!(typed >= 64 << 10, "{typed}");
    // Everything else goes on.
    let ticks = screen.output.text().lines().count();
    screen.shows(&format!("tick {}\n", ticks + 20)).await;
    screen.resize(99, 33).await;
    let run = host.jobs.report(screen.job).expect("is known").run;
    let begin = std::time::Instant::now();
    host.jobs.cancel(screen.job, run, "ann").await.expect("cancels");
    let (report, _) = screen.ends().await;
    assert_eq!(report.outcome, Some(Outcome::Cancelled { by: "ann".into() }), "{report:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn no_command_means_the_users_login_shell() {
    let host = Host::new().await;
    let own = Identity::resolve(None).expect("resolves");
    let shell = String::from_utf8_lossy(own.shell.as_bytes()).into_owned();
    let name = shell.rsplit('/').next().expect("has a name");
    let mut screen = Screen::open(&host, terminal(&[])).await;
    screen.types("echo \"<$0|$SHELL|$HOME>\"\n").await;
    let home = String::from_utf8_lossy(own.home.as_bytes()).into_owned();
    screen.shows(&format!("<-{name}|{shell}|{home}>")).await;
    screen.types("exit 4\n").await;
    let (report, _) = screen.ends().await;
    assert_eq!(report.outcome, exited(4));
    let started = &report.evidence[1];
    assert!(started.detail.as_ref().is_some_and(|detail| detail.starts_with(&shell)), "{report:?}");
}

#[tokio::test]
async fn another_users_terminal_is_theirs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new().await;
    let mut spec = terminal_sh("test -O $(tty) && echo mine > $(tty); id -un; exit 2");
    spec.user = Some("daemon".into());
    let (report, output) = Screen::open(&host, spec).await.ends().await;
    assert_eq!((report.outcome, output.text().as_str()), (exited(2), "mine\r\ndaemon\r\n"));
}

#[tokio::test]
async fn marks_say_when() {
    let host = Host::new().await;
    let screen = Screen::open(&host, terminal_sh("echo a; sleep 0.2; echo b; sleep 0.3; exit 0")).await;
    let (_, output) = screen.ends().await;
    assert_eq!(output.text(), "a\r\nb\r\n");
    assert_eq!(output.marks[0], (Mark { at_ms: 0, window: WINDOW }, 0), "the record begins with one");
    let times: Vec<u64> = output.marks.iter().map(|(mark, _)| mark.at_ms).collect();
    assert!(times.is_sorted(), "{times:?}");
    let before = |byte| output.marks.iter().rfind(|(_, at)| *at <= byte).expect("has one").0.at_ms;
    let between = before(3) - before(0);
    assert!((180..5000).contains(&between), "{between} ms: {:?}", output.marks);

    // Much output at once has a mark now and then, not one for each piece.
    let screen = Screen::open(&host, terminal_sh("yes | head -c 2000000")).await;
    let (_, output) = screen.ends().await;
    let last = output.marks.last().expect("has one").0.at_ms;
    assert!(output.marks.len() as u64 <= 2 + last / Mark::EVERY_MS, "{} in {last} ms", output.marks.len());
}

#[tokio::test]
async fn limits_of_the_record_hold_for_marks_too() {
    let host = Host::new().await;
    // The cap falls into the middle of a mark: marks are kept whole or not at all, which `Output` checks.
    let mut spec = terminal_sh("printf 0123456789; sleep 0.1; printf more; sleep 0.1; echo end; exit 1");
    spec.output_bytes = 12 + 10 + 5;
    let (report, output) = Screen::open(&host, spec).await.ends().await;
    assert_eq!(report.outcome, exited(1));
    assert!(output.stdout.starts_with(b"0123456789"), "{output:?}");
    assert!(output.gaps.iter().all(|gap| gap.2 == GapReason::Discarded) && !output.gaps.is_empty());
    assert_eq!(report.stdout_bytes, 10 + 4 + 5);
    assert!(report.mark_bytes >= 36 && report.mark_bytes % 12 == 0, "{report:?}");

    // A full spool that waits takes no marks for windows either.
    let mut spec = terminal_sh("stty raw; head -c 300000 /dev/zero; exit 0");
    (spec.spool_bytes, spec.when_full) = (64 << 10, WhenFull::Wait);
    let job = host.start(spec).await;
    let full = host.until(job, |report| report.stdout_bytes >= 64 << 10).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    for cols in 1..=100 {
        host.jobs.resize(job, Window { cols, rows: 50 }).await.expect("resizes");
    }
    let after = host.jobs.report(job).expect("is known");
    assert!(after.mark_bytes <= full.mark_bytes + 24, "{full:?} {after:?}");
    let mut reader = host.jobs.output(job, 0).await.expect("opens");
    let mut output = common::Output::default();
    while !output.add(reader.next().await.expect("reads")) {
        host.jobs.ack(job, output.end).await.expect("acks");
    }
    assert_eq!((output.stdout.len(), output.gaps.len()), (300_000, 0));
    assert_eq!(output.marks.last().map(|mark| mark.0.window), Some(Window { cols: 100, rows: 50 }));
}

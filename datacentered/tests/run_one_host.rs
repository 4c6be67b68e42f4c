//! `run` on one literally named host: raw bytes, and exit codes as ssh has them.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use common::process_signal;
use common::{World, finish};
use rustix::process::Signal;

#[test]
fn output_is_raw_and_the_exit_code_is_the_commands() {
    let world = World::with_hosts(["web1"]);
    let run = |args: &[&str]| world.run([&["run", "--on", "web1"], args].concat());

    let output = run(&["--", "printf", "a\\nb"]).ok();
    assert_eq!(output.stdout, "a\nb");

    // Nothing of ours on standard error: the command ended, whatever its code.
    let output = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));

    let output = run(&["--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.code, 137);
    assert!(output.stderr.contains("signal 9 (KILL)"), "{output:?}");

    let output = run(&["--timeout", "300ms", "--", "sleep", "30"]);
    assert_eq!(output.code, 124);
    assert!(output.stderr.contains("timed out"), "{output:?}");

    for nowhere in [&["--", "no-such-command"][..], &["--cwd", "/no/such/directory", "--", "true"]] {
        let output = run(nowhere);
        assert_eq!(output.code, 255, "{output:?}");
        assert!(output.stderr.starts_with("error: web1: failed to start: "), "{output:?}");
    }

    let output = world.run(["run", "--on", "nohost", "--", "true"]);
    assert_eq!(output.code, 255, "{output:?}");
}

#[test]
fn every_byte_arrives_as_it_was_written() {
    let world = World::with_hosts(["web1"]);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let output = world.run_with_input(["run", "--on", "web1", "-i", "--", "cat"], &bytes);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert!(output.stdout_bytes == bytes, "{} bytes came back of {}", output.stdout_bytes.len(), bytes.len());
}

#[test]
fn standard_input_is_empty_unless_it_is_asked_for() {
    let world = World::with_hosts(["web1"]);
    let output = world.run_with_input(["run", "--on", "web1", "--", "cat"], b"not for the host").ok();
    assert_eq!(output.stdout, "");
}

#[test]
fn the_environment_is_clean_and_arguments_are_exact() {
    let world = World::with_hosts(["web1"]);
    let args = ["run", "--on", "web1", "--env", "A=b c", "--cwd", "/", "--"];
    let output = world
        .run(args.iter().chain(&["sh", "-c", "echo \"$A|$PWD|$DATACENTERED_HUB|$1\"", "sh", "x  y'\""]))
        .ok();
    assert_eq!(output.stdout, "b c|/||x  y'\"\n");

    let script = world.path().join("script.sh");
    std::fs::write(&script, "#!/bin/sh\necho \"$0 has $1\" | sed 's/.*has/has/'\n").expect("a script");
    let script = script.to_str().expect("a path");
    let output = world.run(["run", "--on", "web1", "--script", script, "--", "one argument"]).ok();
    assert_eq!(output.stdout, "has one argument\n");
}

#[test]
fn an_offline_host_is_a_failure_and_queued_work_waits_for_it() {
    let mut world = World::with_hosts(["web1"]);
    world.stop_agent("web1");

    let output = world.run(["run", "--on", "web1", "--", "true"]);
    assert_eq!(output.code, 255);
    assert!(output.stderr.starts_with("error: web1: offline since "), "{output:?}");

    let queued =
        world.run(["run", "--on", "web1", "--offline", "queue", "--detach", "--", "echo", "late"]).ok();
    let run = queued.stdout.trim().to_owned();
    world.start_agent("web1");
    let output = world.run(["run", "attach", &run]).ok();
    assert_eq!(output.stdout, "late\n");
}

#[test]
fn output_goes_on_where_it_stopped_when_the_hub_is_killed() {
    let mut world = World::with_hosts(["web1"]);
    let script = "i=0; while [ $i -lt 60 ]; do seq $((i*100)) $((i*100+99)); i=$((i+1)); sleep 0.03; done";
    let mut child = world.spawn(["run", "--on", "web1", "--", "sh", "-c", script]);
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("a line");
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(300));
        world.kill_hub();
        world.start_hub();
    }
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest");
    let output = finish(child);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let printed = first + &rest;
    assert!(
        printed.lines().eq((0..6000).map(|number| number.to_string())),
        "the output is not exactly what was written"
    );
}

#[test]
fn the_first_ctrl_c_cancels_and_waits_for_the_outcome() {
    let world = World::with_hosts(["web1"]);
    let mut child = world.spawn(["run", "--on", "web1", "--", "sh", "-c", "echo up; exec sleep 60"]);
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    process_signal(&child, Signal::INT);
    let output = finish(child);
    assert_eq!(output.code, 255, "{output:?}");
    assert!(output.stderr.contains("cancelling run"), "{output:?}");
    assert!(output.stderr.contains("error: web1: cancelled by "), "{output:?}");
}

#[test]
fn a_reader_that_has_gone_ends_the_command() {
    let world = World::with_hosts(["web1"]);
    let mut child = world.spawn(["run", "--on", "web1", "--", "yes"]);
    let mut line = [0; 2];
    child.stdout.take().expect("a pipe").read_exact(&mut line).expect("a line");
    let output = finish(child);
    assert_eq!((output.code, output.stderr.as_str()), (141, ""));
    common::wait_until("the run has ended", || {
        world.run(["run", "list", "--active", "-o", "json"]).ok().stdout == "[]\n"
    });
}

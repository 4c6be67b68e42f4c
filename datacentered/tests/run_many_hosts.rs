//! `run` on a selector: prefixed lines, explanations, and one JSON document.

mod common;

use common::World;
use serde_json::{Value, json};

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn lines_stand_behind_their_hosts_name_on_the_stream_they_came_from() {
    let world = World::with_hosts(["web1", "web2"]);
    let output = world.run(["run", "--on", "web*", "--", "sh", "-c", "printf 'a\\nb'; echo e >&2; exit 3"]);
    assert_eq!(sorted(&output.stdout), ["web1 | a", "web1 | b", "web2 | a", "web2 | b"]);
    let said = sorted(&output.stderr);
    assert_eq!(said[1..], ["web1 | e", "web1: exited with code 3", "web2 | e", "web2: exited with code 3"]);
    assert!(said[0].starts_with("2 of 2 failed"), "{said:?}");
    assert_eq!(output.code, 1);
}

#[test]
fn what_failed_is_explained_and_the_exit_code_is_one() {
    let mut world = World::with_hosts(["web1", "web2"]);
    world.stop_agent("web2");
    let output = world.run(["run", "--on", "web1,web2", "--", "echo", "hi"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "web1 | hi\n"));
    assert!(output.stderr.starts_with("web2: offline since "), "{output:?}");
    assert!(output.stderr.contains("1 of 2 failed"), "{output:?}");

    let output = world.run(["run", "--on", "web1,web2", "--offline", "skip", "--", "echo", "hi"]).ok();
    assert_eq!(output.stdout, "web1 | hi\n");
}

#[test]
fn selectors_that_match_nothing_are_a_usage_error() {
    let world = World::with_hosts(["web1"]);
    let output = world.run(["run", "--on", "db*", "--", "true"]);
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert!(output.stderr.starts_with("error: "), "{output:?}");

    let output = world.run(["run", "list", "--host", "nosuch"]);
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert!(output.stderr.starts_with("error: "), "{output:?}");
}

#[test]
fn labels_and_unions_choose() {
    let mut world = World::new();
    world.add_host("web1", &["role=web"]);
    world.add_host("db1", &["role=db"]);
    let on = |selectors: &[&str]| {
        let mut args = vec!["run"];
        args.extend(selectors.iter().flat_map(|selector| ["--on", *selector]));
        args.extend(["--", "echo", "x"]);
        let output = world.run(args).ok();
        sorted(&output.stdout).iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(on(&["role=web"]), ["web1 | x"]);
    assert_eq!(on(&["role in (web,db)"]), ["db1 | x", "web1 | x"]);
    assert_eq!(on(&["web1", "db1"]), ["db1 | x", "web1 | x"]);
    assert_eq!(on(&["all"]), ["db1 | x", "web1 | x"]);
}

#[test]
fn json_is_one_document_without_output() {
    let world = World::with_hosts(["web1", "web2"]);
    let output =
        world.run(["-o", "json", "run", "--on", "all", "--", "sh", "-c", "echo out; echo err! >&2; exit 4"]);
    assert_eq!((output.code, output.stderr.as_str()), (1, ""));
    let document = output.json();
    let targets = document["targets"].as_array().expect("targets");
    assert_eq!(targets.len(), 2);
    for target in targets {
        assert_eq!(target["state"], "ended");
        assert_eq!(target["outcome"], json!({"kind": "exited", "code": 4}));
        assert_eq!((&target["stdout_bytes"], &target["stderr_bytes"]), (&json!(4), &json!(5)));
        assert!(!target["evidence"].as_array().expect("evidence").is_empty());
        assert!(target["started"].is_string() && target["ended"].is_string() && target["job"].is_string());
    }
    let run = document["run"].as_str().expect("an id");
    let shown = world.run(["run", "show", run, "-o", "json"]).ok().json();
    assert_eq!(shown, document);
    let shown = world.run(["run", "show", &run[..13], "-o", "json"]).ok().json();
    assert_eq!(shown["run"], document["run"]);

    // One host named literally: the same document, and the command's own code.
    let output = world.run(["-o", "json", "run", "--on", "web1", "--", "false"]);
    assert_eq!((output.code, output.stderr.as_str()), (1, ""));
    assert_eq!(output.json()["targets"][0]["outcome"], json!({"kind": "exited", "code": 1}));
}

#[test]
fn a_detached_run_is_followed_later() {
    let world = World::with_hosts(["web1"]);
    let detached = world
        .run(["-o", "json", "run", "--on", "web1", "--detach", "--", "sh", "-c", "echo abc; sleep 0.2"])
        .ok();
    let document = detached.json();
    assert_eq!(document["targets"][0]["outcome"], Value::Null);
    let run = document["run"].as_str().expect("an id").to_owned();
    assert_eq!(world.run(["run", "attach", &run]).ok().stdout, "abc\n");
    assert_eq!(world.run(["run", "attach", &run, "--host", "web1", "--from", "2"]).ok().stdout, "c\n");
}

#[test]
fn runs_are_cancelled_and_signalled() {
    let world = World::with_hosts(["web1"]);
    let detach =
        || world.run(["run", "--on", "web1", "--detach", "--", "sleep", "60"]).ok().stdout.trim().to_owned();
    let outcome = |run: &str| {
        world.run(["run", "show", run, "-o", "json"]).ok().json()["targets"][0]["outcome"].clone()
    };
    let ended = |run: &str| common::wait_until("the run has ended", || !outcome(run).is_null());
    let running = |run: &str| {
        common::wait_until("the command runs", || {
            world.run(["run", "show", run, "-o", "json"]).ok().json()["targets"][0]["state"] == "running"
        });
    };

    let run = detach();
    running(&run);
    world.run(["run", "signal", &run, "USR1"]).ok();
    ended(&run);
    assert_eq!(outcome(&run), json!({"kind": "signaled", "signal": 10}));

    let run = detach();
    world.run(["run", "cancel", &run]).ok();
    ended(&run);
    assert_eq!(outcome(&run)["kind"], "cancelled");
}

#[test]
fn hosts_that_said_the_same_are_shown_together() {
    let mut world = World::with_hosts(["web1", "web2", "web3", "db1"]);
    // The agents share one machine; a command knows its host by the files that its shim holds open.
    let odd = world.host_dir("web3").display().to_string();
    let ask = format!(
        "case $(ls -l /proc/$PPID/fd) in *{odd}/*) echo odd; exit 3;; *) echo same; echo err >&2; \
         printf 'no end';; esac"
    );
    let output = world.run(["run", "--on", "all", "--group", "--", "sh", "-c", &ask]);
    assert_eq!(
        output.stdout, "db1, web1, web2 (3 hosts):\nsame\nno end\nweb3 (1 host, exit code 3):\nodd\n",
        "{output:?}"
    );
    assert!(output.stderr.starts_with("db1, web1, web2 (3 hosts):\nerr\nweb3: exited"), "{output:?}");
    assert_eq!(output.code, 1);

    // More than is held in memory is compared all the same, and read again.
    let large = "i=0; while [ $i -lt 20000 ]; do echo line $i of many; i=$((i+1)); done; echo $0 | wc -c";
    let output = world.run(["run", "--on", "web*", "--group", "--", "sh", "-c", large]).ok();
    let (head, rest) = output.stdout.split_once('\n').expect("lines");
    assert_eq!(head, "web1, web2, web3 (3 hosts):");
    let expected: Vec<String> = (0..20_000).map(|i| format!("line {i} of many")).collect();
    assert!(rest.lines().take(20_000).eq(expected.iter().map(String::as_str)), "all of it, in order");
    assert_eq!(rest.lines().count(), 20_001);

    // A host that was away is explained, and is in no group; a run that ended is grouped as well.
    world.stop_agent("db1");
    let detached = world.run(["run", "--on", "all", "--detach", "--", "echo", "hi"]).ok();
    let output = world.run(["run", "attach", detached.stdout.trim(), "--group"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "web1, web2, web3 (3 hosts):\nhi\n"));
    assert!(output.stderr.starts_with("db1: offline since "), "{output:?}");
}

//! `sim`: a fleet with faults, of which nothing false is believed and nothing goes unexplained.

mod common;

use std::process::{Command, Stdio};

use common::{World, finish};
use serde_json::Value;

fn sim(world: Option<&World>, args: &[&str]) -> common::Output {
    let mut command = match world {
        Some(world) => {
            let mut command = world.program();
            command.env("DATACENTERED_HUB", world.socket());
            command
        }
        None => Command::new(env!("CARGO_BIN_EXE_datacentered")),
    };
    command.arg("sim").args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().expect("the program starts"))
}

#[test]
fn fifty_hosts_with_every_fault_there_is() {
    let temporary = tempfile::Builder::new().prefix("dc-").tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_datacentered"));
    command.env("TMPDIR", temporary.path());
    command.args(["sim", "--hosts", "50", "--seed", "7", "--duration", "3s", "--rate", "4", "-o", "json"]);
    for fault in ["delay=5ms", "disconnect=1s", "lie", "flood=256K", "skew"] {
        command.args(["--fault", fault]);
    }
    command.args(["--faulty", "20", "--output-size", "1K"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(command.spawn().expect("the program starts")).ok();
    let report = output.json();
    println!("{report:#}");
    assert_eq!(
        (&report["seed"], &report["hosts"], &report["faulty_hosts"]),
        (&7.into(), &50.into(), &10.into())
    );
    assert_eq!(report["wrong"], Value::Array(Vec::new()));
    let number = |value: &Value| value.as_u64().expect("a number");
    let runs = &report["runs"];
    assert_eq!(number(&runs["targets"]), 50 * number(&runs["count"]));
    assert_eq!((&runs["unexplained"], &runs["sound_failed"]), (&0.into(), &0.into()));
    assert!(number(&runs["outcomes"]["exited(0)"]) >= 40 * number(&runs["count"]));
    assert!(runs["outcomes"].get("exited(99)").is_none(), "a lie was believed");
    assert!(number(&report["lies_told"]) > 0 && report["lies_believed"] == 0);
    // Each of ten floods at least once, each of forty prints its KiB each time.
    assert!(number(&report["output_bytes"]) >= 10 * 256 * 1024 + 40 * 1024);
    assert_eq!(report["reconnect"]["how"], "hub killed");
    assert!(number(&report["reconnect"]["away"]["count"]) >= 40);
    assert!(number(&report["memory"]["idle_hub_bytes"]) > number(&report["memory"]["empty_hub_bytes"]));
    assert_eq!(std::fs::read_dir(temporary.path()).expect("there").count(), 0, "something is left behind");
}

#[test]
fn hosts_join_a_hub_that_runs_and_leave_it_again() {
    let mut world = World::new();
    world.add_host("web1", &[]);
    // A login over TLS: hosts come over TLS, and so does who runs commands on them.
    let status = world.run(["hub", "status", "-o", "json"]).ok().json();
    let fingerprint = status["web_fingerprint"].as_str().expect("a fingerprint").to_owned();
    let token = world.run(["token", "create", "--role", "admin", "-o", "json"]).ok().json();
    let token = token["token"].as_str().expect("a token").to_owned();
    let join = world.run(["token", "create", "--join", "--uses", "5", "-o", "json"]).ok().json();
    let file = world.path().join("sim.token");
    std::fs::write(&file, join["token"].as_str().expect("a token")).expect("written");

    let url = world.url().to_owned();
    let mut command = world.program();
    command.args(["--hub", &url, "--fingerprint", &fingerprint, "--token", &token, "-o", "json"]);
    command.args(["sim", "--hosts", "5", "--duration", "1s", "--join-token"]);
    command.arg(format!("@{}", file.display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let report = finish(command.spawn().expect("the program starts")).ok().json();
    assert_eq!((&report["hosts"], &report["reconnect"]["how"]), (&5.into(), &"links cut".into()));
    assert_eq!(report["runs"]["outcomes"]["exited(0)"], report["runs"]["targets"]);

    let left = world.run(["host", "list", "-o", "json"]).ok().json();
    let names: Vec<&str> =
        left.as_array().expect("hosts").iter().filter_map(|host| host["name"].as_str()).collect();
    assert_eq!(names, ["web1"]);
    let runs = world.run(["run", "list", "--host", "web1"]);
    assert!(runs.stderr.contains("no run has a target on 'web1'"), "a command went to a real host: {runs:?}");
}

#[test]
fn what_cannot_be_is_said() {
    let world = World::new();
    let refused = sim(Some(&world), &["--hub", "127.0.0.1:1", "--hosts", "1"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--join-token"), "{refused:?}");
    let refused = sim(None, &["--hosts", "3", "--fault", "rain"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("delay[=D]"), "{refused:?}");

    // Fewer files than hosts: said before anything is started.
    let program = env!("CARGO_BIN_EXE_datacentered");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n 200; exec {program} sim --hosts 1000")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let refused = finish(command.spawn().expect("a shell"));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("ulimit -Hn 1128"), "{refused:?}");
}

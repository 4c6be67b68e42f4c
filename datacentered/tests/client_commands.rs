//! The other commands, as their manual says.

mod common;

use std::process::Stdio;

use common::{Output, World, finish};
use serde_json::json;

/// A command with the world's configuration and no hub named.
fn plain(world: &World, args: &[&str]) -> Output {
    let mut command = world.program();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().expect("the program starts"))
}

fn fingerprint(world: &World) -> String {
    let status = world.run(["hub", "status", "-o", "json"]).ok().json();
    status["web_fingerprint"].as_str().expect("a fingerprint").to_owned()
}

#[test]
fn hosts_are_listed_labelled_renamed_and_removed() {
    let world = World::with_hosts(["web1"]);
    let list = || world.run(["host", "list", "-o", "json"]).ok().json();
    let host = &list()[0];
    assert_eq!((&host["name"], &host["online"], &host["labels"]), (&json!("web1"), &json!(true), &json!({})));
    assert!(host["id"].is_string() && host["since"].is_string());

    world.run(["host", "label", "web1", "role=web", "region=eu"]).ok();
    world.run(["host", "label", "web1", "region-"]).ok();
    assert_eq!(list()[0]["labels"], json!({"role": "web"}));
    assert_eq!(
        world.run(["host", "list", "--selector", "role=web", "-o", "json"]).ok().json()[0]["name"],
        "web1"
    );
    assert_eq!(world.run(["host", "list", "--selector", "role=db"]).code, 2);

    world.run(["host", "rename", "web1", "web-01"]).ok();
    assert!(world.run(["host", "show", "web-01"]).ok().stdout.starts_with("name "));
    world.run(["host", "remove", "web-01"]).ok();
    assert_eq!(list(), json!([]));
}

#[test]
fn a_setup_link_a_login_and_what_each_role_may_do() {
    let world = World::new();
    let pin = fingerprint(&world);
    let password = world.path().join("password");
    std::fs::write(&password, "correct horse battery\n").expect("a password");
    let password = format!("@{}", password.display());

    let link = world.setup_link().to_owned();
    let setup =
        ["login", &link, "--user", "ann", "--password", &password, "--fingerprint", &pin, "--name", "first"];
    assert_eq!(plain(&world, &setup).ok().stdout, "logged in as ann (context 'first')\n");
    plain(&world, &["host", "list"]).ok();
    assert_eq!(plain(&world, &setup).code, 1, "the link is good for one use");

    plain(&world, &["user", "create", "vic", "--role", "viewer", "--password", &password]).ok();
    let url = world.url().to_owned();
    plain(
        &world,
        &["login", &url, "--user", "vic", "--password", &password, "--fingerprint", &pin, "--name", "second"],
    )
    .ok();
    plain(&world, &["host", "list"]).ok();
    assert_eq!(plain(&world, &["whoami"]).ok().stdout, "'vic' with the role 'viewer'\n");
    let refused = plain(&world, &["user", "list"]);
    assert_eq!(refused.code, 4);
    assert!(
        refused.stderr.contains("needs the role admin") && refused.stderr.contains("has the role viewer"),
        "{refused:?}"
    );
    let refused = plain(&world, &["run", "--on", "web1", "--", "true"]);
    assert_eq!(refused.code, 255, "as ssh: {refused:?}");

    let contexts = plain(&world, &["context", "list", "-o", "json"]).ok().json();
    assert_eq!((&contexts[0]["name"], &contexts[1]["current"]), (&json!("first"), &json!(true)));
    plain(&world, &["context", "use", "first"]).ok();
    plain(&world, &["user", "revoke", "vic"]).ok();
    assert_eq!(plain(&world, &["--context", "second", "host", "list"]).code, 4);
    plain(&world, &["logout"]).ok();
    assert_eq!(plain(&world, &["host", "list"]).code, 4);
}

#[test]
fn tokens_work_until_they_are_revoked() {
    let world = World::new();
    let created = world
        .run(["token", "create", "--role", "viewer", "--name", "ci", "--ttl", "1h", "-o", "json"])
        .ok()
        .json();
    assert_eq!(created["kind"], "api");
    let (id, token) = (created["id"].as_str().expect("an id"), created["token"].as_str().expect("a token"));
    assert!(token.starts_with("dc_") && created["expires"].is_string());
    let file = world.path().join("api.token");
    std::fs::write(&file, token).expect("a token");
    let (url, pin, from_file) = (world.url().to_owned(), fingerprint(&world), format!("@{}", file.display()));
    let list = ["--hub", &url, "--fingerprint", &pin, "--token", &from_file, "host", "list", "-o", "json"];
    assert_eq!(plain(&world, &list).ok().stdout, "[]\n");
    world.run(["token", "revoke", &id[..13]]).ok();
    assert_eq!(plain(&world, &list).code, 4);
    assert!(!world.run(["token", "list", "-o", "json"]).ok().stdout.contains(token));
}

#[test]
fn a_hub_that_cannot_be_reached_or_trusted() {
    let world = World::new();
    let output = plain(&world, &["--hub", "unix:/nowhere/hub.sock", "host", "list"]);
    assert_eq!((output.code, output.stdout.as_str()), (3, ""));
    assert!(output.stderr.contains("unix:/nowhere/hub.sock: No such file"), "{output:?}");

    let url = world.url().to_owned();
    let output = plain(&world, &["--hub", &url, "host", "list"]);
    assert_eq!(output.code, 3);
    assert!(output.stderr.contains("datacentered login"), "{output:?}");

    let other = "ab".repeat(32);
    let output = plain(&world, &["--hub", &url, "--fingerprint", &other, "host", "list"]);
    assert_eq!(output.code, 3);
    assert!(output.stderr.contains(&fingerprint(&world)), "{output:?}");
}

#[test]
fn whoever_waits_learns_that_the_hub_is_gone_and_back() {
    let mut world = World::with_hosts(["web1"]);
    let command = ["run", "--on", "web1", "--", "sh", "-c", "echo begun; sleep 6"];
    let mut child = world.spawn(command);
    let mut begun = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut begun).expect("output");
    world.kill_hub();
    // Longer than the moment about which nothing is said.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    world.start_hub();
    let output = finish(child);
    assert_eq!(output.code, 0, "{output:?}");
    let said: Vec<&str> = output.stderr.lines().collect();
    let [lost, back] = said[..] else { panic!("{said:?}") };
    assert!(lost.starts_with("connection to the hub lost ("), "{lost}");
    assert!(lost.ends_with("); trying again for up to 10 min ..."), "{lost}");
    assert_eq!(back, "connected again");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let world = World::new();
    let mut command = world.program();
    command.args(["--hub", &world.socket(), "whoami"]);
    for variable in ["HUB", "TOKEN", "FINGERPRINT", "CONFIG"] {
        command.env(format!("DATACENTERED_{variable}"), "");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(command.spawn().expect("the program starts")).ok();
    assert!(output.stdout.starts_with("the local user "), "{output:?}");
}

#[test]
fn any_operation_can_be_called() {
    let world = World::with_hosts(["web1"]);
    let host = world.run(["call", "host.show", "{\"host\":\"web1\"}"]).ok().json();
    assert_eq!(host["name"], "web1");
    let host = world.run(["call", "host.label", "{\"host\":\"web1\",\"set\":{\"a\":\"b\"}}"]).ok().json();
    assert_eq!(host["labels"], json!({"a": "b"}));
    assert_eq!(world.run(["call", "host.show", "{\"host\":\"other\"}"]).code, 2);
    assert_eq!(world.run(["call", "no.such"]).code, 2);
    let run = world.run(["run", "--on", "web1", "--detach", "--", "true"]).ok().stdout.trim().to_owned();
    let items = world.run(["call", "run.watch", &format!("{{\"run\":\"{run}\"}}")]).ok().stdout;
    let last = items.lines().last().expect("an item");
    let last: serde_json::Value = serde_json::from_str(last).expect("one object a line");
    assert_eq!(last["value"]["outcome"], json!({"kind": "exited", "code": 0}));
    assert!(world.run(["operation", "list"]).ok().stdout.contains("run.create"));
}

#[test]
fn a_backup_is_restored() {
    let mut world = World::with_hosts(["web1"]);
    let file = world.path().join("hub.backup");
    let name = file.to_str().expect("a path").to_owned();
    world.run(["hub", "backup", &name]).ok();
    assert_eq!(world.run(["hub", "backup", &name]).code, 2, "it exists already");
    world.run(["hub", "backup", &name, "--force"]).ok();
    world.stop_hub();
    std::fs::remove_dir_all(world.hub_dir()).expect("removed");
    let directory = world.hub_dir().to_str().expect("a path").to_owned();
    plain(&world, &["hub", "restore", &name, "--data-dir", &directory]).ok();
    assert_eq!(
        plain(&world, &["hub", "restore", &name, "--data-dir", &directory]).code,
        1,
        "it is not empty any more"
    );
    world.start_hub();
    assert_eq!(world.run(["host", "list", "-o", "json"]).ok().json()[0]["name"], "web1");
}

#[test]
fn the_demo_proves_itself_and_leaves_nothing_behind() {
    let world = World::new();
    let directory = world.path().join("tmp");
    std::fs::create_dir(&directory).expect("a directory");
    let mut command = world.program();
    command.args(["demo", "--once", "-o", "json"]).env("TMPDIR", &directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(command.spawn().expect("the program starts")).ok();
    let lines: Vec<serde_json::Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["listening", "connected", "outcome"]);
    assert!(lines[0]["url"].is_string() && lines[0]["setup"].is_string());
    assert_eq!(lines[2]["outcome"], json!({"kind": "exited", "code": 0}));
    assert_eq!(std::fs::read_dir(&directory).expect("lists").count(), 0);
}

#[test]
fn the_audit_and_the_events_tell_what_was_done() {
    let world = World::with_hosts(["web1"]);
    world.run(["run", "--on", "web1", "--", "true"]).ok();
    // Entries are durable with their change, and are moved into the log a moment later.
    common::wait_until("the audit tells it", || {
        let audit = world.run(["audit", "list", "-o", "json"]).ok().json();
        let entries = audit.as_array().expect("entries").clone();
        entries.iter().any(|entry| entry["operation"] == "run.create" && entry["phase"] == "outcome")
    });
    let mut child = world.spawn(["event", "watch", "--from", "start", "-o", "json"]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("a pipe")));
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("\"host.online\"") && line.contains("web1"));
    assert!(found);
    common::process_signal(&child, rustix::process::Signal::INT);
    assert_eq!(finish(child).code, 0, "Ctrl-C is how watching ends");
}

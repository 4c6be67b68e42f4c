//! The host's policy, by the installed program.

use std::fs;
use std::process::Command;

use datacentered_proto::Outcome;
use rustix::process::Signal;

use super::fake_hub::FakeHub;
use super::offer;
use super::program::Program;

const POLICY: &str = "\
default = \"refuse\"
reason = \"ask the owner\"

[[rule]]
allow = [\"exec\"]
commands = [\"uptime\"]
times = [\"sat 22:00-06:00\"]
";

/// `policy check` with these arguments: exit code, standard output, standard error.
fn check(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_datacentered-agent"))
        .args(["policy", "check"])
        .args(args)
        .output()
        .expect("starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_decision_is_explained_with_its_line() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("new.toml");
    fs::write(&file, POLICY).expect("writes");
    let file = file.to_str().expect("text");

    let (code, out, err) =
        check(&["--policy", file, "--user", "root", "--at", "sun 05:59", "--", "uptime", "-p"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("allowed: {file}:4 allows exec as root of `uptime -p` (sun 05:59)\n"));
    let (code, out, err) = check(&["--policy", file, "--user", "root", "--at", "sun 06:00", "--", "uptime"]);
    assert_eq!((code, err.as_str()), (Some(1), ""));
    assert_eq!(
        out,
        format!("refused: {file}:1 refuses exec as root of `uptime` by default: ask the owner (sun 06:00)\n")
    );
    let (code, out, _) = check(&["--policy", file, "--terminal", "--at", "sat 23:00"]);
    assert!(code == Some(1) && out.contains("refuses terminal"), "{out}");

    fs::write(file, format!("{POLICY}reson = \"x\"\n")).expect("writes");
    let (code, out, err) = check(&["--policy", file, "--", "uptime"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains(&format!("{file}:8: unknown field `reson`")), "{err}");
    assert_eq!(check(&["--policy", file, "--at", "noon", "--", "x"]).0, Some(2));
    assert_eq!(check(&["--policy", file]).0, Some(2), "a command is missing");
}

#[tokio::test]
async fn the_policy_of_the_command_line_is_in_force() {
    let hub = FakeHub::start().await;
    let agent = Program::join(&hub);
    let link = hub.link(1).await;
    assert_eq!(offer(&hub, &link, 1, "true", false).await.outcome, None, "no policy, nothing refused");
    let data_dir = agent.data_dir();
    agent.end(Signal::TERM).await;

    let file = data_dir.path().join("elsewhere.toml");
    fs::write(&file, POLICY).expect("writes");
    let agent = Program::start(data_dir, &["--policy", file.to_str().expect("text")]);
    let link = hub.link(2).await;
    let report = offer(&hub, &link, 2, "true", false).await;
    let Some(Outcome::Refused { why }) = &report.outcome else { panic!("not refused: {report:?}") };
    assert!(why.starts_with(&format!("{}:1 refuses exec as ", file.display())), "{why}");
    let (_, _, log) = agent.end(Signal::TERM).await;
    assert!(log.contains("refused a job") && log.contains("ask the owner"), "{log}");
}

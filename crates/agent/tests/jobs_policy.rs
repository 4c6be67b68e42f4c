//! The host's policy decides about real jobs.

mod common;

use std::fs;
use std::sync::Arc;

use common::{Host, command, exited, sh};
use datacentered_agent_lib::jobs::Refuse;
use datacentered_agent_lib::policy::PolicyFile;
use datacentered_proto::Outcome;
use datacentered_proto::ops::job::{ExecSpec, JobReport, Script};

const POLICY: &str = "\
default = \"allow\"
[[rule]]
refuse = [\"exec\"]
users = [\"nobody\"]
reason = \"not as nobody\"
[[rule]]
refuse = [\"exec\"]
commands = [\"/bin/sh\"]
scripts = true
[[rule]]
refuse = [\"exec\"]
commands = [\"*--force*\"]
";

/// The line of the policy that refused, by the outcome and by the evidence.
fn refused_by(report: &JobReport) -> usize {
    let Some(Outcome::Refused { why }) = &report.outcome else { panic!("not refused: {report:?}") };
    let detail =
        report.evidence.iter().find(|entry| entry.fact == "refused").and_then(|entry| entry.detail.clone());
    assert_eq!(detail.as_ref(), Some(why), "the evidence says the same");
    let (_, rest) = why.split_once("policy.toml:").expect("names the file");
    rest.split([' ', ':']).next().and_then(|line| line.parse().ok()).expect("names the line")
}

#[tokio::test]
async fn the_policy_decides_and_is_followed() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("policy.toml");
    let file = Arc::new(PolicyFile::open(&path));
    let host = Host::with(|config| config.refuse = Refuse::policy(file.clone())).await;
    assert_eq!(host.run(command(&["true"])).await.outcome, exited(0), "without a file all is allowed");

    fs::write(&path, POLICY).expect("writes");
    assert_eq!(host.run(command(&["true"])).await.outcome, exited(0));
    assert_eq!(refused_by(&host.run(command(&["true", "--force"])).await), 10);
    // By name and by number, which the host resolves.
    let nobody = datacentered_agent_lib::sys::users::by_name(c"nobody").expect("looks up").expect("exists");
    for user in ["nobody".to_owned(), nobody.uid.to_string()] {
        let report = host.run(ExecSpec { user: Some(user), ..command(&["true"]) }).await;
        assert_eq!(refused_by(&report), 2);
        assert!(report.outcome.as_ref().is_some_and(|outcome| outcome.to_string().contains("not as nobody")));
    }
    let script = Script { interpreter: Vec::new(), body: "echo hi".into() };
    assert_eq!(
        refused_by(&host.run(ExecSpec { script: Some(script), ..ExecSpec::command(Vec::new()) }).await),
        6
    );
    assert_eq!(host.run(sh("exit 3")).await.outcome, exited(3));

    // A running job is not touched by what the policy becomes; a refusal is kept over a restart.
    let gate = directory.path().join("gate");
    fs::write(&gate, "").expect("closes the gate");
    let running =
        host.start(sh(&format!("while [ -e {} ]; do sleep 0.02; done; exit 5", gate.display()))).await;
    host.running(running).await;
    fs::write(&path, "default = \"refuse\"\n").expect("writes");
    let refused = host.run(command(&["true"])).await;
    assert_eq!(refused_by(&refused), 1);
    fs::remove_file(&gate).expect("opens the gate");
    assert_eq!(host.ended(running).await.outcome, exited(5));
    // What is half written changes nothing.
    fs::write(&path, "default = \"al").expect("writes");
    assert_eq!(refused_by(&host.run(command(&["true"])).await), 1);
    assert!(file.facts().error.contains("policy.toml:1"), "{:?}", file.facts());
    let host = host.reopen().await;
    assert_eq!(refused_by(&host.jobs.report(refused.job).expect("is known")), 1);
    fs::remove_file(&path).expect("removes");
    assert_eq!(host.run(command(&["true"])).await.outcome, exited(0));
}

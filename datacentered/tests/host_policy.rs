//! The host's own policy, through the hub and the command line.

mod common;

use std::fs;

use common::{World, wait_until};

const POLICY: &str = "\
default = \"allow\"

[[rule]]
refuse = [\"exec\"]
commands = [\"rm *\"]
reason = \"nothing is removed here\"
";

#[test]
fn a_refusal_names_the_line_of_the_hosts_policy() {
    let world = World::with_hosts(["web1", "web2"]);
    let policy = world.host_dir("web1").join("policy.toml");
    assert_eq!(world.run(["run", "--on", "web1", "--", "true"]).ok().stdout, "");
    fs::write(&policy, POLICY).expect("a policy");

    let kept = world.path().join("kept");
    fs::write(&kept, "").expect("a file");
    let file = kept.to_str().expect("a path");
    let refused = world.run(["run", "--on", "web1", "--", "/bin/rm", "-f", file]);
    assert_eq!((refused.code, refused.stdout.as_str()), (255, ""));
    let line = format!("{}:3 refuses exec as ", policy.display());
    assert!(refused.stderr.starts_with(&format!("error: web1: refused by the host: {line}")), "{refused:?}");
    assert!(refused.stderr.contains(": nothing is removed here"), "{refused:?}");
    assert!(kept.exists());

    // On several hosts each has its own word; scripts get it as JSON with evidence.
    let both = world.run(["run", "--on", "web*", "-o", "json", "--", "rm", "-f", file]);
    assert_eq!(both.code, 1);
    let json = both.json();
    let targets = json["targets"].as_array().expect("targets");
    let kinds: Vec<_> = targets.iter().map(|target| target["outcome"]["kind"].as_str()).collect();
    assert!(kinds.contains(&Some("refused")) && kinds.contains(&Some("exited")), "{json}");
    let refused =
        targets.iter().find(|target| target["outcome"]["kind"] == "refused").expect("a refused target");
    assert!(refused["outcome"]["why"].as_str().is_some_and(|why| why.starts_with(&line)), "{refused}");
    let evidence = refused["evidence"].as_array().expect("evidence");
    let fact = evidence.iter().find(|entry| entry["fact"] == "refused").expect("the refusal");
    assert!(
        fact["witness"] == "agent" && fact["detail"].as_str().is_some_and(|text| text.starts_with(&line))
    );
    assert!(!kept.exists(), "web2 has no policy");

    // The check says the same before anybody is refused.
    let check = |argv: &[&str]| {
        let directory = world.host_dir("web1");
        let start = ["agent", "policy", "check", "--data-dir", directory.to_str().expect("a path"), "--"];
        world.run([&start[..], argv].concat())
    };
    assert!(check(&["ls"]).ok().stdout.starts_with("allowed: "));
    let explained = check(&["rm", "x"]);
    assert!(explained.code == 1 && explained.stdout.starts_with("refused: ") && explained.stderr.is_empty());

    // A mistake leaves the last good policy in force, and the hub shows it, by itself, with its line.
    fs::write(&policy, format!("{POLICY}times = [\"noon\"]\n")).expect("a broken policy");
    assert_eq!(world.run(["run", "--on", "web1", "--", "rm", "x"]).code, 255);
    assert_eq!(check(&["ls"]).code, 2);
    let shown = || world.run(["host", "show", "web1"]).ok().stdout;
    wait_until("the hub shows the mistake", || shown().contains("policy.toml:7: `noon`"));
    assert!(shown().contains("(1 rule, default allow)"), "{}", shown());
    let selected = world.run(["host", "list", "--selector", "policy.error?", "-o", "json"]).ok().json();
    assert_eq!(selected.as_array().map(Vec::len), Some(1), "{selected}");
    fs::write(&policy, "default = \"allow\"\n").expect("a good policy");
    assert_eq!(world.run(["run", "--on", "web1", "--", "rm", "-f", "x"]).ok().stdout, "");
    wait_until("the hub shows that it is corrected", || !shown().contains("noon"));
}

#[test]
fn an_agent_that_starts_with_a_broken_policy_refuses_everything() {
    let mut world = World::with_hosts(["web1"]);
    world.stop_agent("web1");
    fs::write(world.host_dir("web1").join("policy.toml"), "default = \"allow\"\nx = 1\n").expect("a policy");
    world.start_agent("web1");
    let refused = world.run(["run", "--on", "web1", "--", "true"]);
    assert_eq!(refused.code, 255);
    assert!(refused.stderr.contains("policy.toml:2: unknown field `x`"), "{refused:?}");
    assert!(refused.stderr.contains("everything is refused until this is corrected"), "{refused:?}");
}

#[test]
fn terminals_and_files_have_rules_of_their_own() {
    let world = World::with_hosts(["web1"]);
    let policy = world.host_dir("web1").join("policy.toml");
    let rules = "\
default = \"allow\"

[[rule]]
refuse = [\"terminal\"]
reason = \"commands only\"

[[rule]]
refuse = [\"file\"]
commands = [\"write *\"]
reason = \"nothing is copied here\"
";
    fs::write(&policy, rules).expect("a policy");
    let terminal = world.run(["shell", "web1", "--", "true"]);
    assert_eq!(terminal.code, 255);
    assert!(terminal.stderr.contains(&format!("{}:3 refuses terminal", policy.display())), "{terminal:?}");
    assert_eq!(world.run(["run", "--on", "web1", "--", "echo", "a command"]).ok().stdout, "a command\n");

    let (here, there) = (world.path().join("here"), world.path().join("there"));
    fs::write(&here, "bytes").expect("a file");
    let remote = format!("web1:{}", there.display());
    let up = world.run(["cp", here.to_str().expect("a path"), &remote]);
    assert_eq!(up.code, 4);
    assert!(
        up.stderr.contains("refused by the host") && up.stderr.contains("nothing is copied here"),
        "{up:?}"
    );
    assert!(!there.exists());
    fs::write(&there, "their bytes").expect("a file");
    world.run(["cp", &remote, here.to_str().expect("a path")]).ok();
    assert_eq!(fs::read_to_string(&here).expect("copied"), "their bytes");
}

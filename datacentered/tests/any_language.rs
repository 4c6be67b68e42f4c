//! Programs in other languages, with a WebSocket and a JSON library: the examples, against a real hub and agent.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Output, World};

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path)
}

/// The examples, by the programs that Debian's packages install.
fn programs() -> [(&'static str, PathBuf); 2] {
    // Debian's own Python, for which Debian's module is.
    [("/usr/bin/python3", example("python/run.py")), ("node", example("node/run.mjs"))]
}

fn command(world: &World, token: &str, (program, script): &(&str, PathBuf), args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg(script).args(args).env("NODE_PATH", "/usr/share/nodejs");
    command.env("DATACENTERED_HUB", world.url()).env("DATACENTERED_TOKEN", token);
    command.env("DATACENTERED_CA", world.hub_dir().join("identity/ca.pem"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(world: &World, token: &str, program: &(&str, PathBuf), args: &[&str]) -> Output {
    let child = command(world, token, program, args).spawn().unwrap_or_else(|error| {
        panic!("{} does not start ({error}); 'scripts/setup.sh test' installs it", program.0)
    });
    common::finish(child)
}

#[test]
fn a_command_its_output_and_its_exit_code() {
    let world = World::with_hosts(["web1"]);
    let token = world.run(["token", "create", "--role", "operator"]).ok().stdout.trim().to_owned();
    for program in programs() {
        let output = run(
            &world,
            &token,
            &program,
            &["web1", "sh", "-c", "echo out; echo err >&2; printf '\\377'; exit 7"],
        );
        assert_eq!((output.code, output.stderr.as_str()), (7, "err\n"), "{output:?}");
        assert_eq!(output.stdout_bytes, b"out\n\xff");
        let output = run(&world, &token, &program, &["web1", "sh", "-c", "kill -9 $$"]);
        assert_eq!(output.code, 137, "{output:?}");

        // Many times what the hub may send without more credit.
        let output = run(&world, &token, &program, &["web1", "seq", "400000"]);
        let lines: Vec<String> = (1..=400_000).map(|number| number.to_string()).collect();
        let expected = lines.join("\n") + "\n";
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert!(output.stdout == expected, "all of it, in order");
    }
}

#[test]
fn output_comes_while_the_command_runs() {
    use std::io::Read as _;
    let world = World::with_hosts(["web1"]);
    let token = world.run(["token", "create", "--role", "operator"]).ok().stdout.trim().to_owned();
    for program in programs() {
        let mut child = command(&world, &token, &program, &["web1", "sh", "-c", "echo now; sleep 600"])
            .spawn()
            .expect("it starts");
        let began = Instant::now();
        let mut first = [0; 4];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("output");
        assert_eq!(&first, b"now\n");
        assert!(began.elapsed() < Duration::from_mins(1));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}

#[test]
fn what_is_refused_is_explained() {
    let world = World::with_hosts(["web1"]);
    let token = world.run(["token", "create", "--role", "viewer"]).ok().stdout.trim().to_owned();
    for program in programs() {
        let output = run(&world, &token, &program, &["web1", "true"]);
        assert_eq!((output.code, output.stdout.as_str()), (255, ""));
        assert!(output.stderr.contains("forbidden"), "{output:?}");
        let output = run(&world, "dc_nonsense", &program, &["web1", "true"]);
        assert!(output.code == 255 && output.stderr.contains("unauthenticated"), "{output:?}");
        // Another authority's certificate: not this hub.
        let mut stranger = command(&world, &token, &program, &["web1", "true"]);
        let other = World::new();
        stranger.env("DATACENTERED_CA", other.hub_dir().join("identity/ca.pem"));
        let output = common::finish(stranger.spawn().expect("it starts"));
        assert!(output.code == 255 && output.stderr.contains("error: "), "{output:?}");
    }
}

//! The command line of the benchmark, without measuring anything.

use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_datacentered-bench")).args(args).output().expect("the program starts")
}

#[test]
fn a_figure_that_is_not_there_is_named_with_those_that_are() {
    let output = bench(&["--only", "command,nothing"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("'nothing'") && said.contains("command, throughput, fleet, agent"), "{said}");
}

#[test]
fn programs_that_are_missing_are_said_with_what_to_do() {
    let empty = tempfile::tempdir().expect("a directory");
    let programs = empty.path().display().to_string();
    let output = bench(&["--quick", "--only", "agent", "--programs", &programs]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&programs) && said.contains("cargo build --release"), "{said}");
}

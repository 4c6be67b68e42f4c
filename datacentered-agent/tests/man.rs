//! The man pages of the agent's program.

#[allow(dead_code)]
#[path = "../src/args.rs"]
mod args;
#[allow(dead_code)]
#[path = "../../datacentered/src/man.rs"]
mod man;

use clap::CommandFactory as _;

#[test]
fn every_command_has_a_page() {
    let pages = man::pages(args::Args::command(), "8");
    let files: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
    let expected = [
        "datacentered-agent.8",
        "datacentered-agent-join.8",
        "datacentered-agent-start.8",
        "datacentered-agent-policy.8",
        "datacentered-agent-policy-check.8",
    ];
    assert_eq!(files, expected);
    for page in &pages[..2] {
        let text = &page.text;
        assert!(text.contains(".SH EXAMPLES\n") && text.contains("datacentered\\-agent join"), "{text}");
    }
}

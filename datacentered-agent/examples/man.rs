//! Writes the man pages of the agent's program: `cargo run -p datacentered-agent --example man -- DIRECTORY`.
//!
//! An example and not a command, so that the program on every host stays small.

#[allow(dead_code)]
#[path = "../src/args.rs"]
mod args;
#[allow(dead_code)]
#[path = "../../datacentered/src/man.rs"]
mod man;

use clap::CommandFactory as _;

/// The section of programs for administrators: `datacentered agent` has its pages in section 1.
const SECTION: &str = "8";

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .ok_or_else(|| std::io::Error::other("give the directory that the pages go into"))?;
    man::write(args::Args::command(), SECTION, directory.as_ref())
}

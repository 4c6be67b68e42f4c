//! The small program that is installed on hosts: the agent, and the shims that own what it runs.

mod args;
mod logging;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use datacentered_agent_lib::policy::{self, CheckOptions};
use datacentered_agent_lib::run;

use crate::args::{Args, Command, Policy};

fn main() -> ExitCode {
    // A shim holds one process for as long as it runs, and a host may have thousands of them: it must not pay for
    // argument parsing, logging or a runtime.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "shim") {
        return datacentered_agent_lib::shim::main(arguments);
    }
    let args = Args::parse();
    logging::start(&args.log, args.log_format);
    let outcome = match args.command {
        Command::Policy(Policy::Check(check)) => return explain(&check.into()),
        Command::Join(join) => run::block_on(run::join(join.into())),
        Command::Start(start) => run::block_on(run::start(start.into())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", with_sources(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// `policy check`: 0 allowed, 1 refused, 2 a mistake.
fn explain(options: &CheckOptions) -> ExitCode {
    match policy::explain(options) {
        Ok(explained) => {
            if let Err(error) = writeln!(std::io::stdout().lock(), "{}", explained.text) {
                tracing::debug!(%error, "nobody reads the answer");
            }
            ExitCode::from(u8::from(!explained.allowed))
        }
        Err(error) => {
            tracing::error!("{}", with_sources(&error));
            ExitCode::from(2)
        }
    }
}

/// An error and what caused it, on one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Errors that only pass another one on say the same as their source.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

//! Measures DataCentered against real peers, side by side on this machine, and writes down what came out.
//!
//! Each figure is a ratio: ours and the peer's are taken in turns in the same run, so that what else the machine does hits
//! both. A figure is one module in `figures/` and one line in [`figures::ALL`].
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is its purpose")]

mod args;
mod failure;
mod figures;
mod machine;
mod process;
mod report;
mod sample;
mod ssh;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

use args::Args;
use failure::{Failure, Result};
use figures::ALL;
use report::Report;

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(met) if met || args.quick => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says whether every aim was met.
fn measure(args: &Args) -> Result<bool> {
    if let Some(unknown) = args.only.iter().find(|name| ALL.iter().all(|figure| figure.name != **name)) {
        let names: Vec<&str> = ALL.iter().map(|figure| figure.name).collect();
        return Err(Failure::new(format!("there is no figure '{unknown}'; there are {}", names.join(", "))));
    }
    datacentered_sim::nofile::make_room(args.hosts as usize)
        .map_err(|error| Failure::new(error.to_string()))?;
    process::adopt_orphans()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::new(args);
    for figure in
        ALL.iter().filter(|figure| args.only.is_empty() || args.only.iter().any(|n| n == figure.name))
    {
        println!("{}: {}", figure.name, figure.title);
        // This thread is none of the runtime's: it may wait for processes while the client library works.
        let measured = runtime.block_on((figure.measure)(args)).map_err(|error| error.of(figure.name))?;
        for row in &measured.rows {
            println!("  {}", row.line());
        }
        report.add(figure, measured);
    }
    if let Some(path) = &args.write {
        std::fs::write(path, report.markdown())?;
        println!("written to {}", path.display());
    }
    Ok(report.all_met())
}

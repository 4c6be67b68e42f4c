//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Measures DataCentered against real peers on this machine, side by side.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  datacentered-bench                                everything; takes about half an hour
  datacentered-bench --quick                        everything, small and rough, to see that it works
  datacentered-bench --only command,throughput
  datacentered-bench --only fleet --hosts 5000
  datacentered-bench --write docs/benchmarks.md

Needs openssh-server and openssh-client (scripts/setup.sh bench). Exit codes: 0 every aim met (or
--quick), 1 some aim missed, 2 it could not be measured.")]
pub(crate) struct Args {
    /// Small and rough: to see that everything works
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these figures
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Simulated hosts
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub(crate) hosts: u32,
    /// Write the results and how they were got to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Where datacentered and datacentered-agent are [default: where this program is]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
    /// A command that the hub is run under, such as a profiler; its words are parted by blanks
    #[arg(long, value_name = "COMMAND")]
    pub(crate) hub_under: Option<String>,
}

impl Args {
    /// One of two sizes.
    pub(crate) fn size<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

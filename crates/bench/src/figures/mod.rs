//! The figures: one module each, and one line here.
//!
//! To add one: a function that measures and hands back rows, and its entry in [`ALL`].

mod agent;
mod command;
mod fleet;
mod throughput;

use std::pin::Pin;

use crate::args::Args;
use crate::failure::Result;
use crate::report::Row;

/// What a measurement is on its way.
pub(crate) type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Measured>> + 'a>>;

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    /// What else is to be known, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// Something that is measured.
#[derive(Debug)]
pub(crate) struct Figure {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// Its heading.
    pub(crate) title: &'static str,
    /// How it is measured, so that a stranger can repeat it.
    pub(crate) method: &'static str,
    pub(crate) measure: for<'a> fn(&'a Args) -> Measuring<'a>,
}

/// All of them, in the order of the page.
pub(crate) const ALL: &[Figure] = &[
    Figure {
        name: "command",
        title: "A command on a connected host",
        method: command::METHOD,
        measure: |args| Box::pin(command::measure(args)),
    },
    Figure {
        name: "throughput",
        title: "Output from a host to a client",
        method: throughput::METHOD,
        measure: |args| Box::pin(throughput::measure(args)),
    },
    Figure {
        name: "fleet",
        title: "A fleet of simulated hosts",
        method: fleet::METHOD,
        measure: |args| Box::pin(fleet::measure(args)),
    },
    Figure {
        name: "agent",
        title: "The agent's memory",
        method: agent::METHOD,
        measure: |args| Box::pin(agent::measure(args)),
    },
];

/// A duration in seconds as a person reads it.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.2} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}

/// Bytes as a person reads them.
pub(crate) fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

//! The results as a table and as the page of documentation.

use std::fmt::Write as _;

use crate::args::Args;
use crate::figures::{Figure, Measured};
use crate::machine;

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// What came out for us, with its unit.
    pub(crate) ours: String,
    /// And for the peer; empty where there is none.
    pub(crate) peer: String,
    /// The value that the aim is about.
    pub(crate) value: f64,
    /// What it is to be.
    pub(crate) aim: Aim,
}

/// What a value is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// At most.
    Most(f64),
    /// At least.
    Least(f64),
    /// Shown only.
    None,
}

impl Row {
    fn met(&self) -> Option<bool> {
        match self.aim {
            Aim::Most(most) => Some(self.value <= most),
            Aim::Least(least) => Some(self.value >= least),
            Aim::None => None,
        }
    }

    fn aim_text(&self) -> String {
        match self.aim {
            Aim::Most(most) => format!("≤ {most}"),
            Aim::Least(least) => format!("≥ {least}"),
            Aim::None => String::new(),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        }
    }

    /// For a terminal.
    pub(crate) fn line(&self) -> String {
        let against = if self.peer.is_empty() { String::new() } else { format!(" against {}", self.peer) };
        let aim = match self.met() {
            Some(met) => format!(" ({}: {})", self.aim_text(), if met { "met" } else { "MISSED" }),
            None => String::new(),
        };
        format!("{}: {}{against}: {:.3}{aim}", self.what, self.ours, self.value)
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Vec<String>,
    quick: bool,
    command: String,
    figures: Vec<(&'static Figure, Measured)>,
}

impl Report {
    pub(crate) fn new(args: &Args) -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        Self {
            machine: machine::describe(),
            quick: args.quick,
            command: words.join(" "),
            figures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, figure: &'static Figure, measured: Measured) {
        self.figures.push((figure, measured));
    }

    /// Whether no aim was missed.
    pub(crate) fn all_met(&self) -> bool {
        self.figures.iter().flat_map(|(_, measured)| &measured.rows).all(|row| row.met() != Some(false))
    }

    /// The page.
    pub(crate) fn markdown(&self) -> String {
        let mut page = String::from(HEAD);
        if self.quick {
            page.push_str("\n**This is a quick run: it shows that everything works, not how fast it is.**\n");
        }
        page.push_str("\n## Machine\n\n");
        for line in &self.machine {
            // A string takes all.
            let _ = writeln!(page, "- {line}");
        }
        let _ = writeln!(page, "- `datacentered-bench {}`", self.command);
        for (figure, measured) in &self.figures {
            let _ = write!(page, "\n## {}\n\n{}\n\n", figure.title, figure.method);
            page.push_str("| what | ours | peer | value | aim | |\n|---|---|---|---|---|---|\n");
            for row in &measured.rows {
                let (peer, aim, verdict) = (&row.peer, row.aim_text(), row.verdict());
                let _ = writeln!(
                    page,
                    "| {} | {} | {peer} | {:.3} | {aim} | {verdict} |",
                    row.what, row.ours, row.value
                );
            }
            for note in &measured.notes {
                let _ = writeln!(page, "\n{note}");
            }
        }
        page
    }
}

const HEAD: &str = "\
# Benchmarks

Made by `make bench`; do not edit. Every figure is taken beside a real peer's on the same machine in the same run, in turns, so
that noise hits both; what is shown is the median of several rounds, and the ratio is ours divided by the peer's. A value
without a peer is absolute.

To repeat it: a Debian machine with nothing else to do, a checkout, `make bench`. `scripts/setup.sh bench` installs what is needed.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, aim: Aim) -> Row {
        Row { what: "w".into(), ours: "1 ms".into(), peer: "2 ms".into(), value, aim }
    }

    #[test]
    fn aims_are_judged() {
        assert_eq!(row(0.5, Aim::Most(0.5)).met(), Some(true));
        assert_eq!(row(0.51, Aim::Most(0.5)).met(), Some(false));
        assert_eq!(row(0.7, Aim::Least(0.8)).met(), Some(false));
        assert_eq!(row(0.7, Aim::None).met(), None);
        assert_eq!(row(0.7, Aim::Least(0.8)).line(), "w: 1 ms against 2 ms: 0.700 (≥ 0.8: MISSED)");
    }
}

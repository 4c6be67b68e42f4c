//! `run ...`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Subcommand, ValueEnum};
use datacentered_proto::ByteString;
use datacentered_proto::ops::job::WhenFull;
use datacentered_proto::ops::run::OfflinePolicy;

use crate::failure::Failure;
use crate::text::clean::clean;
use crate::text::{duration, pairs, signal, size};

/// `run`.
#[derive(Args, Debug)]
#[command(
    subcommand_negates_reqs = true,
    subcommand_help_heading = "Runs",
    after_help = "\
Examples:
  datacentered run --on web1 -- uptime
  datacentered run --on 'web-*,role=db' --timeout 5m -- apt-get update
  datacentered run --on all --group -- uname -r
  datacentered run --on all --script fix.sh -- --dry-run
  tar c conf | datacentered run --on web1 -i -- tar x -C /etc
  datacentered run --on all --offline queue --expires 7d --detach -- reboot

Selectors: names and globs are alternatives (web-*,db1); facts and labels narrow them down
(role=kvm, region in (us,eu), os.version>=12). --on repeats for a union; 'all' is every host.

The command is never passed through a shell of yours or the host's; for one, say: -- sh -c 'a | b'.

Exit codes: on one host named literally, the command's own, 128+n for a signal, 124 when it timed
out, 255 for everything else, as with ssh. On any other selector 0, or 1 where a target failed:
whatever ended with anything but exit code 0. Hosts left out by --offline skip do not count.

--group compares standard output, standard error and how the command ended; on one host named
literally there is nothing to compare, and its output comes as it is.

Ctrl-C cancels the run and waits for its outcome; the second one leaves at once."
)]
pub(crate) struct Run {
    #[command(subcommand)]
    pub(crate) command: Option<RunCommand>,
    #[command(flatten)]
    pub(crate) create: Create,
}

/// `run --on ...`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The hosts; repeat it for a union
    #[arg(long, value_name = "SELECTOR", required = true)]
    pub(crate) on: Vec<String>,
    /// Pass standard input on; every host gets a copy
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// End it on a host that takes longer
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    /// What happens on hosts that are not connected
    #[arg(long, value_name = "POLICY", default_value = "fail")]
    pub(crate) offline: Offline,
    /// How long --offline queue waits [default: 24h]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub(crate) expires: Option<Duration>,
    /// The user on the host [default: the agent's own]
    #[arg(long, value_name = "U")]
    pub(crate) user: Option<String>,
    /// A variable for the environment; repeat it for several
    #[arg(long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(pairs::environment))]
    pub(crate) env: Vec<(String, ByteString)>,
    /// The working directory [default: the user's home]
    #[arg(long, value_name = "D")]
    pub(crate) cwd: Option<OsString>,
    /// A script of this machine to run on the hosts; - is standard input. ARGV are its arguments
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// What interprets the script, such as 'python3' [default: its own #! line, else /bin/sh]
    #[arg(long, value_name = "PROGRAM", requires = "script")]
    pub(crate) interpreter: Option<OsString>,
    /// Most hosts at a time [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_parallel: Option<u32>,
    /// One pipe for both output streams, which keeps their true order
    #[arg(long)]
    pub(crate) merge: bool,
    /// What happens when the output spool on the host is full
    #[arg(long, value_name = "WHAT", default_value = "wait")]
    pub(crate) when_full: Full,
    /// Most processes and threads on each host
    #[arg(long, value_name = "N")]
    pub(crate) max_processes: Option<u64>,
    /// Most memory on each host, such as 256M
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) max_memory: Option<u64>,
    /// Show hosts that said the same together, once all have ended: 'web1, web2 (2 hosts):' and then what they said
    #[arg(long, conflicts_with = "detach")]
    pub(crate) group: bool,
    /// Do not wait: print the run's id and leave
    #[arg(long, conflicts_with = "stdin")]
    pub(crate) detach: bool,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "script")]
    pub(crate) argv: Vec<OsString>,
}

/// `run list`, `run show`, ...
#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Lists runs, newest first
    #[command(
        after_help = "Examples:\n  datacentered run list\n  datacentered run list --active --host web1"
    )]
    List {
        /// Most runs
        #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only runs with a target on this host
        #[arg(long, value_name = "H")]
        host: Option<String>,
        /// Only runs that have not ended
        #[arg(long)]
        active: bool,
    },
    /// Shows a run and what happened on each host, with the evidence
    #[command(
        after_help = "Examples:\n  datacentered run show 0192d3b0-5f7e\n  datacentered run show 0192d3b0-5f7e -o json"
    )]
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Prints a run's output from its beginning, and goes on until it ends
    #[command(after_help = "\
Examples:
  datacentered run attach 0192d3b0-5f7e
  datacentered run attach 0192d3b0-5f7e --host web1 --from 4096 > rest
  datacentered run attach 0192d3b0-5f7e --group

Ctrl-C leaves; the run goes on.")]
    Attach {
        /// Its id, or the beginning of it
        id: String,
        /// Only this host, as raw bytes
        #[arg(long, value_name = "H")]
        host: Option<String>,
        /// Begin at this byte of the host's output
        #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
        from: u64,
        /// Show hosts that said the same together, once all have ended
        #[arg(long, conflicts_with_all = ["host", "from"])]
        group: bool,
    },
    /// Ends a run's targets
    #[command(
        after_help = "Examples:\n  datacentered run cancel 0192d3b0-5f7e\n  datacentered run cancel 0192d3b0-5f7e --host web1"
    )]
    Cancel {
        /// Its id, or the beginning of it
        id: String,
        /// Only on this host; repeat it for several
        #[arg(long = "host", value_name = "H")]
        hosts: Vec<String>,
    },
    /// Sends a signal to the processes of a run's targets
    #[command(after_help = "Examples:\n  datacentered run signal 0192d3b0-5f7e HUP")]
    Signal {
        /// Its id, or the beginning of it
        id: String,
        /// The signal, by name or number
        #[arg(value_name = "SIG", value_parser = signal::parse)]
        signal: i32,
        /// Only on this host; repeat it for several
        #[arg(long = "host", value_name = "H")]
        hosts: Vec<String>,
    },
    /// Gives up on targets whose host will not come back
    #[command(after_help = "Examples:\n  datacentered run abandon 0192d3b0-5f7e --host web1")]
    Abandon {
        /// Its id, or the beginning of it
        id: String,
        /// Only on this host; repeat it for several [default: every host that is offline]
        #[arg(long = "host", value_name = "H")]
        hosts: Vec<String>,
    },
}

/// What to say where the command of `run` stands without its `--`; none where something else is wrong.
pub(crate) fn forgotten_dashes(
    error: &clap::Error,
    args: impl IntoIterator<Item = OsString>,
) -> Option<Failure> {
    if !matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument) {
        return None;
    }
    let args: Vec<String> = args.into_iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let run = args.iter().position(|arg| arg == "run")?;
    let (before, rest) = args.split_at_checked(run + 1)?;
    if !rest.iter().any(|arg| arg == "--on" || arg.starts_with("--on=")) || rest.iter().any(|arg| arg == "--")
    {
        return None;
    }
    let (options, command) = rest.split_at_checked(first_word(rest)?)?;
    let quoted = |words: &[String]| words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
    let line = format!("datacentered {} {} -- {}", quoted(before), quoted(options), quoted(command));
    Some(
        Failure::usage(format!("'{}' is not a subcommand of 'run'", clean(command.first()?)))
            .hint(format!("put the command behind --: {line}")),
    )
}

/// Where the first word stands that is neither an option nor its value.
fn first_word(args: &[String]) -> Option<usize> {
    let mut cli = crate::args::Cli::command();
    cli.build();
    let run = cli.find_subcommand("run")?;
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        let option = match (arg.strip_prefix("--"), arg.strip_prefix('-')) {
            (Some(long), _) if long.contains('=') => {
                at += 1;
                continue;
            }
            (Some(long), _) => run.get_arguments().find(|option| option.get_long() == Some(long))?,
            (None, Some(short)) => {
                let short = short.chars().next()?;
                run.get_arguments().find(|option| option.get_short() == Some(short))?
            }
            (None, None) => return Some(at),
        };
        at += if option.get_action().takes_values() { 2 } else { 1 };
    }
    None
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let word = clean(word);
    let plain = |c: char| c.is_alphanumeric() || "-_./:,=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `--offline`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Offline {
    /// The target fails at once
    Fail,
    /// The target is left out and does not count as failed
    Skip,
    /// The target waits for its host
    Queue,
}

impl From<Offline> for OfflinePolicy {
    fn from(policy: Offline) -> Self {
        match policy {
            Offline::Fail => Self::Fail,
            Offline::Skip => Self::Skip,
            Offline::Queue => Self::Queue,
        }
    }
}

/// `--when-full`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Full {
    /// The command waits until there is room again
    Wait,
    /// The output is counted and thrown away
    Discard,
}

impl From<Full> for WhenFull {
    fn from(full: Full) -> Self {
        match full {
            Full::Wait => Self::Wait,
            Full::Discard => Self::Discard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn hint(line: &[&str]) -> Option<String> {
        let error = crate::args::Cli::try_parse_from(line).expect_err("wrong");
        forgotten_dashes(&error, line.iter().map(OsString::from))?.hint
    }

    #[test]
    fn dashes_that_were_forgotten() {
        assert_eq!(
            hint(&["datacentered", "run", "--on", "web1", "ls", "-la"]).as_deref(),
            Some("put the command behind --: datacentered run --on web1 -- ls -la")
        );
        assert_eq!(
            hint(&["datacentered", "-o", "json", "run", "--on=web-*", "-i", "sh", "-c", "a | b"]).as_deref(),
            Some("put the command behind --: datacentered -o json run '--on=web-*' -i -- sh -c 'a | b'")
        );
        for other in [
            &["datacentered", "run", "--on", "web1", "--bogus", "--", "ls"][..],
            &["datacentered", "run", "--bogus", "--on", "web1"],
            &["datacentered", "runn", "--on", "web1", "ls"],
            &["datacentered", "run", "shwo"],
        ] {
            assert_eq!(hint(other), None, "{other:?}");
        }
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}

//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use datacentered_agent_lib::run::{JoinOptions, StartOptions};
use tracing_subscriber::filter::Targets;

/// The agent of a DataCentered host: runs what the hub asks for, and goes on with it when the hub is away.
#[derive(Debug, Parser)]
#[command(name = "datacentered-agent", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to log: a level (error, warn, info, debug, trace), or levels by module as in `info,datacentered_link=debug`.
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL", env = "DATACENTERED_LOG")]
    pub(crate) log: Targets,
    /// How to write the log, which goes to standard error.
    #[arg(long, global = true, default_value = "text", value_enum)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  datacentered-agent join hub.example:7272 --token @/root/token --label role=kvm
  datacentered-agent start
  datacentered-agent start --data-dir /srv/agent -o json

Exit codes: 0 stopped in good order, 1 failed, 2 wrong usage, configuration or data directory,
3 hub not reachable at enrolment, 4 hub refused the enrolment.";

const JOIN_EXAMPLES: &str = "\
Examples:
  datacentered-agent join hub.example:7272 --token @/root/token
  datacentered-agent join hub.example:7272 --token - --label role=web --label site=fra < /root/token
  datacentered-agent join wss://hub-a.example:7272,wss://hub-b.example:7272 --token @/root/token
  datacentered-agent join hub.example:7272 --token @token --data-dir /srv/agent -o json

The token comes from 'datacentered token create --join', where somebody is logged in to the hub.
On the command line itself every user of this host can see it: prefer @FILE or -.

Once joined, 'datacentered-agent start' or the systemd unit runs the agent, without a token.";

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The form of what goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Nothing; the log tells.
    Text,
    /// One object a line for each thing that a script may wait for.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Enrols this host with a hub, then runs. A host that is enrolled already just runs.
    Join(Join),
    /// Runs on a host that is enrolled.
    Start(Start),
}

#[derive(Debug, clap::Args)]
#[command(after_help = JOIN_EXAMPLES)]
pub(crate) struct Join {
    /// The hub: HOST:PORT, wss://HOST:PORT; several, separated by commas, are tried in turn.
    #[arg(value_name = "URL")]
    url: String,
    /// The join token: itself, @FILE, or - for standard input. Not needed again once the host is enrolled.
    #[arg(long, value_name = "TOKEN|@FILE|-")]
    token: Option<String>,
    /// The name to ask for; the hostname where absent.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A label to ask for; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    common: Start,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// Where the agent keeps its identity and its journal: /var/lib/datacentered-agent for root, else below
    /// $XDG_STATE_HOME.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What to write to standard output.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE, such as role=kvm".to_owned()),
    }
}

impl From<Join> for JoinOptions {
    fn from(join: Join) -> Self {
        Self {
            url: join.url,
            token: join.token,
            name: join.name,
            labels: join.labels.into_iter().collect(),
            run: join.common.into(),
        }
    }
}

impl From<Start> for StartOptions {
    fn from(start: Start) -> Self {
        Self { data_dir: start.data_dir, json: start.output == Output::Json }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn join_takes_what_the_contract_says() {
        let line =
            "datacentered-agent join h:7272 --token @t --data-dir /d --name n --label a=b --label c= -o json";
        let args = Args::try_parse_from(line.split(' ')).expect("parses");
        let Command::Join(join) = args.command else { panic!("not a join") };
        let options = JoinOptions::from(join);
        assert_eq!((options.url.as_str(), options.token.as_deref()), ("h:7272", Some("@t")));
        assert_eq!(
            options.labels.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]
        );
        assert!(options.run.json);
    }

    #[test]
    fn odd_labels_are_refused() {
        for label in ["=x", "x"] {
            let line = ["datacentered-agent", "join", "h:1", "--label", label];
            assert!(Args::try_parse_from(line).is_err(), "{label}");
        }
    }
}

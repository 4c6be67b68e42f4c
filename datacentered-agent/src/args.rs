//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use datacentered_agent_lib::policy::CheckOptions;
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
  datacentered-agent policy check --user root -- rm -rf /srv/old

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
    /// The host's own policy, by which it refuses jobs.
    #[command(subcommand)]
    Policy(Policy),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Says whether the policy allows a command, and which line decides.
    Check(Check),
}

const CHECK_EXAMPLES: &str = "\
Examples:
  datacentered-agent policy check -- systemctl restart app
  datacentered-agent policy check --user root --at 'sat 03:00' -- rm -rf /srv/old
  datacentered-agent policy check --policy new.toml --script deploy.sh --env APP_ENV
  datacentered-agent policy check --terminal

Exit codes: 0 allowed, 1 refused, 2 the policy or the command line has a mistake.";

#[derive(Debug, clap::Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct Check {
    /// The policy; by default that of the agent with this data directory.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The agent's data directory, whose agent.toml may name the policy.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The user to run as, by name or number; yourself by default.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Ask about a terminal.
    #[arg(long)]
    terminal: bool,
    /// When, in the host's local time: 'mon 14:30', 14:30, or RFC 3339; now by default.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// A script on this machine; what follows -- goes to it.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// The name of a variable that the job sets; may be repeated.
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// The program and its arguments.
    #[arg(last = true, value_name = "ARGV", required_unless_present_any = ["script", "terminal"])]
    argv: Vec<OsString>,
}

impl From<Check> for CheckOptions {
    fn from(check: Check) -> Self {
        let Check { policy, data_dir, user, terminal, at, script, env, argv } = check;
        Self { policy, data_dir, user, terminal, at, script, env, argv }
    }
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
    /// The host's own policy: /etc/datacentered/policy.toml for the system's agent, else DATA_DIR/policy.toml. Without the
    /// file everything is allowed.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
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
        Self { data_dir: start.data_dir, policy: start.policy, json: start.output == Output::Json }
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
    fn a_check_takes_a_command_a_script_or_a_terminal() {
        let check = |rest: &str| {
            let line = format!("datacentered-agent policy check {rest}");
            match Args::try_parse_from(line.split_whitespace()).map(|args| args.command) {
                Ok(Command::Policy(Policy::Check(check))) => Some(CheckOptions::from(check)),
                _ => None,
            }
        };
        let options = check("--user u --at 14:30 --env A --env B -- rm --force").expect("parses");
        assert_eq!((options.argv.len(), options.env.len(), options.at.as_deref()), (2, 2, Some("14:30")));
        assert!(check("--terminal").is_some() && check("--script x").is_some() && check("").is_none());
    }

    #[test]
    fn odd_labels_are_refused() {
        for label in ["=x", "x"] {
            let line = ["datacentered-agent", "join", "h:1", "--label", label];
            assert!(Args::try_parse_from(line).is_err(), "{label}");
        }
    }
}

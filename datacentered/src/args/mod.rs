//! The command line: every command, its options and its help.

pub(crate) mod access;
pub(crate) mod client;
pub(crate) mod host;
pub(crate) mod run;
pub(crate) mod server;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::text::duration;

/// Every server you have, from one place; and for every command the truth about what happened on each.
#[derive(Debug, Parser)]
#[command(
    name = "datacentered",
    version,
    max_term_width = 100,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  datacentered demo                            try everything on this machine, nothing is left behind
  datacentered login https://hub.example.net:7272
  datacentered host list
  datacentered run --on web1 -- uptime         one host: its output and exit code, as with ssh
  datacentered run --on 'web-*,role=db' -- df -h

Exit codes: 0 done, 1 some target failed, 2 usage or nothing matched, 3 not reachable, 4 not allowed."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The hub: wss://H:P, https://H:P, H:P or unix:PATH; several separated by commas are tried in turn
    #[arg(long, global = true, value_name = "URL[,URL]", env = "DATACENTERED_HUB", hide_env_values = true)]
    pub(crate) hub: Option<String>,
    /// A token; @FILE reads it from a file, - from standard input
    #[arg(long, global = true, value_name = "T|@FILE|-", env = "DATACENTERED_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Fingerprint of the hub's web key (SHA-256, hex), for a hub you have not logged in to
    #[arg(long, global = true, value_name = "F", env = "DATACENTERED_FINGERPRINT", hide_env_values = true)]
    pub(crate) fingerprint: Option<String>,
    /// The context of the configuration to use instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// How to print
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true,
        help = "How to print: table or json"
    )]
    pub(crate) output: Format,
    /// How long a connection that was up is tried again before giving up
    #[arg(long, global = true, value_name = "D", default_value = "10m", value_parser = duration::parse)]
    pub(crate) reconnect_timeout: Duration,
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DATACENTERED_CONFIG",
        hide_env_values = true,
        hide = true
    )]
    pub(crate) config: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows everything at work on this machine: a hub, an agent and a first command, thrown away at the end
    Demo(server::Demo),
    /// The hub: start it, look at it, back it up
    #[command(subcommand)]
    Hub(server::Hub),
    /// The agent: join a hub, start again
    #[command(subcommand)]
    Agent(server::Agent),
    /// Logs in to a hub and remembers it as a context
    Login(client::Login),
    /// Ends the login of the current context
    #[command(after_help = "Examples:\n  datacentered logout\n  datacentered --context staging logout")]
    Logout,
    /// The hubs you have logged in to
    #[command(subcommand)]
    Context(client::Context),
    /// Accounts
    #[command(subcommand)]
    User(access::User),
    /// Roles and what each allows
    #[command(subcommand)]
    Role(access::Role),
    /// Tokens for programs and for joining hosts
    #[command(subcommand)]
    Token(access::Token),
    /// Who changed what, where, and how it ended
    #[command(subcommand)]
    Audit(access::Audit),
    /// Hosts: list, show, label, rename, revoke, remove, watch
    #[command(subcommand)]
    Host(host::Host),
    /// Runs a command on one or many hosts
    Run(Box<run::Run>),
    /// What happens in the fleet
    #[command(subcommand)]
    Event(client::Event),
    /// Calls any operation
    Call(client::Call),
    /// The operations that can be called
    #[command(subcommand)]
    Operation(client::Operation),
    /// Prints completions for a shell
    Completions(client::Completions),
}

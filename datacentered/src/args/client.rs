//! Commands about this client itself, events and plain calls.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;
use datacentered_proto::Cursor;

/// `login`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered login hub.example.net:7272
  datacentered login 'https://hub.example.net:7272/setup#SECRET'     the link that a new hub prints
  datacentered login hub.example.net:7272 --user ann --password @pw --fingerprint 5f3a...
  datacentered login hub.example.net:7272 --token @api.token         remembers a token instead

It shows the fingerprint of the hub's key and asks whether it is right, unless --fingerprint says
so. Compare it with what 'datacentered hub status' shows on the hub's own machine.")]
pub(crate) struct Login {
    /// The hub, or the setup link that it printed
    #[arg(value_name = "URL|LINK")]
    pub(crate) url: String,
    /// The name of the context [default: the hub's host name]
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,
    /// The account; asked where it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The password: @FILE reads it from a file, - from standard input; asked where it is left out
    #[arg(long, value_name = "@FILE|-")]
    pub(crate) password: Option<String>,
}

/// `context ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// Lists the contexts
    #[command(after_help = "Examples:\n  datacentered context list\n  datacentered context list -o json")]
    List,
    /// Makes a context the current one
    #[command(after_help = "Examples:\n  datacentered context use production")]
    Use {
        /// Its name
        name: String,
    },
    /// Forgets a context; its token stays valid until 'logout' or 'token revoke' ends it
    #[command(after_help = "Examples:\n  datacentered context remove staging")]
    Remove {
        /// Its name
        name: String,
    },
}

/// `event ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Event {
    /// Prints events as they happen
    #[command(after_help = "\
Examples:
  datacentered event watch
  datacentered event watch --kind host. --kind run.
  datacentered event watch --from 5f3a-120 -o json     go on behind an event seen before

With -o json every line has the event's cursor: hand it back with --from to miss nothing.")]
    Watch {
        /// Go on behind this place; 'start' is the oldest event there is
        #[arg(long, value_name = "CURSOR", value_parser = from)]
        from: Option<From>,
        /// Only kinds that begin so, such as host. or run.ended; repeat it for several
        #[arg(long = "kind", value_name = "K")]
        kinds: Vec<String>,
    },
}

/// Where `event watch` begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// With the oldest event there is.
    Start,
    /// Behind an event.
    Cursor(Cursor),
}

fn from(text: &str) -> Result<From, datacentered_proto::cursor::InvalidCursor> {
    if text == "start" { Ok(From::Start) } else { text.parse().map(From::Cursor) }
}

/// `call`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered call hub.status
  datacentered call host.show '{\"host\":\"web1\"}'
  datacentered call host.label '{\"host\":\"web1\",\"set\":{\"role\":\"web\"}}'
  datacentered call event.watch                       streams print one JSON object a line
  echo '{\"host\":\"web1\"}' | datacentered call host.show -

A change gets a key of its own where the parameters have none.
'datacentered operation list' names all operations.")]
pub(crate) struct Call {
    /// The operation, as noun.verb
    pub(crate) operation: String,
    /// Its parameters; - reads them from standard input
    #[arg(value_name = "JSON", default_value = "{}", hide_default_value = true)]
    pub(crate) params: String,
}

/// `operation ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Operation {
    /// Lists the operations that the hub answers
    #[command(after_help = "Examples:\n  datacentered operation list\n  datacentered operation list -o json")]
    List,
}

/// `completions`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered completions bash > /etc/bash_completion.d/datacentered
  datacentered completions zsh > ~/.zfunc/_datacentered
  datacentered completions fish > ~/.config/fish/completions/datacentered.fish")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered man > datacentered.1
  datacentered man --dir /usr/local/share/man/man1

Without --dir the program's own page goes to standard output.")]
pub(crate) struct Man {
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "D")]
    pub(crate) dir: Option<PathBuf>,
}

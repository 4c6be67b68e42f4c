//! `shell` and `terminal ...`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use datacentered_proto::ByteString;

use crate::text::keys::{self, Keys};
use crate::text::{duration, pairs};

/// `shell`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered shell web1                          the login shell of the agent's user
  datacentered shell web1 --user www -- top
  datacentered shell --attach 0192d3b0-5f7e        comes back to a terminal
  echo uptime | datacentered shell web1

The terminal goes on when the connection, the hub or the agent is restarted, and when you detach
(Ctrl-] then d). Come back with 'datacentered terminal attach'.

Exit codes: as with ssh: the command's own, 128+n for a signal, 255 for everything else.")]
pub(crate) struct Shell {
    /// The host, by name or id
    #[arg(required_unless_present = "attach", conflicts_with = "attach")]
    pub(crate) host: Option<String>,
    /// Come back to a terminal instead of opening one: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    pub(crate) attach: Option<String>,
    /// The user on the host [default: the agent's own]
    #[arg(long, value_name = "U", conflicts_with = "attach")]
    pub(crate) user: Option<String>,
    /// A variable for the environment; repeat it for several
    #[arg(long = "env", value_name = "K=V", conflicts_with = "attach",
        value_parser = OsStringValueParser::new().try_map(pairs::environment))]
    pub(crate) env: Vec<(String, ByteString)>,
    /// The working directory [default: the user's home]
    #[arg(long, value_name = "D", conflicts_with = "attach")]
    pub(crate) cwd: Option<OsString>,
    #[command(flatten)]
    pub(crate) how: How,
    /// The program and its arguments [default: the user's login shell]
    #[arg(last = true, conflicts_with = "attach")]
    pub(crate) argv: Vec<OsString>,
}

/// How one is at a terminal.
#[derive(Args, Clone, Debug)]
pub(crate) struct How {
    /// Only watch: nothing that is typed is sent
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The keys that detach, such as 'ctrl-],d' or 'ctrl-p,ctrl-q'; 'none' for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-],d", value_parser = keys::parse)]
    pub(crate) detach_keys: Keys,
}

/// `terminal ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Terminal {
    /// Lists terminals, newest first
    #[command(
        after_help = "Examples:\n  datacentered terminal list\n  datacentered terminal list --active --host web1"
    )]
    List {
        /// Most terminals
        #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only terminals of this host
        #[arg(long, value_name = "H")]
        host: Option<String>,
        /// Only terminals that have not ended
        #[arg(long)]
        active: bool,
    },
    /// Comes back to a terminal: its screen as it is, then what follows
    #[command(
        after_help = "Examples:\n  datacentered terminal attach 0192d3b0-5f7e\n  datacentered terminal attach 0192d3b0-5f7e --read-only"
    )]
    Attach {
        /// Its id, or the beginning of it
        id: String,
        #[command(flatten)]
        how: How,
    },
    /// Plays a recording back as it came
    #[command(after_help = "Examples:\n  datacentered terminal play 0192d3b0-5f7e --speed 4 --max-idle 1s")]
    Play {
        /// Its id, or the beginning of it
        id: String,
        /// How many times as fast
        #[arg(long, value_name = "X", default_value = "1", value_parser = speed)]
        speed: f64,
        /// Longest pause between two pieces of output
        #[arg(long, value_name = "D", value_parser = duration::parse)]
        max_idle: Option<Duration>,
    },
    /// Writes a recording as an asciicast (version 2), for asciinema and its player
    #[command(
        after_help = "Examples:\n  datacentered terminal export 0192d3b0-5f7e session.cast\n  datacentered terminal export 0192d3b0-5f7e > session.cast"
    )]
    Export {
        /// Its id, or the beginning of it
        id: String,
        /// A new file [default: standard output]
        file: Option<PathBuf>,
    },
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.01..=1000.0).contains(&speed) => Ok(speed),
        _ => Err("expected a number between 0.01 and 1000, such as 2 or 0.5".into()),
    }
}

//! `hub`, `agent` and `demo`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::text::pairs;

/// `demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered demo                    stays up until Ctrl-C, and prints what to try
  datacentered demo --once             proves that everything works here, and stops
  datacentered demo --once -o json     the same for scripts, one JSON object a line

Everything lives in a directory under TMPDIR that is removed at the end.")]
pub(crate) struct Demo {
    /// Prove it and stop
    #[arg(long)]
    pub(crate) once: bool,
}

/// `hub ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Hub {
    /// Runs the hub
    Start(Box<HubStart>),
    /// Shows how the hub is
    #[command(after_help = "Examples:\n  datacentered hub status\n  datacentered hub status -o json")]
    Status,
    /// Writes one consistent copy of everything the hub keeps to a file
    #[command(after_help = "\
Examples:
  datacentered hub backup hub.backup
  datacentered hub backup - | ssh vault 'cat > hub.backup'

The copy holds the hub's private keys: the file is readable by you only. Keep it so.")]
    Backup {
        /// Where to write it; - is standard output
        file: PathBuf,
        /// Replace the file where there is one
        #[arg(long)]
        force: bool,
    },
    /// Makes a data directory from a backup
    #[command(after_help = "\
Examples:
  datacentered hub restore hub.backup --data-dir /var/lib/datacentered

The directory must not hold a hub yet. Start the hub afterwards with 'datacentered hub start'.")]
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        data_dir: DataDir,
    },
}

/// Where the agent keeps its state.
#[derive(Args, Clone, Debug)]
pub(crate) struct AgentDataDir {
    /// Where it keeps its state [default: /var/lib/datacentered-agent for root, else the XDG state directory]
    #[arg(long, value_name = "D")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Where the hub keeps its state.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataDir {
    /// Where it keeps its state [default: /var/lib/datacentered for root, else the XDG state directory]
    #[arg(long, value_name = "D")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `hub start`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered hub start
  datacentered hub start --data-dir /srv/hub --listen 0.0.0.0:7272
  datacentered hub start --tls-cert hub.pem --tls-key hub.key     a web certificate of your own

The first start prints a link to make the first account.
On this machine the local socket needs no login:
  datacentered --hub unix:DATA_DIR/hub.sock host list

Limits and other settings are read from DATA_DIR/hub.toml.")]
pub(crate) struct HubStart {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Address and port to listen on; port 0 takes any free one [default: every address, port 7272]
    #[arg(long, value_name = "A:P")]
    pub(crate) listen: Option<String>,
    /// Address of this machine only to listen on without TLS, for a reverse proxy
    #[arg(long, value_name = "A:P")]
    pub(crate) listen_plain: Option<String>,
    /// Where it keeps and moves everything: embedded, or nats://... [default: embedded]
    #[arg(long, value_name = "E")]
    pub(crate) engine: Option<String>,
    /// A web certificate of your own (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// `agent ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Makes this machine a host of a hub, and runs the agent
    Join(Box<AgentJoin>),
    /// Runs the agent of a machine that has joined
    #[command(
        after_help = "Examples:\n  datacentered agent start\n  datacentered agent start --data-dir /srv/agent"
    )]
    Start {
        #[command(flatten)]
        data_dir: AgentDataDir,
        #[command(flatten)]
        policy: AgentPolicyFile,
    },
    /// This machine's own policy, by which it refuses jobs
    #[command(subcommand)]
    Policy(AgentPolicy),
}

/// Where the host's policy is.
#[derive(Args, Clone, Debug)]
pub(crate) struct AgentPolicyFile {
    /// The host's own policy [default: /etc/datacentered/policy.toml for the system's agent, else DATA_DIR/policy.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

/// `agent policy ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentPolicy {
    /// Says whether the policy allows a command, and which line decides
    Check(Box<AgentPolicyCheck>),
}

/// `agent policy check`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered agent policy check -- systemctl restart app
  datacentered agent policy check --user root --at 'sat 03:00' -- rm -rf /srv/old
  datacentered agent policy check --policy new.toml --script deploy.sh --env APP_ENV
  datacentered agent policy check --terminal

Exit codes: 0 allowed, 1 refused, 2 the policy or the command line has a mistake.")]
pub(crate) struct AgentPolicyCheck {
    #[command(flatten)]
    pub(crate) policy: AgentPolicyFile,
    #[command(flatten)]
    pub(crate) data_dir: AgentDataDir,
    /// The user to run as, by name or number [default: yourself]
    #[arg(long, value_name = "U")]
    pub(crate) user: Option<String>,
    /// Ask about a terminal
    #[arg(long)]
    pub(crate) terminal: bool,
    /// When, in local time: 'mon 14:30', 14:30, or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// A script on this machine; what follows -- goes to it
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// The name of a variable that the job sets; repeat it for several
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Vec<String>,
    /// The program and its arguments
    #[arg(last = true, value_name = "ARGV", required_unless_present_any = ["script", "terminal"])]
    pub(crate) argv: Vec<OsString>,
}

/// `agent join`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered agent join hub.example.net:7272 --token @join.token
  datacentered agent join hub.example.net:7272 --token - --name web1 --label role=web < join.token

Get the token on the hub: datacentered token create --join. A second start needs no token.")]
pub(crate) struct AgentJoin {
    /// The hub: wss://H:P, https://H:P or H:P
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) data_dir: AgentDataDir,
    #[command(flatten)]
    pub(crate) policy: AgentPolicyFile,
    /// The name it would like [default: the machine's own]
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,
    /// A label it would like; repeat it for several
    #[arg(long = "label", value_name = "K=V", value_parser = pairs::label)]
    pub(crate) labels: Vec<(String, String)>,
}

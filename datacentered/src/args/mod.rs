//! The command line: every command, its options and its help.

pub(crate) mod access;
pub(crate) mod client;
pub(crate) mod cp;
pub(crate) mod host;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod sim;
pub(crate) mod terminal;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

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
  datacentered demo                            try everything here, nothing is left behind
  datacentered login https://hub.example.net:7272
  datacentered host list
  datacentered run --on web1 -- uptime         one host: its output and exit code, as with ssh
  datacentered run --on 'web-*,role=db' -- df -h
  datacentered shell web1                      a terminal that outlives every connection

Environment: DATACENTERED_HUB, DATACENTERED_TOKEN and DATACENTERED_FINGERPRINT stand for the
options of that name; DATACENTERED_CONFIG is the configuration file; DATACENTERED_LOG=debug logs more.

Exit codes: 0 done, 1 some target failed, 2 usage or nothing matched, 3 not reachable,
4 not allowed."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Reads a command line. A variable of the environment that is empty counts as unset.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command().mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(Resettable::Reset) } else { arg }
    });
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The hub as wss://H:P, H:P or unix:PATH; several are tried in turn
    #[arg(long, global = true, value_name = "URL[,URL]", env = "DATACENTERED_HUB", hide_env = true)]
    pub(crate) hub: Option<String>,
    /// A token; @FILE reads it from a file, - from standard input
    #[arg(long, global = true, value_name = "T|@FILE|-", env = "DATACENTERED_TOKEN", hide_env = true)]
    pub(crate) token: Option<String>,
    /// The fingerprint of the hub's web key, for a hub not logged in to
    #[arg(long, global = true, value_name = "F", env = "DATACENTERED_FINGERPRINT", hide_env = true)]
    pub(crate) fingerprint: Option<String>,
    /// The context to use instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// How to print: table or json
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true
    )]
    pub(crate) output: Format,
    /// How long a lost connection is tried again
    #[arg(long, global = true, value_name = "D", default_value = "10m", value_parser = duration::parse)]
    pub(crate) reconnect_timeout: Duration,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", env = "DATACENTERED_CONFIG", hide = true)]
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
    /// Simulates a fleet, and measures what it costs a hub: for sizing, and for seeing faults
    Sim(Box<sim::Sim>),
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
    /// Shows who the hub takes you for
    #[command(after_help = "Examples:\n  datacentered whoami\n  datacentered whoami -o json")]
    Whoami,
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
    /// Opens a terminal on a host, or comes back to one
    Shell(Box<terminal::Shell>),
    /// Terminals: list, attach, play, export
    #[command(subcommand)]
    Terminal(terminal::Terminal),
    /// Copies files to and from hosts
    Cp(cp::Cp),
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
    /// Writes the man pages
    #[command(hide = true)]
    Man(client::Man),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// Every command that does something, with its path.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        if !command.is_subcommand_required_set() || command.get_subcommands().next().is_none() {
            found.push((path.clone(), command.clone()));
        }
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            leaves(inner, &path, found);
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// What help shows is in the man pages, examples as examples.
    #[test]
    fn every_command_has_a_man_page() {
        let pages = crate::man::pages(Cli::command(), "1");
        let mut found = Vec::new();
        leaves(&Cli::command(), "", &mut found);
        found.retain(|(_, command)| !command.is_hide_set());
        assert!(found.len() > 30 && pages.len() > found.len(), "{} of {}", pages.len(), found.len());
        for (path, command) in found {
            let file = format!("{}.1", path.replace(' ', "-"));
            let page = pages.iter().find(|page| page.file == file).unwrap_or_else(|| panic!("no {file}"));
            let text = &page.text;
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert_eq!(text.contains(".SH EXAMPLES\n.nf\n"), help.contains("Examples:"), "{file}");
            for heading in [".SH NAME\n", ".SH SYNOPSIS\n"] {
                assert!(text.contains(heading), "{file} has no {heading}");
            }
        }
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "", &mut found);
        assert!(found.len() > 35, "{} commands", found.len());
        for (path, command) in found {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  "), "'{path}' has no examples");
            for line in help.lines().skip(1).take_while(|line| line.starts_with("  ")) {
                check_example(&path, line.trim());
            }
        }
    }

    /// Explanations stand behind two blanks, input and output in shell words; what is left is a command line of ours.
    fn check_example(path: &str, line: &str) {
        let line = line.split("   ").next().unwrap_or_default();
        let line = line.rsplit(" | datacentered").next().map_or(line.to_owned(), |tail| {
            if tail == line { line.to_owned() } else { format!("datacentered{tail}") }
        });
        let line = line.split(" > ").next().unwrap_or_default().split(" < ").next().unwrap_or_default();
        let line = line.split(" | ssh").next().unwrap_or_default();
        let words = shell_words(line);
        if let Err(error) = Cli::try_parse_from(&words) {
            assert!(!error.use_stderr(), "the example of '{path}' does not parse: {words:?}\n{error}");
        }
    }

    fn shell_words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => {
                    words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
                }
                other => word.push(other),
            }
        }
        words.extend(Some(word).filter(|word| !word.is_empty()));
        words
    }

    #[test]
    fn the_help_pages() {
        let mut pages = String::new();
        let mut root = Cli::command().term_width(100);
        root.build();
        render(&mut root, "", &mut pages);
        // Width and values of this machine's environment must not show.
        insta::assert_snapshot!("help_pages", pages.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    fn render(command: &mut clap::Command, path: &str, pages: &mut String) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        let page = command.clone().term_width(100).render_help().to_string();
        // The options of every command are shown once.
        let page: Vec<&str> = page
            .split("\n\n")
            .filter(|part| path == "datacentered" || !part.starts_with("Global options:"))
            .collect();
        writeln!(pages, "===== {path}\n{}", page.join("\n\n")).expect("a string takes all");
        let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            if let Some(inner) = command.find_subcommand_mut(name) {
                render(inner, &path, pages);
            }
        }
    }

    #[test]
    fn what_people_may_write() {
        let parses = |line: &str| Cli::try_parse_from(shell_words(line)).is_ok();
        for good in [
            "datacentered run --on web1 -- uptime",
            "datacentered run --on a --on b --detach -- true",
            "datacentered run --on web1 --script fix.sh",
            "datacentered -o json run list",
            "datacentered run list -o json",
            "datacentered run show 0192d3b0 --context x",
            "datacentered cp a b:c",
            "datacentered cp -rp --on x --on y a :/b",
            "datacentered cp --resume -o json web1:/a .",
            "datacentered agent join h:1 --token t",
            "datacentered --hub a,b host list --selector x",
            "datacentered shell web1 --user www -- top -b",
            "datacentered shell --attach 0192d3b0 --read-only",
        ] {
            assert!(parses(good), "{good}");
        }
        for bad in [
            "datacentered",
            "datacentered run -- uptime",
            "datacentered run --on web1",
            "datacentered cp a",
            "datacentered cp a 'web-*:/b'",
            "datacentered run --on web1 uptime",
            "datacentered run --on web1 --timeout 5 -- uptime",
            "datacentered run --on web1 -i --detach -- cat",
            "datacentered run --on web1 --max-parallel 0 -- cat",
            "datacentered token create --uses 3",
            "datacentered token create --join --role viewer",
            "datacentered token create --role viewer --uses 3",
            "datacentered host label web1",
            "datacentered host label web1 nonsense",
            "datacentered hub start --tls-cert x",
            "datacentered shell",
            "datacentered shell web1 top",
            "datacentered shell web1 --attach 0192d3b0",
            "datacentered shell web1 --detach-keys ctrl-",
            "datacentered terminal play 0192d3b0 --speed 0",
        ] {
            assert!(!parses(bad), "{bad}");
        }
    }
}

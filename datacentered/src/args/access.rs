//! `user`, `role`, `token` and `audit`.

use std::time::Duration;

use clap::{Args, Subcommand};
use datacentered_proto::ops::role::RoleName;

use crate::text::{duration, pairs};

/// `user ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Makes an account
    #[command(after_help = "\
Examples:
  datacentered user create ann --role operator
  datacentered user create ann --role viewer --password @pw")]
    Create {
        /// The name to log in with
        name: String,
        /// What it may do: viewer reads, operator runs commands and changes hosts, admin does everything; or an own
        /// role
        #[arg(long, value_name = "ROLE", default_value = "viewer")]
        role: RoleName,
        /// The password: @FILE reads it from a file, - from standard input; asked where it is left out
        #[arg(long, value_name = "@FILE|-")]
        password: Option<String>,
    },
    /// Lists the accounts
    #[command(after_help = "Examples:\n  datacentered user list")]
    List,
    /// Ends an account, its tokens and its open connections
    #[command(after_help = "Examples:\n  datacentered user revoke ann")]
    Revoke {
        /// Its name
        name: String,
    },
    /// Sets a new password; every session of the account ends
    #[command(
        after_help = "Examples:\n  datacentered user password ann\n  datacentered user password ann --password - < pw"
    )]
    Password {
        /// The account's name
        name: String,
        /// The password: @FILE reads it from a file, - from standard input; asked where it is left out
        #[arg(long, value_name = "@FILE|-")]
        password: Option<String>,
    },
}

/// `role ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Makes an own role: which operations, on which hosts
    #[command(after_help = "\
Examples:
  datacentered role create web-team --allow 'run.*' --allow 'host.list' --on 'team=web'
  datacentered role create runner --allow 'run.*' --deny run.abandon --on 'web-*' --on db1
  datacentered role create auditor --allow audit.list --allow '*.list'

A pattern never allows what only admins may do: such an operation has to be named in full, by an admin. With --on
every operation is limited to the hosts that match at that moment: a host outside that is named is refused, patterns
and 'all' choose among those inside, and runs show the targets inside only. Labels and names say what is inside best:
facts are what a host says about itself. A role never changes; make another, or revoke it once nobody has it.")]
    Create {
        /// Its name: a-z 0-9 . _ - and beginning with a letter
        name: String,
        /// Operations that it may call: names or patterns such as 'run.*'; repeat it for several
        #[arg(long, value_name = "PATTERN", required = true)]
        allow: Vec<String>,
        /// Operations that it may not call, whatever --allow says; repeat it for several
        #[arg(long, value_name = "PATTERN")]
        deny: Vec<String>,
        /// The hosts that it is for; repeat it for a union [default: all hosts]
        #[arg(long, value_name = "SELECTOR")]
        on: Vec<String>,
    },
    /// Lists the roles and what each allows
    #[command(after_help = "Examples:\n  datacentered role list\n  datacentered role list -o json")]
    List,
    /// Shows one role
    #[command(after_help = "Examples:\n  datacentered role show web-team")]
    Show {
        /// Its name
        name: String,
    },
    /// Removes an own role that no account and no token has any more
    #[command(after_help = "Examples:\n  datacentered role revoke web-team")]
    Revoke {
        /// Its name
        name: String,
    },
}

/// `token ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Makes a token; its secret is shown this once
    Create(TokenCreate),
    /// Lists the tokens, without secrets
    #[command(after_help = "Examples:\n  datacentered token list")]
    List,
    /// Ends a token and every connection that uses it
    #[command(after_help = "Examples:\n  datacentered token revoke 0192d3b0-5f7e")]
    Revoke {
        /// Its id, or the beginning of it
        id: String,
    },
}

/// `token create`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered token create --join                                  one host may join, within 24 h
  datacentered token create --join --uses 20 --ttl 7d --label role=web
  datacentered token create --role viewer --name monitoring --ttl 90d")]
pub(crate) struct TokenCreate {
    /// What an API token may do: viewer, operator, admin, or an own role; never more than you may [default: what you
    /// may]
    #[arg(long, value_name = "ROLE", conflicts_with = "join")]
    pub(crate) role: Option<RoleName>,
    /// A token that hosts join with, and good for nothing else
    #[arg(long)]
    pub(crate) join: bool,
    /// A name for lists and the audit
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// How long it lives [default: 24h for join tokens, 90d for others]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
    /// How many hosts may join with it [default: 1]
    #[arg(long, value_name = "N", requires = "join", conflicts_with = "role")]
    pub(crate) uses: Option<u32>,
    /// A label for the hosts that join with it; repeat it for several
    #[arg(long = "label", value_name = "K=V", value_parser = pairs::label, requires = "join", conflicts_with = "role")]
    pub(crate) labels: Vec<(String, String)>,
}

/// `audit ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Lists the latest entries, oldest first
    #[command(after_help = "\
Examples:
  datacentered audit list
  datacentered audit list --limit 1000 -o json
  datacentered audit list --follow")]
    List {
        /// Most entries
        #[arg(long, value_name = "N", default_value = "50")]
        limit: u32,
        /// Go on with new entries until Ctrl-C; with -o json one a line
        #[arg(long)]
        follow: bool,
    },
}

//! `host ...`.

use clap::Subcommand;

use crate::text::pairs::{self, LabelChange};

/// `host ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Lists hosts
    #[command(after_help = "\
Examples:
  datacentered host list
  datacentered host list --selector 'web-*,region in (us,eu)'
  datacentered host list -o json")]
    List {
        /// Only hosts that it matches; repeat it for a union
        #[arg(long = "selector", value_name = "S")]
        selectors: Vec<String>,
    },
    /// Shows all that is known about a host
    #[command(after_help = "Examples:\n  datacentered host show web1")]
    Show {
        /// Name or id
        host: String,
    },
    /// Sets labels, and takes labels away
    #[command(
        after_help = "Examples:\n  datacentered host label web1 role=web region=eu\n  datacentered host label web1 region-"
    )]
    Label {
        /// Name or id
        host: String,
        /// K=V sets a label, K- takes it away
        #[arg(required = true, value_name = "K=V|K-", value_parser = pairs::label_change)]
        changes: Vec<LabelChange>,
    },
    /// Gives a host another name
    #[command(after_help = "Examples:\n  datacentered host rename web1 web-01")]
    Rename {
        /// Name or id
        host: String,
        /// The new name
        name: String,
    },
    /// Refuses a host's key for ever; the host stays in the list
    #[command(after_help = "Examples:\n  datacentered host revoke web1")]
    Revoke {
        /// Name or id
        host: String,
    },
    /// Takes a host out of the registry; its unfinished jobs end as lost
    #[command(after_help = "Examples:\n  datacentered host remove web1")]
    Remove {
        /// Name or id
        host: String,
    },
    /// Prints every host as it stands, then each change
    #[command(after_help = "\
Examples:
  datacentered host watch
  datacentered host watch --selector role=web -o json     one JSON object a line")]
    Watch {
        /// Only hosts that it matches; repeat it for a union
        #[arg(long = "selector", value_name = "S")]
        selectors: Vec<String>,
    },
}

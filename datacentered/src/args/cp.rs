//! `cp ...`.

use std::ffi::OsString;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::text::endpoint::{self, Endpoint};

/// `cp ...`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered cp nginx.conf web1:/etc/nginx/
  datacentered cp web1:/var/log/syslog .
  datacentered cp -r -p site web1:/srv/www
  datacentered cp --on 'web-*' motd :/etc/motd              to every host that matches
  datacentered cp --on 'role=db' -r :/etc/postgresql backup   from each into backup/HOST/
  datacentered cp --resume big.img web1:/srv/big.img        goes on with a copy that was interrupted

HOST:PATH is a file on a host, :PATH one on every host of --on; everything else is a file here
(./a:b for a name with a colon). A path without a leading slash begins in the home directory of
the agent's user. A destination that is a directory, or ends in a slash, gets the source's name.

A file has its name only when it is whole: it is written beside its place, its SHA-256 is compared
with the source's, it is synced, and takes its place in one step. A lost connection to the hub, to
a host, or a restart of either goes on where it was; --resume does so after cp itself has ended.

A new file has the source's permissions; one that is replaced keeps those that it had, unless -p.
Symbolic links in trees are copied as links, and nothing is ever written through one.

Exit codes: 0 all copied, 1 something was not, 2 usage or no such host, 3 hub not reachable,
4 not allowed.")]
pub(crate) struct Cp {
    /// Copies directories with all that is in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Keeps permissions and times, and owners where the receiving side is root
    #[arg(short, long)]
    pub(crate) preserve: bool,
    /// The hosts that :PATH means; repeat it for a union
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) on: Vec<String>,
    /// Goes on with what an interrupted copy of the same file has left
    #[arg(long)]
    pub(crate) resume: bool,
    /// Most hosts that are copied to or from at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) max_parallel: u16,
    /// What to copy, and where to last
    #[arg(
        required = true,
        num_args = 2..,
        value_names = ["SRC", "DST"],
        value_parser = OsStringValueParser::new().try_map(parse)
    )]
    pub(crate) paths: Vec<Endpoint>,
}

fn parse(text: OsString) -> Result<Endpoint, endpoint::NotAPath> {
    endpoint::parse(&text)
}

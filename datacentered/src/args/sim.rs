//! `sim`.

use std::time::Duration;

use clap::Args;
use datacentered_sim::Fault;

use crate::text::{duration, size};

/// `sim`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  datacentered sim --hosts 1000                      what a thousand hosts cost a hub on this machine
  datacentered sim --hosts 500 --output-size 64K --rate 5
  datacentered sim --hosts 200 --fault disconnect=5s --fault lie --faulty 10
  datacentered sim --hosts 50 --seed 7 -o json       the same hosts fail, the same way
  datacentered --hub hub.example.net:7272 sim --hosts 100 --join-token @join.token

Without --join-token it starts a hub of its own, kills it once to see all hosts come back, and
removes everything at the end. With it, the hosts join the hub that --hub or the context names (with
your login, to run commands on them), and leave its registry at the end. The token must do for as
many hosts: datacentered token create --join --uses N.

Every host is a real connection with a key of its own; what it runs is simulated, nothing is
executed. Commands go to the simulated hosts only.

Faults: delay[=D] answers late; disconnect[=D] loses its link every so often; lie reports jobs that
it does not have and journals that go back; flood[=SIZE] prints so much in every command as fast as
it may; skew[=D] has a clock that is ahead.")]
pub(crate) struct Sim {
    /// How many hosts
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub(crate) hosts: u32,
    /// Something that goes wrong: delay[=D], disconnect[=D], lie, flood[=SIZE] or skew[=D]; repeat it for several
    #[arg(long = "fault", value_name = "KIND[=ARG]")]
    pub(crate) faults: Vec<Fault>,
    /// How many hosts of a hundred have the faults
    #[arg(long, value_name = "P", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) faulty: u8,
    /// How long commands are run on all hosts
    #[arg(long, value_name = "D", default_value = "10s", value_parser = duration::parse)]
    pub(crate) duration: Duration,
    /// Commands in a second, at most
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rate: u32,
    /// How much each command prints on each host
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size::parse)]
    pub(crate) output_size: u64,
    /// How long each command takes on each host
    #[arg(long, value_name = "D", default_value = "0s", value_parser = duration::parse)]
    pub(crate) takes: Duration,
    /// Where everything that is drawn comes from [default: a random one, which is printed]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Join a hub that runs already, with this token
    #[arg(long, value_name = "T|@FILE|-")]
    pub(crate) join_token: Option<String>,
}

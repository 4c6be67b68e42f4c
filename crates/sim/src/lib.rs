//! Simulated fleets: many hosts in one process, each a real link of its own to a real hub.
//!
//! A simulated host has its own key, joins through a join token over TLS as an agent does, keeps a journal (in memory), and
//! answers what a hub calls on an agent. What it runs is scripted: nothing is executed, so that one process stands for
//! thousands of hosts. What the hub sees is what it sees of agents; what a host costs itself is not simulated.
//!
//! ```text
//! Fleet ── Host ── dial, enrol        one link, made again with the agents' own backoff and the hub's slot
//!           │
//!           ├──── serve ── journal    what a hub calls on an agent
//!           └──── lie                 what no honest agent says
//! ```
//!
//! Faults ([`Fault`]) fall on a drawn part of the hosts. Everything that is drawn comes from one seed; keys alone are random
//! each time.
//!
//! Architecture invariant: nothing here is started without an owner: a [`Fleet`] that is stopped leaves nothing behind.

mod board;
mod dial;
mod enrol;
mod facts;
mod fault;
mod fleet;
mod host;
mod job;
mod journal;
mod lie;
pub mod nofile;
mod output;
mod serve;
mod stats;

pub use datacentered_agent_lib::identity::{InvalidToken, JoinToken};
pub use fault::{Fault, Faults, NotAFault};
pub use fleet::{Fleet, FleetConfig, Script, SimError};
pub use stats::{Snapshot, Spread};

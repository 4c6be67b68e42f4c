//! The host's server: its link to the hub, its journal, and the processes that outlive it.
//!
//! ```text
//!            run  ── identity ── config              what the programs call: join, start
//!             │
//!          hub_link ── facts                         dials the hub, reports, comes back
//!             │
//!           serve                                    answers what the hub calls
//!             │
//!            jobs ── policy, journal, spool          accepted durably, started once, one outcome each
//!             │
//!           shim ── process, cgroup, sys             one small process for each command, outlives the agent
//! ```
//!
//! - [`run`] is the agent's main; [`shim::main`] is the main of the hidden subcommand `shim`, which every program that
//!   runs an agent has to offer, before it does anything else.
//! - [`identity`] is the host's key and what the hub said at the enrolment; [`config`] is `agent.toml`.
//! - [`hub_link`] keeps the link up and tells the hub every change of a job until the hub has answered.
//! - [`policy`] is the host's last word: what it refuses, whatever the hub says.
//! - [`jobs`] knows nothing of the hub: a link that comes and goes is no concern of a command's.
//!
//! Architecture invariant: the agent dials out and opens no port.
//!
//! Architecture invariant: only this crate starts processes, and only a shim owns one.
//!
//! Architecture invariant: what has been promised to the hub is on disk before the promise; what the hub has been told is
//! told again until the hub has it on its own disk.
//!
//! Architecture invariant: every queue, table and buffer has a limit with a name in [`config`].

pub mod announce;
pub mod boot;
pub mod cgroup;
pub mod config;
pub mod facts;
pub mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod hub_link;
pub mod identity;
pub mod jobs;
pub mod journal;
pub mod policy;
pub mod process;
mod range;
pub mod run;
pub mod serve;
pub mod shim;
pub mod spool;
pub mod sys;
mod text;

//! The hub: the central server that hosts and clients connect to.
//!
//! One module per noun, all of the same shape: its state, its operations (`ops.rs`, registered in one table), its tests.
//! A call goes from `server` (ports, TLS, limits) or `web` (HTTP) through [`dispatch`] (authorisation, idempotency, audit)
//! to a noun's handler; whatever changes goes through [`store`] as one atomic batch. Hosts' links are in [`hosts`], what
//! happens on them in [`jobs`].

pub mod access;
mod audit;
pub mod backup;
pub mod config;
pub mod dispatch;
mod events;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod hosts;
pub mod hub;
pub mod identity;
pub mod jobs;
mod metrics;
mod outlet;
mod runs;
mod server;
pub mod sessions;
mod status;
pub mod store;
mod supervise;
mod terminals;
#[cfg(test)]
mod tests;
mod web;

pub use backup::restore;
pub use config::HubOptions;
pub use hub::{HubError, start};

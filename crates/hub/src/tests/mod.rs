//! The hub as a whole, with agents that tests script: over real links, without ports or processes.

mod agent;
mod clients;
mod faults;
mod files;
mod hosts;
mod idempotency;
mod jobs;
mod permissions;
mod recovery;
mod restore;
mod roles;
mod simulation;
mod streams;
mod terminals;
mod world;

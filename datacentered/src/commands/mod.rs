//! Every command, one module per noun.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod call;
pub(crate) mod context;
pub(crate) mod cp;
pub(crate) mod demo;
pub(crate) mod event;
pub(crate) mod host;
pub(crate) mod hub;
pub(crate) mod login;
pub(crate) mod role;
pub(crate) mod run;
pub(crate) mod sim;
pub(crate) mod terminal;
mod throwaway;
mod watch;

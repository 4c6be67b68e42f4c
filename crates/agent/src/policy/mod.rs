//! The host's last word: `policy.toml`, by which the host refuses jobs whatever the hub says.
//!
//! ```text
//!   file      re-reads policy.toml where it changed; a broken one never loosens anything
//!    │
//!   parse ─── window, glob        from TOML to rules, every mistake with its line
//!    │
//!   rules     which rule decides a question: pure
//!    │
//!   question  what is asked: from a job's description, or from `policy check`
//! ```
//!
//! Architecture invariant: decisions are pure; the clock, the user database and the disk are read by whoever asks.

mod check;
mod error;
mod file;
mod glob;
mod parse;
mod question;
mod rules;
mod window;

pub use check::{CheckError, CheckOptions, Explained, explain};
pub use error::PolicyError;
pub use file::{PolicyFile, default_path};
pub use question::{Kind, LocalTime, Question, Who};
pub use rules::{Action, Decision, Policy};

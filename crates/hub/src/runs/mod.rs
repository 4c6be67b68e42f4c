//! Runs: a request to do something on one or many hosts, its frozen targets, and what became of each.

mod create;
mod finish;
mod input;
mod ops;
mod output;
mod pump;
mod retention;
mod validate;
mod views;
mod watch;

pub use finish::{adopt, end_with_last_job, job_ended};
pub use ops::register;
pub use pump::{Pump, expire_jobs, host_connected, resume_runs};
pub use retention::keep_history_bounded;

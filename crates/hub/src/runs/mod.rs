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

pub(crate) use create::create_on;
pub(crate) use finish::{adopt, end_with_last_job, job_ended};
pub(crate) use ops::register;
pub(crate) use output::{left_scope, write as write_output};
pub(crate) use pump::{Pump, expire_jobs, host_connected, pump_when_fleet_is_back, resume_runs};
pub(crate) use retention::keep_history_bounded;
pub(crate) use validate::check_window;
pub(crate) use views::{find, summary, visible};

//! Jobs: the part of a run on one host. What the host reports is the truth; the hub keeps it and its output.
//!
//! A job's outcome is decided in [`machine`] (what a report or a reconciliation means) and written in [`end`] (the one
//! compare-and-set that ends a job). Everything else moves jobs along: [`offer`] hands them to hosts, [`reconcile`]
//! compares both sides when a link comes up, [`output`] and [`input`] move bytes.

mod end;
mod input;
pub mod machine;
mod offer;
mod output;
mod progress;
mod pull;
mod reconcile;
mod report;
mod typed;

pub use end::{Ending, end_job};
pub(crate) use machine::Journal;
pub use offer::{Offers, send_offers};
pub use output::{output_log, read_output};
pub use progress::{Progress, Progresses, persist_progress};
pub(crate) use reconcile::{catch_up, compare, host_removed, open_jobs, settle_removed_hosts};
pub use report::register;

pub(crate) use input::{TAG_DATA, TAG_END, TAG_TYPED, feed, input_log};
pub(crate) use output::{Chunk, Outputs, give_up_output};
pub(crate) use reconcile::cancel_on_host;
pub(crate) use typed::Typed;

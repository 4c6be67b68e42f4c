//! What people write and read: durations, sizes, selectors, signals, labels, times.

pub(crate) mod ago;
pub(crate) mod clean;
pub(crate) mod duration;
pub(crate) mod endpoint;
pub(crate) mod keys;
pub(crate) mod outcome;
pub(crate) mod pairs;
pub(crate) mod selector;
pub(crate) mod short_id;
pub(crate) mod signal;
pub(crate) mod size;

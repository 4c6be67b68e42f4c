//! Which values a setting may have.

/// A value and what it may be.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) name: &'static str,
    pub(crate) value: u64,
    pub(crate) least: u64,
    pub(crate) most: u64,
}

impl Range {
    /// `name` is `table.name`, as the user finds it in the file.
    pub(crate) fn new(name: &'static str, value: u64, least: u64, most: u64) -> Self {
        Self { name, value, least, most }
    }
}

//! What a command starts and takes away again: processes of this same program, with their state in one directory.

pub(crate) mod place;
pub(crate) mod server;

//! The async runtimes, by what they carry.

use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, Result};

/// For a client command: one thread, which is up at once. Blocking writes have threads of their own.
pub(crate) fn client() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(failed)
}

/// For a server: as many threads as there are processors.
pub(crate) fn server() -> Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().map_err(failed)
}

fn failed(error: io::Error) -> Failure {
    Failure::failed(format!("cannot start: {error}"))
}

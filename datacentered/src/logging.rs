//! The log of the servers, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, such as `debug` or `datacentered_hub=debug,info`.
const VARIABLE: &str = "DATACENTERED_LOG";

/// What is logged where nothing is said: of the store's own steps only what needs a look.
const DEFAULT: &str = "info,fjall=warn,lsm_tree=warn";

/// For a server: what happens, with its time.
pub(crate) fn server() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    install(filter);
}

/// For a client command: nothing, unless it is asked for.
pub(crate) fn client() {
    if let Ok(filter) = EnvFilter::try_from_env(VARIABLE) {
        install(filter);
    }
}

fn install(filter: EnvFilter) {
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
    // It is called once; a second call would find the log installed already.
    debug_assert!(installed.is_ok());
}

//! The log: to standard error, standard output belongs to scripts.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

use crate::args::LogFormat;

/// Starts the log of the process.
pub(crate) fn start(levels: &Targets, format: LogFormat) {
    let registry = Registry::default().with(levels.clone());
    match format {
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).init(),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            registry
                .with(fmt::layer().with_ansi(colours).with_target(false).with_writer(std::io::stderr))
                .init();
        }
    }
}

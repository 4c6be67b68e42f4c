//! `hub start` and `hub restore`: this process as the hub.

use std::path::PathBuf;

use datacentered_hub::{HubError, HubOptions};

use crate::args::server::HubStart;
use crate::connect;
use crate::failure::{Failure, Result};
use crate::text::clean::clean;
use crate::ui::Ui;
use crate::{logging, runtime};

/// `hub start`: runs until SIGTERM or SIGINT.
pub(crate) fn start(ui: Ui, start: HubStart) -> Result<()> {
    logging::server();
    let options = HubOptions {
        data_dir: data_dir(start.data_dir.data_dir)?,
        listen: start.listen,
        listen_plain: start.listen_plain,
        engine: start.engine,
        tls_cert: start.tls_cert,
        tls_key: start.tls_key,
        json_events: ui.json(),
    };
    runtime::server()?.block_on(datacentered_hub::start(options)).map_err(|error| match &error {
        HubError::Config(_) | HubError::NoSuchEngine(_) => Failure::usage(Failure::chain(&error)),
        _ => Failure::failed(Failure::chain(&error)),
    })
}

/// `hub restore FILE`.
pub(crate) fn restore(ui: Ui, file: PathBuf, given: Option<PathBuf>) -> Result<()> {
    let directory = data_dir(given)?;
    let restored = datacentered_hub::restore(&directory, &file)
        .map_err(|error| Failure::failed(Failure::chain(&error)))?;
    ui.reply(&restored, || {
        format!("restored {}, as it was at {}", directory.display(), clean(&restored.backup_at.to_string()))
    })
}

fn data_dir(given: Option<PathBuf>) -> Result<PathBuf> {
    given.map_or_else(connect::default_data_dir, Ok)
}

//! `agent join` and `agent start`: this process as the agent; and the hidden `shim`.

use std::ffi::OsStr;
use std::process::ExitCode;

use datacentered_agent_lib::run::{self, JoinOptions, RunError, StartOptions};
use datacentered_agent_lib::shim;

use crate::args::server::Agent;
use crate::failure::{Exit, Failure, Result};
use crate::logging;
use crate::ui::Ui;

/// The first argument of a process that the agent starts for a job.
const SHIM: &str = "shim";

/// This process as a shim, where the agent started it as one. Before anything else: a shim stays small.
pub(crate) fn as_shim() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next().as_deref() == Some(OsStr::new(SHIM))).then(|| shim::main(args))
}

/// `agent ...`: runs until SIGTERM or SIGINT.
pub(crate) fn run(ui: Ui, token: Option<String>, command: Agent) -> Result<()> {
    logging::server();
    let json = ui.json();
    let ended = match command {
        Agent::Join(join) => run::block_on(run::join(JoinOptions {
            url: join.url,
            token,
            name: join.name,
            labels: join.labels.into_iter().collect(),
            run: StartOptions { data_dir: join.data_dir.data_dir, json },
        })),
        Agent::Start { data_dir } => {
            run::block_on(run::start(StartOptions { data_dir: data_dir.data_dir, json }))
        }
    };
    ended.map_err(|error: RunError| {
        Failure::failed(Failure::chain(&error)).exit(Exit::Code(error.exit_code()))
    })
}

//! `agent join` and `agent start`: this process as the agent; and the hidden `shim`.

use std::ffi::OsStr;
use std::process::ExitCode;

use datacentered_agent_lib::policy::{self, CheckOptions};
use datacentered_agent_lib::run::{self, JoinOptions, RunError, StartOptions};
use datacentered_agent_lib::shim;

use crate::args::server::{Agent, AgentPolicy, AgentPolicyCheck};
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

/// `agent ...`: runs until SIGTERM or SIGINT; `agent policy` answers at once.
pub(crate) fn run(ui: Ui, token: Option<String>, command: Agent) -> Result<()> {
    let json = ui.json();
    let ended = match command {
        Agent::Policy(AgentPolicy::Check(check)) => return explain(ui, *check),
        Agent::Join(join) => {
            logging::server();
            run::block_on(run::join(JoinOptions {
                url: join.url,
                token,
                name: join.name,
                labels: join.labels.into_iter().collect(),
                run: StartOptions { data_dir: join.data_dir.data_dir, policy: join.policy.policy, json },
            }))
        }
        Agent::Start { data_dir, policy } => {
            logging::server();
            let options = StartOptions { data_dir: data_dir.data_dir, policy: policy.policy, json };
            run::block_on(run::start(options))
        }
    };
    ended.map_err(|error: RunError| {
        Failure::failed(Failure::chain(&error)).exit(Exit::Code(error.exit_code()))
    })
}

/// `agent policy check`: 0 allowed, 1 refused, 2 a mistake.
fn explain(ui: Ui, check: AgentPolicyCheck) -> Result<()> {
    let options = CheckOptions {
        policy: check.policy.policy,
        data_dir: check.data_dir.data_dir,
        user: check.user,
        terminal: check.terminal,
        at: check.at,
        script: check.script,
        env: check.env,
        argv: check.argv,
    };
    let explained = policy::explain(&options).map_err(|error| Failure::usage(Failure::chain(&error)))?;
    if ui.json() {
        ui.document(&serde_json::json!({ "allowed": explained.allowed, "text": explained.text }))?;
    } else {
        ui.line(&explained.text)?;
    }
    if explained.allowed { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

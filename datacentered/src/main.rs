//! Hub, agent, demo and every client command in one program.

mod agent_command;
mod args;
mod commands;
mod connect;
mod contexts;
mod failure;
mod hub_command;
mod logging;
mod man;
mod runtime;
mod secret;
mod text;
mod ui;

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use args::server::Hub;
use args::{Cli, Command, Format, Global};
use failure::{Exit, Result};
use ui::Ui;

/// The section of commands that everybody uses.
const MAN_SECTION: &str = "1";

fn main() -> ExitCode {
    if let Some(ended) = agent_command::as_shim() {
        return ended;
    }
    let Cli { global, command } = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let ui = Ui::new(global.output);
    match dispatch(ui, &global, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Help and version are data; a wrong command line is not. Nobody is left to tell when neither can be printed.
fn usage(error: &clap::Error) -> ExitCode {
    if let Some(failure) = args::run::forgotten_dashes(error, std::env::args_os()) {
        Ui::new(Format::Table).failure(&failure);
        return failure.exit.into();
    }
    error.print().ok();
    if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS }
}

fn dispatch(ui: Ui, global: &Global, command: Command) -> Result<()> {
    match command {
        Command::Completions(completions) => {
            let mut script = Vec::new();
            clap_complete::generate(completions.shell, &mut Cli::command(), "datacentered", &mut script);
            Ok(io::Write::write_all(&mut io::stdout().lock(), &script)?)
        }
        Command::Man(args::client::Man { dir: Some(dir) }) => {
            Ok(man::write(Cli::command(), MAN_SECTION, &dir)?)
        }
        Command::Man(args::client::Man { dir: None }) => {
            let pages = man::pages(Cli::command(), MAN_SECTION);
            let first = pages.first().map(|page| page.text.as_bytes()).unwrap_or_default();
            Ok(io::Write::write_all(&mut io::stdout().lock(), first)?)
        }
        Command::Context(command) => commands::context::run(ui, global, command),
        Command::Hub(Hub::Start(start)) => hub_command::start(ui, *start),
        Command::Hub(Hub::Restore { file, data_dir }) => hub_command::restore(ui, file, data_dir.data_dir),
        Command::Agent(command) => agent_command::run(ui, global.token.clone(), command),
        Command::Demo(demo) => client(commands::demo::run(ui, demo)),
        Command::Sim(sim) => {
            logging::client();
            // The hosts share this process, so that it is as busy as a server.
            runtime::server()?.block_on(commands::sim::run(ui, global, *sim))
        }
        Command::Login(login) => client(commands::login::login(ui, global, login)),
        Command::Whoami => client(commands::login::whoami(ui, global)),
        Command::Logout => client(commands::login::logout(ui, global)),
        Command::User(command) => client(commands::access::user(ui, global, command)),
        Command::Role(command) => client(commands::role::role(ui, global, command)),
        Command::Token(command) => client(commands::access::token(ui, global, command)),
        Command::Audit(command) => client(commands::audit::run(ui, global, command)),
        Command::Host(command) => client(commands::host::run(ui, global, command)),
        Command::Run(run) => client(commands::run::run(ui, global, *run)),
        Command::Shell(shell) => client(commands::terminal::shell(ui, global, *shell)),
        Command::Terminal(command) => client(commands::terminal::run(ui, global, command)),
        Command::Cp(command) => client(commands::cp::run(ui, global, command)),
        Command::Event(command) => client(commands::event::run(ui, global, command)),
        Command::Call(call) => client(commands::call::run(ui, global, call)),
        Command::Operation(command) => client(commands::call::operation(ui, global, command)),
        Command::Hub(Hub::Status) => client(commands::hub::status(ui, global)),
        Command::Hub(Hub::Backup { file, force }) => client(commands::hub::backup(ui, global, file, force)),
    }
}

/// Runs a client command to its end.
fn client(command: impl Future<Output = Result<()>>) -> Result<()> {
    logging::client();
    let runtime = runtime::client()?;
    let result = runtime.block_on(command);
    // A read of standard input or a write to a full pipe may still be under way; the process ends all the same.
    runtime.shutdown_background();
    result
}

//! Hub, agent, demo and every client command in one program.

mod args;
mod commands;
mod connect;
mod contexts;
mod failure;
mod runtime;
mod secret;
mod text;
mod ui;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command, Global, server};
use failure::{Exit, Failure, Result};
use ui::Ui;

fn main() -> ExitCode {
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let ui = Ui::new(global.output);
    match dispatch(&ui, &global, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Help and version are data; a wrong command line is not. Nobody is left to tell when neither can be printed.
fn usage(error: &clap::Error) -> ExitCode {
    error.print().ok();
    if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS }
}

fn dispatch(ui: &Ui, global: &Global, command: Command) -> Result<()> {
    match command {
        Command::Completions(completions) => {
            let mut script = Vec::new();
            clap_complete::generate(completions.shell, &mut Cli::command(), "datacentered", &mut script);
            Ok(io::Write::write_all(&mut io::stdout().lock(), &script)?)
        }
        Command::Context(command) => commands::context::run(ui, global, command),
        command => {
            let runtime = runtime::client()?;
            let result = runtime.block_on(client_command(ui, global, command));
            // A read of standard input or a write to a full pipe may still be under way; the process ends all the same.
            runtime.shutdown_background();
            result
        }
    }
}

async fn client_command(ui: &Ui, global: &Global, command: Command) -> Result<()> {
    match command {
        Command::Demo(demo) => commands::demo::run(ui, demo).await,
        Command::Login(login) => commands::login::login(ui, global, login).await,
        Command::Logout => commands::login::logout(ui, global).await,
        Command::User(command) => commands::access::user(ui, global, command).await,
        Command::Role(command) => commands::access::role(ui, global, command).await,
        Command::Token(command) => commands::access::token(ui, global, command).await,
        Command::Audit(command) => commands::audit::run(ui, global, command).await,
        Command::Host(command) => commands::host::run(ui, global, command).await,
        Command::Run(run) => commands::run::run(ui, global, *run).await,
        Command::Event(command) => commands::event::run(ui, global, command).await,
        Command::Call(call) => commands::call::run(ui, global, call).await,
        Command::Operation(command) => commands::call::operation(ui, global, command).await,
        Command::Hub(server::Hub::Status) => commands::hub::status(ui, global).await,
        Command::Hub(server::Hub::Backup { file }) => commands::hub::backup(ui, global, file).await,
        Command::Hub(server::Hub::Start(_) | server::Hub::Restore { .. })
        | Command::Agent(_)
        | Command::Completions(_)
        | Command::Context(_) => Err(Failure::failed("this is not a client command")),
    }
}

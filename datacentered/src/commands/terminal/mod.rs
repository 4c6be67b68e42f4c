//! `shell` and `terminal`: interactive programs on hosts, which go on without whoever opened them.

mod attach;
mod cast;
mod list;
mod modes;
mod play;
mod raw;
mod recording;
mod screen;
mod typing;
mod utf8;

use std::os::unix::ffi::OsStringExt;

use datacentered_client::{Client, TerminalStart};
use datacentered_proto::operations::{RunShow, TerminalOpen};
use datacentered_proto::ops::job::{ExecSpec, TerminalSpec};
use datacentered_proto::ops::run::{RunReply, ShowParams};
use datacentered_proto::ops::terminal::OpenParams;
use datacentered_proto::{ByteString, RunId};

use crate::args::Global;
use crate::args::terminal::{How, Shell, Terminal};
use crate::commands::run::{as_ssh, resolve};
use crate::connect;
use crate::failure::{Failure, Result};
use crate::ui::Ui;
use attach::{Attach, Begin};

/// `shell ...`.
pub(crate) async fn shell(ui: Ui, global: &Global, shell: Shell) -> Result<()> {
    if global.token.as_deref() == Some("-") {
        return Err(as_ssh(
            Failure::usage("standard input cannot be both the token and what is typed")
                .hint("give the token as --token @FILE"),
        ));
    }
    let result = async {
        let client = connect::connect(global).await?;
        let result = open_or_come_back(ui, &client, shell).await;
        connect::finish(client, result).await
    };
    result.await.map_err(as_ssh)
}

async fn open_or_come_back(ui: Ui, client: &Client, mut shell: Shell) -> Result<()> {
    let how = shell.how.clone();
    if let Some(id) = &shell.attach {
        return come_back(ui, client, id, how).await;
    }
    let host = shell.host.take().unwrap_or_default();
    let exec = exec(shell);
    let key = client.clock().run_id();
    let opened = client.call::<TerminalOpen>(&OpenParams { key, host, exec }).await?;
    Attach { ui, client, run: opened.run, how, begin: Begin::New }.follow().await
}

/// What is executed.
fn exec(shell: Shell) -> ExecSpec {
    let bytes = |text: std::ffi::OsString| ByteString(text.into_vec());
    let mut exec = ExecSpec::command(shell.argv.into_iter().map(bytes).collect());
    exec.env = shell.env.into_iter().collect();
    exec.cwd = shell.cwd.map(bytes);
    exec.user = shell.user;
    exec.terminal = Some(TerminalSpec { window: raw::window().unwrap_or(raw::DEFAULT_WINDOW), term: term() });
    exec
}

/// The kind of terminal that this process runs in.
fn term() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    std::env::var("TERM")
        .ok()
        .filter(|term| !term.is_empty() && term.len() <= 64 && term.chars().all(plain))
        .unwrap_or_else(|| "xterm-256color".into())
}

async fn come_back(ui: Ui, client: &Client, id: &str, how: How) -> Result<()> {
    let run = resolve(client, id).await?;
    let shown = show(client, run).await?;
    let end = shown.targets.first().map_or(0, |target| target.stored_bytes);
    Attach { ui, client, run, how, begin: Begin::Again { end } }.follow().await
}

/// A terminal as it stands; whatever else it is, the hub says.
async fn show(client: &Client, run: RunId) -> Result<RunReply> {
    Ok(client.call::<RunShow>(&ShowParams { run, limit: None, next: None }).await?)
}

/// `terminal ...`.
pub(crate) async fn run(ui: Ui, global: &Global, command: Terminal) -> Result<()> {
    let attaches = matches!(command, Terminal::Attach { .. });
    let result = async {
        let client = connect::connect(global).await?;
        let result = follow_up(ui, &client, command).await;
        connect::finish(client, result).await
    };
    let result = result.await;
    if attaches { result.map_err(as_ssh) } else { result }
}

async fn follow_up(ui: Ui, client: &Client, command: Terminal) -> Result<()> {
    match command {
        Terminal::List { limit, host, active } => list::list(ui, client, limit, host, active).await,
        Terminal::Attach { id, how } => come_back(ui, client, &id, how).await,
        Terminal::Play { id, speed, max_idle } => {
            let run = resolve(client, &id).await?;
            play::play(ui, client, run, speed, max_idle).await
        }
        Terminal::Export { id, file } => {
            let run = resolve(client, &id).await?;
            cast::export(ui, client, run, file).await
        }
    }
}

impl Begin {
    fn start(self) -> TerminalStart {
        match self {
            Self::New => TerminalStart::From(0),
            Self::Again { .. } => TerminalStart::Tail(screen::TAIL),
        }
    }
}

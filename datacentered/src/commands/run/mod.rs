//! `run`: commands on hosts, and what became of them.

mod cancel;
mod create;
mod group;
pub(crate) mod input;
mod many;
mod pool;
mod prefix;
pub(crate) mod report;
mod single;
mod wait;

use datacentered_client::Client;
use datacentered_proto::RunId;
use datacentered_proto::operations::{RunAbandon, RunCancel, RunList, RunSignal};
use datacentered_proto::ops::run as wire;
use serde::Serialize;

use crate::args::Global;
use crate::args::run::{Run, RunCommand};
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::text::clean::clean;
use crate::text::short_id::{self, Unresolved};
use crate::text::{outcome, selector};
use crate::ui::Ui;
use cancel::OnInterrupt;
pub(crate) use cancel::cancel as cancel_run;
pub(crate) use prefix::Lines;
use report::Document;
pub(crate) use wait::ended as wait_for;

/// Runs that are searched for the beginning of an id.
const SEARCHED: u32 = 1000;

/// `run ...`.
pub(crate) async fn run(ui: Ui, global: &Global, run: Run) -> Result<()> {
    let Some(command) = run.command else { return create::run(ui, global, run.create).await };
    if !run.create.on.is_empty() || !run.create.argv.is_empty() {
        return Err(Failure::usage(
            "--on and a command do not go with 'list', 'show', 'attach' and the others",
        )
        .hint("to run a command of that name, put it behind '--'"));
    }
    let client = connect::connect(global).await?;
    let result = follow_up(ui, &client, command).await;
    connect::finish(client, result).await
}

async fn follow_up(ui: Ui, client: &Client, command: RunCommand) -> Result<()> {
    match command {
        RunCommand::List { limit, host, active } => list(ui, client, limit, host, active).await,
        RunCommand::Show { id } => {
            let run = resolve(client, &id).await?;
            let document = Document::load(client, run, None).await?;
            ui.reply(&document, || document.text(connect::now()))
        }
        RunCommand::Attach { id, host, from, group } => {
            let run = resolve(client, &id).await?;
            attach(ui, client, run, host, from, group).await
        }
        RunCommand::Cancel { id, hosts } => {
            let run = resolve(client, &id).await?;
            let reply = client
                .call::<RunCancel>(&wire::CancelParams { key: client.clock().key(), run, hosts })
                .await?;
            reached(ui, reply, "cancelled", "will be cancelled when their host is back")
        }
        RunCommand::Signal { id, signal, hosts } => {
            let run = resolve(client, &id).await?;
            let params = wire::SignalParams { key: client.clock().key(), run, signal, hosts };
            let reply = client.call::<RunSignal>(&params).await?;
            reached(ui, reply, "signalled", "could not be told")
        }
        RunCommand::Abandon { id, hosts } => {
            let run = resolve(client, &id).await?;
            let reply = client
                .call::<RunAbandon>(&wire::AbandonParams { key: client.clock().key(), run, hosts })
                .await?;
            reached(ui, reply, "given up", "are still under way")
        }
    }
}

fn reached(ui: Ui, reply: wire::ReachedReply, done: &str, pending: &str) -> Result<()> {
    ui.reply(&reply, || match (reply.targets, reply.pending) {
        (targets, 0) => format!("{targets} {done}"),
        (targets, left) => format!("{targets} {done}, {left} {pending}"),
    })
}

#[derive(Serialize)]
struct Listed {
    runs: Vec<wire::RunSummary>,
}

async fn list(ui: Ui, client: &Client, limit: u32, host: Option<String>, active: bool) -> Result<()> {
    let mut listed = Listed { runs: Vec::new() };
    let mut next = None;
    loop {
        let left = limit.saturating_sub(u32::try_from(listed.runs.len()).unwrap_or(u32::MAX));
        let page = left.min(datacentered_proto::limits::MAX_PAGE);
        let params = wire::ListParams { limit: Some(page), next, host: host.clone(), active };
        let mut reply = client.call::<RunList>(&params).await?;
        listed.runs.append(&mut reply.runs);
        next = reply.next;
        if next.is_none() || listed.runs.len() >= limit as usize {
            break;
        }
    }
    if ui.json() {
        ui.document(&listed.runs)?;
    } else if !listed.runs.is_empty() {
        ui.line(&report::list(ui, &listed.runs, connect::now()))?;
    }
    match host {
        Some(host) if listed.runs.is_empty() => {
            let which = if active { "no run that has not ended" } else { "no run" };
            Err(Failure::usage(format!("{which} has a target on '{}'", clean(&host)))
                .hint("'datacentered host list' shows the hosts"))
        }
        None if listed.runs.is_empty() && active => {
            ui.advice("no run is under way: datacentered run list shows those that have ended");
            Ok(())
        }
        None if listed.runs.is_empty() => {
            ui.advice("no runs yet: datacentered run --on all -- uptime");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The run that an id, or the beginning of one, names.
pub(crate) async fn resolve(client: &Client, text: &str) -> Result<RunId> {
    if let Ok(run) = text.parse() {
        return Ok(run);
    }
    if text.len() < short_id::SHORTEST {
        return Err(Failure::usage(format!("'{text}' is too short for the id of a run"))
            .hint("'datacentered run list' shows the ids"));
    }
    let params = wire::ListParams { limit: Some(SEARCHED), ..wire::ListParams::default() };
    let runs: Vec<RunId> = client.call::<RunList>(&params).await?.runs.iter().map(|run| run.run).collect();
    short_id::find(text, &runs).map_err(|unresolved| match unresolved {
        Unresolved::None => Failure::usage(format!("no run begins with '{text}'")).hint(format!(
            "the latest {SEARCHED} runs were searched; older ones are found by their whole id"
        )),
        Unresolved::Several => {
            Failure::usage(format!("more than one run begins with '{text}'")).hint("give more of the id")
        }
    })
}

async fn attach(
    ui: Ui,
    client: &Client,
    run: RunId,
    host: Option<String>,
    from: u64,
    group: bool,
) -> Result<()> {
    let interrupts = cancel::Interrupts::catch()?;
    let following = Following { ui, client, run, interrupts, on_interrupt: OnInterrupt::Leave, stdin: false };
    if ui.json() {
        return wait::follow(following, host.is_some()).await;
    }
    if let Some(host) = host {
        return single::follow(following, Some(host), from).await.map_err(as_ssh);
    }
    let document = Document::load(client, run, None).await?;
    match document.targets.as_slice() {
        [_] if selector::literal(&document.summary.on).is_some() => {
            single::follow(following, None, from).await.map_err(as_ssh)
        }
        _ if from > 0 => {
            Err(Failure::usage("--from is a place in the output of one host: name it with --host"))
        }
        _ => many::follow(following, document, group).await,
    }
}

/// A run that is being followed to its end.
struct Following<'a> {
    ui: Ui,
    client: &'a Client,
    run: RunId,
    interrupts: cancel::Interrupts,
    on_interrupt: OnInterrupt,
    /// Whether this process's standard input is passed on.
    stdin: bool,
}

/// On one literally named host everything that is not the command's own end is 255, as with ssh.
pub(crate) fn as_ssh(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Code(_) | Exit::BrokenPipe => failure,
        _ => failure.exit(Exit::Code(255)),
    }
}

/// What the process ends with when one target has ended.
pub(crate) fn ssh_exit(outcome: &datacentered_proto::Outcome) -> Result<()> {
    match outcome::ssh_code(outcome) {
        0 => Ok(()),
        code => Err(Failure::silent(Exit::Code(code))),
    }
}

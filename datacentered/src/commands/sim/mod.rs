//! `sim`: a simulated fleet against a hub of its own, or against one that runs already; and what that costs.

mod hub;
mod measure;
mod process;
mod report;

use std::time::Duration;

use datacentered_agent_lib::identity::read_token;
use datacentered_client::{Client, Clock};
use datacentered_proto::operations::HostRemove;
use datacentered_proto::ops::host::ChangeParams;
use datacentered_sim::{Fleet, FleetConfig, JoinToken, Script, SimError, nofile};
use tokio::signal::unix::{SignalKind, signal};

use super::throwaway::place::Place;
use crate::args::Global;
use crate::args::sim::Sim;
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::ui::Ui;
use hub::{Foreign, Own, Target};
use report::Report;

/// The label by which the hosts of one simulation are known: commands go to no other host.
const LABEL: &str = "datacentered-sim";

/// How long what is counted on may take to come true: hosts connected, hosts back.
const PATIENCE: Duration = Duration::from_mins(5);

/// `sim`.
pub(crate) async fn run(ui: Ui, global: &Global, sim: Sim) -> Result<()> {
    let seed = sim.seed.unwrap_or_else(|| Clock::system().random() >> 32);
    ui.advice(&format!("seed {seed}"));
    // A hub of our own inherits the limit.
    nofile::make_room(sim.hosts as usize).map_err(|error| Failure::failed(error.to_string()))?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let ended = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    if let Some(token) = &sim.join_token {
        let token = read_token(token).map_err(|error| Failure::usage(Failure::chain(&error)))?;
        foreign(ui, global, &sim, seed, token, ended).await
    } else {
        refuse_hub_without_token(global)?;
        own(ui, &sim, seed, ended).await
    }
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot start: {error}")))
}

/// A hub that is named on the command line is meant; one in the environment is there for other commands.
fn refuse_hub_without_token(global: &Global) -> Result<()> {
    let surrounding = std::env::var("DATACENTERED_HUB").ok();
    if global.hub.is_some() && global.hub != surrounding {
        return Err(Failure::usage("simulated hosts need a token to join this hub").hint(
            "make one with 'datacentered token create --join --uses N' and name it with --join-token",
        ));
    }
    Ok(())
}

/// Against a hub of our own, which is thrown away.
async fn own(ui: Ui, sim: &Sim, seed: u64, ended: impl Future<Output = ()>) -> Result<()> {
    let place = Place::make("sim")?;
    let mut hub = Own::new(&place);
    let result = tokio::select! {
        report = with_own(ui, sim, seed, &mut hub) => report,
        () = ended => Err(Failure::silent(Exit::Failed)),
    };
    hub.stop().await;
    let removed = place.remove().await;
    let report = result?;
    removed?;
    finish(ui, &report)
}

async fn with_own(ui: Ui, sim: &Sim, seed: u64, hub: &mut Own<'_>) -> Result<Report> {
    let client = hub.start().await?;
    let tokens = hub.join_tokens(&client, sim.hosts).await?;
    let mut target = Target { client, hub: Some(hub) };
    let url = target.url()?;
    let (report, fleet) = measure::all(ui, sim, seed, config(sim, seed, url, tokens), &mut target).await?;
    fleet.stop().await;
    target.client.close().await;
    Ok(report)
}

/// Against a hub that runs already: the hosts leave it at the end, however it ends.
async fn foreign(
    ui: Ui,
    global: &Global,
    sim: &Sim,
    seed: u64,
    token: JoinToken,
    ended: impl Future<Output = ()>,
) -> Result<()> {
    let client = connect::connect(global).await?;
    let Foreign { url } = Foreign::of(&client)?;
    let label = label(seed);
    let mut target = Target { client: client.clone(), hub: None };
    let result = tokio::select! {
        measured = measure::all(ui, sim, seed, config(sim, seed, url, vec![token]), &mut target) => measured,
        () = ended => Err(Failure::silent(Exit::Failed)),
    };
    let result = match result {
        Ok((report, fleet)) => {
            fleet.stop().await;
            Ok(report)
        }
        Err(failure) => Err(failure),
    };
    let removed = remove_hosts(&client, &label).await;
    client.close().await;
    let report = result?;
    removed?;
    finish(ui, &report)
}

/// What a host of this simulation is chosen by.
fn label(seed: u64) -> String {
    format!("{LABEL}={seed:x}")
}

fn config(sim: &Sim, seed: u64, hub: datacentered_client::HubUrl, tokens: Vec<JoinToken>) -> FleetConfig {
    FleetConfig {
        hub,
        tokens,
        hosts: sim.hosts as usize,
        prefix: "sim-".to_owned(),
        labels: [(LABEL.to_owned(), format!("{seed:x}"))].into(),
        seed,
        faults: sim.faults.clone(),
        faulty_percent: sim.faulty,
        script: Script { runs_for: sim.takes, output_bytes: sim.output_size, exit_code: 0 },
        limits: datacentered_client::Limits::default(),
    }
}

async fn start_fleet(config: FleetConfig) -> Result<Fleet> {
    Fleet::start(config).await.map_err(|error| {
        let failure = Failure::failed(Failure::chain(&error));
        match error {
            SimError::Enrol(_) => failure.hint("is the join token good for so many hosts (--uses N)?"),
            _ => failure,
        }
    })
}

/// Simulated hosts never come back; without this they would be offline for ever.
async fn remove_hosts(client: &Client, label: &str) -> Result<()> {
    for name in measure::names_of(client, label).await? {
        let params = ChangeParams { key: client.clock().key(), host: name };
        client.call::<HostRemove>(&params).await?;
    }
    Ok(())
}

fn finish(ui: Ui, report: &Report) -> Result<()> {
    ui.reply(report, || report.table())?;
    if report.wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(report.wrong.join("; ")))
}

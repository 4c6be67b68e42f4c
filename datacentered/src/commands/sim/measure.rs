//! What is measured, in order: connecting, idle memory, commands on all hosts, coming back.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use datacentered_client::{Client, ItemEvent};
use datacentered_proto::operations::{HostList, HubStatus, RunCreate};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::host::ListParams;
use datacentered_proto::ops::job::ExecSpec;
use datacentered_proto::ops::run::{CreateParams, OfflinePolicy, Target as RunTarget};
use datacentered_proto::outcome::Outcome;
use datacentered_sim::{Fleet, FleetConfig, Spread};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::hub::{DOWN, Target};
use super::report::{Connect, Memory, Millis, Reconnect, Report, Runs};
use super::{PATIENCE, label, process, start_fleet};
use crate::args::sim::Sim;
use crate::failure::{Failure, Result};
use crate::ui::Ui;

/// How long the hub is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// How long a target waits for its host: longer than any fault keeps one away.
const EXPIRES_MS: u64 = 60_000;

/// How long one command on all hosts may take.
const RUN_PATIENCE: Duration = Duration::from_mins(2);

/// Hosts in one page of a list.
const PAGE: u32 = 500;

/// Measures everything. The fleet is still connected behind it.
pub(super) async fn all(
    ui: Ui,
    sim: &Sim,
    seed: u64,
    config: FleetConfig,
    target: &mut Target<'_, '_>,
) -> Result<(Report, Fleet)> {
    sleep(SETTLE).await;
    let empty = resident(&target.client).await?;
    ui.advice(&format!("{} hosts join", sim.hosts));
    let began = Instant::now();
    let fleet = start_fleet(config).await?;
    let joined = began.elapsed();
    if fleet.wait_online(PATIENCE).await.is_none() {
        return Err(not_online(&fleet));
    }
    let online = began.elapsed();
    let connecting = fleet.take_connecting();
    sleep(SETTLE).await;
    let idle = resident(&target.client).await?;

    ui.advice(&format!("commands on all of them for {} s", sim.duration.as_secs()));
    let runs = runs(sim, seed, &fleet, &target.client).await?;

    ui.advice("the hosts lose their links and come back");
    let refused_before = fleet.stats().refused;
    let reconnect = reconnect(&fleet, target).await?;
    sleep(SETTLE).await;
    let after = resident(&target.client).await?;

    let stats = fleet.stats();
    let mut report = Report {
        seed,
        hosts: fleet.names().len(),
        faults: sim.faults.iter().map(ToString::to_string).collect(),
        faulty_hosts: fleet.faulty().count(),
        connect: Connect {
            joined_ms: joined.millis(),
            online_ms: online.millis(),
            greeting: connecting.into(),
            refused: refused_before,
        },
        memory: Memory::new(empty, idle, after, stats.online),
        runs,
        reconnect: Reconnect { refused: stats.refused - refused_before, ..reconnect },
        hub_cpu_ms: target.hub.as_ref().map(|hub| hub.usage().cpu.millis()),
        sim_cpu_ms: process::usage(std::process::id()).map(|usage| usage.cpu.millis()),
        lies_told: stats.lies_told,
        lies_believed: stats.lies_believed,
        output_bytes: stats.output_bytes,
        wrong: Vec::new(),
    };
    report.judge();
    Ok((report, fleet))
}

fn not_online(fleet: &Fleet) -> Failure {
    let stats = fleet.stats();
    Failure::failed(format!(
        "only {} of {} hosts were connected after {} s ({} attempts were refused)",
        stats.steady_online,
        fleet.steady(),
        PATIENCE.as_secs(),
        stats.refused
    ))
    .hint("DATACENTERED_LOG=datacentered_sim=debug says why; so does the hub's own log")
}

async fn resident(client: &Client) -> Result<u64> {
    Ok(client.call::<HubStatus>(&NoParams {}).await?.resident_bytes)
}

/// Commands on all hosts, one behind the other and no more in a second than asked for.
async fn runs(sim: &Sim, seed: u64, fleet: &Fleet, client: &Client) -> Result<Runs> {
    let faulty: HashSet<&str> = fleet.faulty().collect();
    let mut seen = Seen::default();
    let (mut sound, mut whole) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let pause = Duration::from_secs(1) / sim.rate.max(1);
    let mut next = began;
    loop {
        let started = Instant::now();
        let once = on_all(seed, client, &faulty, &mut seen);
        let (took_sound, took) = timeout(RUN_PATIENCE, once).await.map_err(|_| {
            let told = format!("a command on all hosts did not end within {} s", RUN_PATIENCE.as_secs());
            Failure::failed(told)
        })??;
        sound.extend(took_sound.map(|at| at - started));
        whole.push(took - started);
        next = (next + pause).max(Instant::now());
        if next >= began + sim.duration {
            break;
        }
        sleep_until(next).await;
    }
    Ok(Runs {
        count: whole.len(),
        targets: seen.targets,
        latency: Spread::of(sound).into(),
        latency_all: Spread::of(whole).into(),
        outcomes: seen.outcomes,
        sound_failed: seen.sound_failed,
        unexplained: seen.unexplained,
    })
}

/// How targets ended, all runs together.
#[derive(Default)]
struct Seen {
    targets: u64,
    outcomes: BTreeMap<String, u64>,
    /// Hosts without faults on which a command did not go well.
    sound_failed: u64,
    unexplained: u64,
}

/// One command on all hosts: when the last host without faults had its outcome, and when the last of all.
async fn on_all(
    seed: u64,
    client: &Client,
    faulty: &HashSet<&str>,
    seen: &mut Seen,
) -> Result<(Option<Instant>, Instant)> {
    let params = CreateParams {
        key: client.clock().run_id(),
        on: vec![label(seed)],
        exec: ExecSpec::command(vec!["true".into()]),
        offline: OfflinePolicy::Queue,
        expires_ms: EXPIRES_MS,
        max_parallel: None,
    };
    let created = client.call::<RunCreate>(&params).await?;
    let mut last_sound = None;
    let mut ended = HashSet::new();
    let mut watch = client.watch_run(params.key);
    while let Some(event) = watch.next().await? {
        let ItemEvent::Item { value, .. } = event else { continue };
        let RunTarget { host, outcome: Some(outcome), evidence, .. } = value else { continue };
        let sound = !faulty.contains(host.as_str());
        if !ended.insert(host) {
            continue;
        }
        if sound {
            last_sound = Some(Instant::now());
            seen.sound_failed += u64::from(outcome != Outcome::Exited { code: 0 });
        }
        seen.unexplained += u64::from(evidence.is_empty());
        *seen.outcomes.entry(outcome.to_string()).or_default() += 1;
    }
    let targets = u64::from(created.summary.counts.targets);
    seen.targets += targets;
    seen.unexplained += targets.saturating_sub(ended.len() as u64);
    Ok((last_sound, Instant::now()))
}

/// All links are lost: the hub is killed where it is ours, else the links are cut. Then how they come back.
async fn reconnect(fleet: &Fleet, target: &mut Target<'_, '_>) -> Result<Reconnect> {
    // What faults did until now does not count.
    fleet.take_away();
    let (how, down) = if let Some(hub) = &mut target.hub {
        target.client.close().await;
        hub.kill().await;
        let killed = Instant::now();
        sleep(DOWN).await;
        target.client = hub.start().await?;
        ("hub killed", killed.elapsed())
    } else {
        fleet.cut_all().await;
        ("links cut", Duration::ZERO)
    };
    let Some(back) = fleet.wait_online(PATIENCE).await else { return Err(not_online(fleet)) };
    Ok(Reconnect {
        how,
        down_ms: down.millis(),
        all_back_ms: back.millis(),
        away: fleet.take_away().into(),
        refused: 0,
    })
}

/// The names of the hosts with a label.
pub(super) async fn names_of(client: &Client, label: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut next = None;
    loop {
        let params = ListParams { on: vec![label.to_owned()], limit: Some(PAGE), next };
        let page = client.call::<HostList>(&params).await?;
        names.extend(page.hosts.into_iter().map(|host| host.name));
        next = page.next;
        if next.is_none() {
            return Ok(names);
        }
    }
}

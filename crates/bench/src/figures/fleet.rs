//! What many connections cost, and how they come back.

use std::process::Stdio;
use std::time::{Duration, Instant};

use datacentered_sim::{Fleet, FleetConfig, JoinToken, Script};
use tokio::time::sleep;

use super::{Measured, seconds};
use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::process::{cpu, own_cpu, resident};
use crate::report::{Aim, Row};
use crate::sample::{median, range};
use crate::world::World;

pub(super) const METHOD: &str = "\
Simulated hosts (crates/sim) in the benchmark's own process: each has a key and a loopback address of its own, joins with
a token, and holds a real TLS connection to the hub, which is a process of its own; commands are answered and not
executed. Memory is what the hub has resident with all connected and idle, for each connection: once after all have joined,
beyond the empty hub's, and once in a hub that was started again and knows the hosts, beyond what it had before the first of
them was let back (this is the connections alone; the former holds the registry and what joining left in the store). A
command on all is the
whole `datacentered run --on all -- true`, from process start to exit; hub, hosts and client share this machine. Then the
hub is killed, stays away, and is started again; the time is from when it listens until every host is connected, and a
handshake counts as refused that the hub, being there, did not complete.";

/// How long hosts may take to come, at most.
const PATIENCE: Duration = Duration::from_mins(5);

/// How long everything is left alone before memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Tokens that hosts take turns at.
const TOKENS: u32 = 16;

pub(super) async fn measure(args: &Args) -> Result<Measured> {
    let mut world = World::new(args).await?;
    sleep(SETTLE).await;
    let empty = memory(&world)?;
    let fleet = join(&world, args.hosts).await?;
    let mut rows = Vec::new();
    sleep(SETTLE).await;
    let connections = f64::from(args.hosts);
    let each = |beyond: &str, before: f64, with_all: f64| Row {
        what: format!("memory of the hub for each connection beyond {beyond}, in KB"),
        ours: format!("{:.1} KB", (with_all - before) / connections / 1000.0),
        peer: String::new(),
        value: (with_all - before) / connections / 1000.0,
        aim: Aim::Most(25.0),
    };
    rows.push(each("the empty hub", empty, memory(&world)?));

    let (run_row, run_note) = on_all(args, &world)?;
    rows.push(run_row);
    let mut notes = vec![run_note];

    let downs: &[u64] = args.size(&[2], &[2, 300]);
    for down in downs {
        let (row, refused, note) = back(args, &mut world, &fleet, Duration::from_secs(*down)).await?;
        rows.push(row);
        rows.push(refused);
        notes.push(note);
    }

    fleet.hold_back(true);
    world.kill_hub()?;
    world.start_hub()?;
    sleep(SETTLE).await;
    let before = memory(&world)?;
    fleet.hold_back(false);
    online(&fleet).await?;
    sleep(SETTLE).await;
    rows.push(each("the hub that knows the hosts", before, memory(&world)?));
    fleet.stop().await;
    Ok(Measured { rows, notes })
}

fn memory(world: &World) -> Result<f64> {
    resident(world.hub_pid()).map(|bytes| bytes as f64).ok_or_else(|| Failure::new("the hub has gone"))
}

async fn join(world: &World, hosts: u32) -> Result<Fleet> {
    let tokens = world.join_tokens(TOKENS, hosts.div_ceil(TOKENS)).await?;
    let tokens =
        tokens.iter().map(|token| token.parse::<JoinToken>()).collect::<std::result::Result<Vec<_>, _>>();
    let fleet = Fleet::start(FleetConfig {
        hub: world.url()?.clone(),
        tokens: tokens.map_err(|error| Failure::new(error.to_string()))?,
        hosts: hosts as usize,
        prefix: "sim-".to_owned(),
        labels: [].into(),
        seed: 1,
        faults: Vec::new(),
        faulty_percent: 0,
        script: Script::default(),
        limits: datacentered_client::Limits::default(),
    })
    .await?;
    online(&fleet).await?;
    Ok(fleet)
}

async fn online(fleet: &Fleet) -> Result<Duration> {
    fleet.wait_online(PATIENCE).await.ok_or_else(|| {
        Failure::new(format!("only {} of {} hosts came back", fleet.stats().online, fleet.steady()))
    })
}

/// One command on all hosts, by the command line.
fn on_all(args: &Args, world: &World) -> Result<(Row, String)> {
    let rounds = args.size(3, 15);
    let mut times = Vec::new();
    let (mark, own) = (cpu(&[world.hub_pid()]), own_cpu());
    for _ in 0..rounds {
        let mut command = world.command_line()?;
        command.args(["run", "--on", "all", "--", "true"]).stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        let status = command.status()?;
        if !status.success() {
            return Err(Failure::new(format!("the command on all hosts ended with {status}")));
        }
        times.push(began.elapsed().as_secs_f64());
    }
    let hub = (cpu(&[world.hub_pid()]) - mark) / f64::from(rounds);
    let hosts = (own_cpu() - own) / f64::from(rounds);
    let (smallest, largest) = range(&times);
    let note = format!(
        "{rounds} commands on all {} hosts took {} to {}; each took {} of processor time of hub and client, and {} of the \
         simulated hosts', on the same machine.",
        args.hosts,
        seconds(smallest),
        seconds(largest),
        seconds(hub),
        seconds(hosts)
    );
    let time = median(times);
    let row = Row {
        what: format!("`run -- true` on all {} hosts, in seconds", args.hosts),
        ours: seconds(time),
        peer: String::new(),
        value: time,
        // The aim is one second for a thousand.
        aim: if args.hosts <= 1000 { Aim::Most(1.0) } else { Aim::None },
    };
    Ok((row, note))
}

/// The hub goes away for a while, and all come back.
async fn back(args: &Args, world: &mut World, fleet: &Fleet, down: Duration) -> Result<(Row, Row, String)> {
    fleet.take_away();
    let before = fleet.stats().refused;
    world.kill_hub()?;
    sleep(down).await;
    world.start_hub()?;
    let took = online(fleet).await?.as_secs_f64();
    let away = fleet.take_away();
    let refused = fleet.stats().refused - before;
    let gone = down.as_secs();
    let note = format!(
        "After the hub was away for {gone} s, half of the hosts had been without a link for {}, 95 of 100 for {}, the last \
         for {}.",
        seconds(away.p50.as_secs_f64()),
        seconds(away.p95.as_secs_f64()),
        seconds(away.max.as_secs_f64())
    );
    let row = Row {
        what: format!("hub away for {gone} s: all {} back, in seconds", args.hosts),
        ours: seconds(took),
        peer: String::new(),
        value: took,
        // The aim is for a thousand hosts and a short absence; after a long one the backoff has grown.
        aim: if args.hosts <= 1000 && gone <= 2 { Aim::Most(15.0) } else { Aim::None },
    };
    let refused = Row {
        what: format!("hub away for {gone} s: handshakes refused"),
        ours: refused.to_string(),
        peer: String::new(),
        value: refused as f64,
        aim: Aim::Most(0.0),
    };
    Ok((row, refused, note))
}

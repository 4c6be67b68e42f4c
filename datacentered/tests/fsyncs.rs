//! What a command on a connected host costs in syncs to disk, as the kernel sees them (`strace`): at most four in series.
//!
//! In series are the hub's first batch, the host's `accepted`, the shim's `starting`, and the hub's outcome. The shim's
//! end record is synced beside the last: the shim tells the end first. Events and audit are moved on later, into logs,
//! which have a database and a writer of their own; so of the hub's syncs those of the writer of buckets are in series.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{World, process_signal, wait_until};
use rustix::process::Signal;

const RUNS: usize = 100;

/// The hub's thread that alone commits to buckets.
const WRITER: &str = "engine-kv";

/// One sync that the kernel was asked for.
struct Sync {
    process: u32,
    ended: f64,
}

fn trace(pid: u32, file: &Path) -> Child {
    Command::new("strace")
        .args(["-f", "-ttt", "-T", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o"])
        .arg(file)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace is installed")
}

/// Lines such as `1234 1700000000.123456 fdatasync(7) = 0 <0.000321>`, or in two halves where another came between.
fn syncs(file: &Path) -> Vec<Sync> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let ended = |line: &str| {
        let mut words = line.split_whitespace();
        let process = words.next()?.parse().ok()?;
        let began: f64 = words.next()?.parse().ok()?;
        // The second half of a split call carries the time of its own line.
        let took = line.rsplit_once('<')?.1.trim_end_matches('>').parse::<f64>().ok()?;
        let ended = if line.contains("resumed>") { began } else { began + took };
        Some(Sync { process, ended })
    };
    text.lines().filter(|line| line.contains("= 0 <")).filter_map(ended).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[test]
fn a_command_costs_four_syncs_in_series() {
    let world = World::with_hosts(["web1"]);
    let (hub_file, agent_file) = (world.path().join("hub.strace"), world.path().join("agent.strace"));
    let agent_pid = world.agent_pid("web1");
    let tracers = [trace(world.hub_pid(), &hub_file), trace(agent_pid, &agent_file)];
    let traced = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    wait_until("both are traced", || traced(world.hub_pid()) && traced(agent_pid));

    let mut windows = Vec::new();
    for _ in 0..RUNS {
        // What the run before left to be moved on is moved on by then.
        std::thread::sleep(Duration::from_millis(260));
        let began = now();
        world.run(["run", "--on", "web1", "--", "true"]).ok();
        windows.push((began, now()));
    }
    for mut tracer in tracers {
        process_signal(&tracer, Signal::INT);
        tracer.wait().expect("strace ends");
    }

    let hub_pid = world.hub_pid();
    let thread_name = |thread: u32| {
        let name = std::fs::read_to_string(format!("/proc/{hub_pid}/task/{thread}/comm")).unwrap_or_default();
        name.trim_end().to_owned()
    };
    let (mut hub, agent) = (syncs(&hub_file), syncs(&agent_file));
    hub.retain(|sync| thread_name(sync.process) == WRITER);
    let own_threads = |sync: &Sync| Path::new(&format!("/proc/{agent_pid}/task/{}", sync.process)).exists();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for (began, ended) in windows {
        let within = |sync: &&Sync| sync.ended >= began && sync.ended <= ended;
        let of_hub = hub.iter().filter(within).count();
        let of_agent = agent.iter().filter(within).filter(|sync| own_threads(sync)).count();
        // The shim's first is `starting`; whatever it syncs after the end was told is beside the path.
        let of_shim = agent.iter().filter(within).filter(|sync| !own_threads(sync)).count().min(1);
        *counts.entry(of_hub + of_agent + of_shim).or_default() += 1;
    }
    println!("syncs in series, and how many of {RUNS} runs of 'true' had so many: {counts:?}");
    assert!(counts.keys().all(|count| *count >= 4), "a run was answered before it was on disk: {counts:?}");
    assert!(counts.keys().all(|count| *count <= 4), "a run waited for more than four syncs: {counts:?}");
}

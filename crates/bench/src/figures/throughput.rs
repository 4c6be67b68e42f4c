//! How fast a command's output reaches the client, and what that costs.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Measured, mib, seconds};
use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::process::{cpu, resident};
use crate::report::{Aim, Row};
use crate::sample::median;
use crate::ssh::Ssh;
use crate::world::{HOST, World};

pub(super) const METHOD: &str = "\
`head -c SIZE /dev/zero` on one real host, by `datacentered run` and by `ssh` over an open ControlMaster connection, in
turns; the client's standard output is a pipe whose other end counts the bytes. The rate is from process start to exit.
The processor time counts every process of a side: hub, agent, shim, command and client; sshd, the open connection,
command and client. Ours passes through the host's spool and the hub's log, from which any client can read it again; SSH
keeps nothing. Memory is the growth of what the hub and the agent have resident, looked at every 50 ms.";

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What memory may grow by and still count as flat: windows and buffers of one stream, and what the hub's store gathers.
const FLAT: f64 = 64.0;

/// Runs a command and counts its output; how long it took.
fn count(mut command: Command, expected: u64) -> Result<f64> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or_else(|| Failure::new("a command has no output"))?;
    let (mut buffer, mut seen) = (vec![0; 256 * 1024], 0);
    loop {
        match stdout.read(&mut buffer)? {
            0 => break,
            read => seen += read as u64,
        }
    }
    let status = child.wait()?;
    if !status.success() || seen != expected {
        return Err(Failure::new(format!(
            "{command:?} ended with {status} after {seen} of {expected} bytes"
        )));
    }
    Ok(began.elapsed().as_secs_f64())
}

/// The most that a process has resident while this lives.
struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn new(pid: u32) -> Self {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (most.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(resident(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        Self { most, stop, thread: Some(thread) }
    }

    fn end(mut self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it has seen is there even where it failed.
            thread.join().ok();
        }
        self.most.load(Ordering::Relaxed) as f64
    }
}

pub(super) async fn measure(args: &Args) -> Result<Measured> {
    let world = World::with_host(args).await?;
    let ssh = Ssh::start(world.path())?;
    let (rounds, size) = args.size((1, 64u64 << 20), (5, 1 << 30));
    let bytes = size.to_string();
    let command = ["head", "-c", &bytes, "/dev/zero"];
    let run = || -> Result<Command> {
        let mut run = world.command_line()?;
        run.args(["run", "--on", HOST, "--"]).args(command);
        Ok(run)
    };
    let small = ["head", "-c", "1000000", "/dev/zero"];
    let mut warm = world.command_line()?;
    warm.args(["run", "--on", HOST, "--"]).args(small);
    count(warm, 1_000_000).map_err(|error| Failure::new(format!("{error}\n{}", world.logs())))?;
    count(ssh.open(&small), 1_000_000)?;

    let (hub, agent) = (world.hub_pid(), world.agent_pid());
    let before = (resident(hub).unwrap_or(0) as f64, resident(agent).unwrap_or(0) as f64);
    let watches = (Watch::new(hub), Watch::new(agent));
    let (mut ours, mut theirs) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for _ in 0..rounds {
        let mark = cpu(&[hub, agent]);
        ours.0.push(count(run()?, size)?);
        ours.1.push(cpu(&[hub, agent]) - mark);
        let mark = cpu(&ssh.pids());
        theirs.0.push(count(ssh.open(&command), size)?);
        theirs.1.push(cpu(&ssh.pids()) - mark);
    }
    let grown = (watches.0.end() - before.0, watches.1.end() - before.1);

    let rate = |seconds: f64| format!("{:.0} MiB/s", size as f64 / f64::from(1 << 20) / seconds);
    let (time, peer_time) = (median(ours.0), median(theirs.0));
    let (used, peer_used) = (median(ours.1), median(theirs.1));
    let memory = |what: &str, grown: f64| Row {
        what: format!("growth of the {what}'s memory, in MiB"),
        ours: mib(grown.max(0.0)),
        peer: String::new(),
        value: grown.max(0.0) / f64::from(1 << 20),
        aim: Aim::Most(FLAT),
    };
    let rows = vec![
        Row {
            what: "rate".to_owned(),
            ours: rate(time),
            peer: rate(peer_time),
            value: peer_time / time,
            aim: Aim::Least(0.8),
        },
        Row {
            what: "processor time".to_owned(),
            ours: seconds(used),
            peer: seconds(peer_used),
            value: used / peer_used,
            aim: Aim::Most(1.5),
        },
        memory("hub", grown.0),
        memory("agent", grown.1),
    ];
    let notes = vec![format!("{rounds} rounds of {} each.", mib(size as f64))];
    Ok(Measured { rows, notes })
}

//! How long `true` takes, and what it costs.

use std::process::{Command, Stdio};
use std::time::Instant;

use datacentered_client::{Client, ItemEvent};
use datacentered_proto::JobState;
use datacentered_proto::operations::RunCreate;
use datacentered_proto::ops::job::ExecSpec;
use datacentered_proto::ops::run::{CreateParams, OfflinePolicy};
use datacentered_proto::outcome::Outcome;

use super::{Measured, seconds};
use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::process::{cpu, own_cpu};
use crate::report::{Aim, Row};
use crate::sample::{median, range};
use crate::ssh::{CIPHER, Ssh};
use crate::world::{HOST, World};

pub(super) const METHOD: &str = "\
`true` on one real host (the installed agent; hub, agent and client are processes of this machine and speak TLS 1.3 over
loopback), from the moment the command is asked for until its outcome is known. In turns: over the client library's open
connection (`run.create`, then the watch of the run until its outcome), the whole `datacentered run --on HOST -- true`
from process start to exit, `ssh` over an open ControlMaster connection, and `ssh` with a connection of its own. The SSH
server is Debian's, on loopback, with throw-away keys, aes256-gcm@openssh.com, and an empty home directory, so that the
shell reads no start-up files. Ours is on disk before it is answered, on the hub and on the host; SSH keeps nothing. The
processor time counts every process of a side: hub, agent, shims and command, client; sshd, the open connection, client.";

/// One command over the library's open connection.
pub(crate) async fn once(client: &Client) -> Result<()> {
    let params = CreateParams {
        key: client.clock().run_id(),
        on: vec![HOST.to_owned()],
        exec: ExecSpec::command(vec!["true".into()]),
        offline: OfflinePolicy::Fail,
        expires_ms: 60_000,
        max_parallel: None,
    };
    client.call::<RunCreate>(&params).await?;
    let mut watch = client.watch_run(params.key);
    while let Some(event) = watch.next().await? {
        let ItemEvent::Item { value, .. } = event else { continue };
        if value.state == JobState::Ended {
            return match value.outcome {
                Some(Outcome::Exited { code: 0 }) => Ok(()),
                other => Err(Failure::new(format!("'true' ended as {other:?}"))),
            };
        }
    }
    Err(Failure::new("'true' has no outcome"))
}

fn wait_for(mut command: Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{command:?} ended with {status}"))) }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

/// What each way took in one round.
#[derive(Default)]
struct Round {
    library: Vec<f64>,
    program: Vec<f64>,
    open: Vec<f64>,
    fresh: Vec<f64>,
}

pub(super) async fn measure(args: &Args) -> Result<Measured> {
    let world = World::with_host(args).await?;
    let ssh = Ssh::start(world.path())?;
    let client = world.client().await?;
    let run = || -> Result<Command> {
        let mut command = world.command_line()?;
        command.args(["run", "--on", HOST, "--", "true"]);
        Ok(command)
    };
    let (rounds, samples) = args.size((2, 20), (7, 200));
    // The first ones fill caches, on both sides.
    for _ in 0..10 {
        once(&client).await.map_err(|error| Failure::new(format!("{error}\n{}", world.logs())))?;
        wait_for(run()?)?;
        wait_for(ssh.open(&["true"]))?;
    }

    let mut medians = Round::default();
    for _ in 0..rounds {
        let mut round = Round::default();
        for index in 0..samples {
            let began = Instant::now();
            once(&client).await?;
            round.library.push(began.elapsed().as_secs_f64());
            round.open.push(timed(|| wait_for(ssh.open(&["true"])))?);
            round.program.push(timed(|| wait_for(run()?))?);
            // Slow, and steady: fewer do.
            if index % 5 == 0 {
                round.fresh.push(timed(|| wait_for(ssh.fresh(&["true"])))?);
            }
        }
        medians.library.push(median(round.library));
        medians.program.push(median(round.program));
        medians.open.push(median(round.open));
        medians.fresh.push(median(round.fresh));
    }

    let count = args.size(20, 300);
    let before = world.status().await?.fsyncs;
    let (mark, own) = (cpu(&ours(&world)), own_cpu());
    for _ in 0..count {
        once(&client).await?;
    }
    let library_cpu = (cpu(&ours(&world)) - mark + own_cpu() - own) / f64::from(count);
    let syncs = (world.status().await?.fsyncs - before) as f64 / f64::from(count);
    let mark = cpu(&ours(&world));
    for _ in 0..count {
        wait_for(run()?)?;
    }
    let program_cpu = (cpu(&ours(&world)) - mark) / f64::from(count);
    let mark = cpu(&ssh.pids());
    for _ in 0..count {
        wait_for(ssh.open(&["true"]))?;
    }
    let open_cpu = (cpu(&ssh.pids()) - mark) / f64::from(count);
    client.close().await;

    let notes = vec![
        format!(
            "{rounds} rounds of {samples}; medians of the rounds: library {}, command line {}, ssh over an open connection \
             {}, ssh {}. Cipher of SSH: {CIPHER}.",
            spread(&medians.library),
            spread(&medians.program),
            spread(&medians.open),
            spread(&medians.fresh)
        ),
        "Syncs are the hub's own, of both its databases, outbox included; in series are four, as a test counts with \
         strace (`datacentered/tests/fsyncs.rs`)."
            .to_owned(),
    ];
    let (library, program) = (median(medians.library), median(medians.program));
    let (open, fresh) = (median(medians.open), median(medians.fresh));
    let ratio = |what: &str, ours: f64, peer: f64, aim: Aim| Row {
        what: what.to_owned(),
        ours: seconds(ours),
        peer: seconds(peer),
        value: ours / peer,
        aim,
    };
    let rows = vec![
        ratio("library, open connection / ssh, open connection", library, open, Aim::Most(0.5)),
        ratio("command line / ssh, open connection", program, open, Aim::Most(1.0)),
        ratio("command line / ssh, connection of its own", program, fresh, Aim::Most(0.1)),
        ratio("processor time, library / ssh, open connection", library_cpu, open_cpu, Aim::None),
        ratio("processor time, command line / ssh, open connection", program_cpu, open_cpu, Aim::None),
        Row {
            what: "syncs of the hub for each command".to_owned(),
            ours: format!("{syncs:.2}"),
            peer: "0".to_owned(),
            value: syncs,
            aim: Aim::None,
        },
    ];
    Ok(Measured { rows, notes })
}

fn ours(world: &World) -> Vec<u32> {
    vec![world.hub_pid(), world.agent_pid()]
}

fn spread(medians: &[f64]) -> String {
    let (smallest, largest) = range(medians);
    format!("{} to {}", seconds(smallest), seconds(largest))
}

//! Whether the agent stays small.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::command::once;
use super::{Measured, mib};
use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::process::resident;
use crate::report::{Aim, Row};
use crate::sample::median;
use crate::world::World;

pub(super) const METHOD: &str = "\
Ten `true` a second on one real host, one behind the other, through the client library's open connection. What the agent
has resident is read once a second. Flat means that the median of the last fifth of the time is no more than a tenth above
that of the first fifth, whose first seconds (until 50 commands have run) are left out.";

/// Commands in a second.
const RATE: u32 = 10;

/// Commands until the agent has what it needs.
const WARM: usize = 50;

pub(super) async fn measure(args: &Args) -> Result<Measured> {
    let world = World::with_host(args).await?;
    let client = world.client().await?;
    let time = args.size(Duration::from_mins(1), Duration::from_mins(10));
    let began = Instant::now();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    // One that came late does not make the next ones come faster.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut commands, mut samples) = (0, Vec::new());
    while began.elapsed() < time {
        ticks.tick().await;
        once(&client).await.map_err(|error| Failure::new(format!("{error}\n{}", world.logs())))?;
        commands += 1;
        if commands >= WARM && commands % RATE as usize == 0 {
            let bytes = resident(world.agent_pid()).ok_or_else(|| Failure::new("the agent has gone"))?;
            samples.push(bytes as f64);
        }
    }
    client.close().await;
    let fifth = (samples.len() / 5).max(1);
    let first = median(samples.iter().take(fifth).copied().collect());
    let last = median(samples.iter().rev().take(fifth).copied().collect());
    let most = samples.iter().copied().fold(0.0, f64::max);
    let rows = vec![
        Row {
            what: "most that the agent had resident, in MB".to_owned(),
            ours: mib(most),
            peer: String::new(),
            value: most / 1e6,
            aim: Aim::Most(15.0),
        },
        Row {
            what: "the last fifth of the time against the first".to_owned(),
            ours: mib(last),
            peer: mib(first),
            value: last / first,
            aim: Aim::Most(1.1),
        },
    ];
    let notes = vec![format!("{commands} commands in {} s.", time.as_secs())];
    Ok(Measured { rows, notes })
}

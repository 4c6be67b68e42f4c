//! `demo`: a hub, an agent and a first command on this machine, over TLS, thrown away at the end.

mod proof;

use datacentered_client::Client;
use datacentered_proto::operations::RunList;
use datacentered_proto::ops::run::ListParams;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Duration, timeout};

use super::throwaway::place::Place;
use super::throwaway::server::Server;
use crate::args::server::Demo;
use crate::failure::{Exit, Failure, Result};
use crate::ui::Ui;
use proof::Proven;

/// How long runs that are still under way may take to be cancelled at the end.
const CANCEL_WITHIN: Duration = Duration::from_secs(3);

/// The processes of a demo.
#[derive(Debug, Default)]
struct Fleet {
    hub: Option<Server>,
    agent: Option<Server>,
}

impl Fleet {
    /// Ends both, the agent first: so it can still tell the hub what it knows.
    async fn stop(self) {
        for server in [self.agent, self.hub].into_iter().flatten() {
            server.stop().await;
        }
    }
}

/// `demo`.
pub(crate) async fn run(ui: Ui, demo: Demo) -> Result<()> {
    let mut leave = Leave::listen()?;
    let place = Place::make("demo")?;
    let mut fleet = Fleet::default();
    let result = tokio::select! {
        proven = proof::prove(ui, &place, &mut fleet) => proven,
        () = leave.asked() => Err(Failure::silent(Exit::Failed)),
    };
    let result = match result {
        Ok(proven) if !demo.once => stay(ui, &place, &proven, &mut fleet, &mut leave).await,
        Ok(proven) => {
            proven.client.close().await;
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    fleet.stop().await;
    let removed = place.remove().await;
    result.and(removed)
}

/// Stays up until the person has seen enough.
async fn stay(ui: Ui, place: &Place, proven: &Proven, fleet: &mut Fleet, leave: &mut Leave) -> Result<()> {
    if !ui.json() {
        ui.line(&next_steps(place, proven))?;
    }
    let result = tokio::select! {
        () = leave.asked() => Ok(()),
        failure = fallen(fleet) => Err(failure),
    };
    // What was started from other terminals ends with the demo; nothing may be left behind on this machine.
    timeout(CANCEL_WITHIN, cancel_all(&proven.client)).await.ok();
    proven.client.close().await;
    result
}

/// Waits until one of the processes ends, which it should not.
async fn fallen(fleet: &mut Fleet) -> Failure {
    let (Some(hub), Some(agent)) = (&mut fleet.hub, &mut fleet.agent) else {
        return std::future::pending().await;
    };
    tokio::select! {
        failure = hub.ended() => failure,
        failure = agent.ended() => failure,
    }
}

async fn cancel_all(client: &Client) {
    let active = ListParams { active: true, ..ListParams::default() };
    let Ok(listed) = client.call::<RunList>(&active).await else { return };
    for run in listed.runs {
        if super::run::cancel_run(client, run.run).await.is_ok() {
            super::run::wait_for(client, run.run).await.ok();
        }
    }
}

fn next_steps(place: &Place, proven: &Proven) -> String {
    let program = std::env::args_os().next().map_or_else(
        || "datacentered".into(),
        |name| {
            // A name from PATH works in the other terminal as it is; a relative path may not.
            if name.as_encoded_bytes().contains(&b'/') {
                std::env::current_exe().unwrap_or_else(|_| name.into())
            } else {
                name.into()
            }
        },
    );
    let command = format!("{} --hub unix:{}", program.display(), place.socket().display());
    let host = &proven.host;
    let setup = match &proven.setup {
        Some(link) => format!("\nThe hub's web page, and the first account:\n  {link}\n"),
        None => String::new(),
    };
    format!(
        "\nIt works. In another terminal, try:\n  \
         {command} host list\n  \
         {command} run --on {host} -- uptime\n  \
         {command} run --on all -- sh -c 'for i in 1 2 3; do echo $i; sleep 1; done'\n  \
         {command} run list\n  \
         {command} event watch --from start\n{setup}\n\
         Ctrl-C ends the demo and removes {}",
        place.path().display()
    )
}

/// The ways in which a demo is asked to end.
#[derive(Debug)]
struct Leave {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Leave {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot start: {error}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

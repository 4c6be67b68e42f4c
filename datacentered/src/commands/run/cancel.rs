//! Ctrl-C: the first one asks the hub to cancel and waits for the outcome, the second one leaves.

use std::io;

use datacentered_client::Client;
use datacentered_proto::RunId;
use datacentered_proto::operations::RunCancel;
use datacentered_proto::ops::run::CancelParams;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::ui::Ui;
use crate::ui::state::StateLine;

/// What Ctrl-C does to a run that is being followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// Cancel it.
    Cancel,
    /// Leave it alone and go.
    Leave,
}

/// The Ctrl-Cs of the person at the keyboard.
#[derive(Debug)]
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    /// From now on Ctrl-C no longer ends this process.
    pub(crate) fn catch() -> io::Result<Self> {
        signal(SignalKind::interrupt()).map(Self)
    }

    /// The next Ctrl-C.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime is going down; nobody will press anything any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Listens while a run is followed; comes back when the person wants to leave.
pub(crate) async fn listen(
    ui: Ui,
    state: &StateLine,
    client: &Client,
    run: RunId,
    mut interrupts: Interrupts,
    on_interrupt: OnInterrupt,
) {
    interrupts.next().await;
    if on_interrupt == OnInterrupt::Leave {
        state.suspend(|| ui.message(&format!("left; the run goes on: datacentered run attach {run}")));
        return;
    }
    let told = format!("cancelling run {run} and waiting for its outcome; Ctrl-C again leaves at once");
    state.suspend(|| ui.message(&told));
    let cancelled = async {
        if let Err(error) = cancel(client, run).await {
            let failure = Failure::from(error);
            state.suspend(|| ui.message(&format!("warning: cannot cancel the run: {failure}")));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = cancelled => {}
        () = interrupts.next() => {}
    }
    state.suspend(|| ui.message(&format!("left; to see how the run ends: datacentered run show {run}")));
}

/// Asks the hub to end every target of the run.
pub(crate) async fn cancel(client: &Client, run: RunId) -> Result<(), datacentered_client::Error> {
    let params = CancelParams { key: client.clock().key(), run, hosts: Vec::new() };
    client.call::<RunCancel>(&params).await.map(|_| ())
}

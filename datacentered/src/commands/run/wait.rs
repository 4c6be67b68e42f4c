//! `-o json`: waits for every outcome, then prints one document.

use datacentered_client::{Client, Error};
use datacentered_proto::RunId;

use super::report::Document;
use super::{Following, cancel, input, ssh_exit};
use crate::failure::{Exit, Failure, Result};
use crate::ui::connection;
use crate::ui::state::StateLine;

/// Waits for the end of the run and prints its document. `literal` says that one host was named literally.
pub(super) async fn follow(following: Following<'_>, literal: bool) -> Result<()> {
    let Following { ui, client, run, interrupts, on_interrupt, stdin } = following;
    let state = StateLine::hidden();
    tokio::select! {
        ended = ended(client, run) => ended?,
        failure = input::feed_or_fail(client, run, stdin) => return Err(failure),
        never = connection::tell(ui, &state, client) => match never {},
        () = cancel::listen(ui, &state, client, run, interrupts, on_interrupt) => {
            return Err(Failure::silent(Exit::Failed));
        }
    }
    let document = Document::load(client, run, None).await?;
    ui.document(&document)?;
    match document.targets.as_slice() {
        [target] if literal => match &target.outcome {
            Some(outcome) => ssh_exit(outcome),
            None => Err(Failure::failed("the run has ended without an outcome for its target")),
        },
        _ if document.failed() > 0 => Err(Failure::silent(Exit::Failed)),
        _ => Ok(()),
    }
}

/// Waits until every target has its outcome.
pub(crate) async fn ended(client: &Client, run: RunId) -> Result<(), Error> {
    let mut watch = client.watch_run(run);
    while watch.next().await?.is_some() {}
    Ok(())
}

//! One literally named host: its bytes as they are, and its exit code, as with ssh.

use std::cell::Cell;

use datacentered_client::{Client, ItemEvent, OutputEvent};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::run::Target;
use datacentered_proto::{JobState, Outcome, RunId};

use super::cancel::{self, OnInterrupt};
use super::{Following, input, report, ssh_exit};
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::text::clean::clean;
use crate::text::outcome;
use crate::ui::state::StateLine;
use crate::ui::writer::{Stream, Writer};
use crate::ui::{Ui, connection};

/// Prints one target's output from byte `from` on, and ends as its command did.
pub(super) async fn follow(following: Following<'_>, host: Option<String>, from: u64) -> Result<()> {
    let Following { ui, client, run, interrupts, on_interrupt, stdin } = following;
    let state = StateLine::new(ui);
    let writer = Writer::start(state.clone())?;
    let printing = Printing { ui, client, run, host, state: &state, began: Cell::new(false) };
    let ended = tokio::select! {
        // Both at once: the output is on its way while the outcome is not there yet.
        ended = async { tokio::try_join!(printing.output(from, &writer), printing.end()) } => ended,
        failure = input::feed_or_fail(client, run, stdin) => Err(failure),
        never = connection::tell(ui, &state, client) => match never {},
        () = cancel::listen(ui, &state, client, run, interrupts, on_interrupt) => {
            Err(Failure::silent(Exit::Failed))
        }
    };
    state.clear();
    let ((), target) = match ended {
        Ok(ended) => ended,
        Err(failure) => {
            if failure.exit == Exit::BrokenPipe {
                // As with ssh: who has closed the pipe wants no more, and nothing goes on for nobody.
                if on_interrupt == OnInterrupt::Cancel {
                    cancel::cancel(client, run).await.ok();
                }
                // It may have been a full disk instead; the writer knows.
                writer.finish().await?;
            }
            return Err(failure);
        }
    };
    writer.finish().await?;
    let Some(outcome) = &target.outcome else {
        return Err(Failure::failed("the run has ended without an outcome for its target"));
    };
    if matches!(outcome, Outcome::Exited { .. }) {
        return ssh_exit(outcome);
    }
    Err(Failure::failed(report::told(&target, outcome, connect::now()))
        .exit(Exit::Code(outcome::ssh_code(outcome)))
        .hint(format!("all that is known about it: datacentered run show {run}")))
}

struct Printing<'a> {
    ui: Ui,
    client: &'a Client,
    run: RunId,
    host: Option<String>,
    state: &'a StateLine,
    /// Whether output has come: from then on the terminal belongs to it.
    began: Cell<bool>,
}

impl Printing<'_> {
    /// Prints the output to its end.
    async fn output(&self, from: u64, writer: &Writer) -> Result<()> {
        let mut output = self.client.output(self.run, self.host.clone(), from);
        while let Some(event) = output.next().await? {
            match event {
                OutputEvent::Bytes { kind, bytes, .. } => {
                    if !self.began.replace(true) {
                        self.state.clear();
                    }
                    let stream = if kind == Kind::Stderr { Stream::Err } else { Stream::Out };
                    if writer.write(stream, bytes).await.is_err() {
                        return Err(Failure::silent(Exit::BrokenPipe));
                    }
                }
                OutputEvent::Gap { from, to, reason } => {
                    self.state.suspend(|| self.ui.message(&report::gap(None, from, to, reason)));
                }
                OutputEvent::End { .. } => break,
            }
        }
        Ok(())
    }

    /// Waits for the target's end, and shows how it stands until there is output.
    async fn end(&self) -> Result<Target> {
        let mut watch = self.client.watch_run(self.run);
        let mut latest = None;
        while let Some(event) = watch.next().await? {
            let ItemEvent::Item { value: target, .. } = event else { continue };
            let ours = |host: &str| host == target.host || host == target.host_id.to_string();
            if !self.host.as_deref().is_none_or(ours) {
                continue;
            }
            if target.state == JobState::Ended {
                return Ok(target);
            }
            if !self.began.get() {
                self.state.set(format!("{}: {}", clean(&target.host), stands(&target)));
            }
            latest = Some(target);
        }
        latest.ok_or_else(|| match &self.host {
            Some(host) => Failure::usage(format!("the run has no target '{}'", clean(host)))
                .hint(format!("datacentered run show {}", self.run)),
            None => Failure::usage("the run has no target"),
        })
    }
}

fn stands(target: &Target) -> &'static str {
    match (target.unknown, target.state) {
        (true, _) => "the link to the host is lost; waiting for it",
        (false, JobState::Queued) => "queued, waiting for the host",
        (false, JobState::Offered | JobState::Accepted) => "starting",
        (false, JobState::Running) => "running",
        (false, JobState::Ended) => "ended",
    }
}

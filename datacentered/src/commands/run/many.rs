//! Many hosts: their lines as they come, each behind its host's name, and at the end what went wrong where.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use datacentered_client::{ItemEvent, OutputEvent};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::run::{OfflinePolicy, Target};
use datacentered_proto::{JobId, JobState};

use super::group::Groups;
use super::pool::{Event, Pool};
use super::prefix::Lines;
use super::report::{self, Document};
use super::{Following, cancel, input};
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::text::clean::clean;
use crate::text::outcome;
use crate::ui::state::StateLine;
use crate::ui::writer::{Stopped, Stream, Writer};
use crate::ui::{Ui, connection};

/// Longest name that others are padded to.
const WIDEST_NAME: usize = 24;

/// How often the state line is counted anew.
const COUNT_EVERY: Duration = Duration::from_millis(150);

/// Colours of the names, by their place in the list.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Follows every target of the run to its end. What they say is printed as it comes, or, with `group`, at the end and
/// once for all hosts that said the same.
pub(super) async fn follow(following: Following<'_>, document: Document, group: bool) -> Result<()> {
    let Following { ui, client, run, interrupts, on_interrupt, stdin } = following;
    let state = StateLine::new(ui);
    let writer = Writer::start(state.clone())?;
    let mut board = Board::new(ui, document.targets, document.summary.offline, &state, &writer);
    board.groups = group.then(|| Groups::new(board.rows.len()));
    let mut pool = Pool::new(client, run, &board.targets());
    for index in 0..board.rows.len() {
        board.show(index, &mut pool);
    }
    let mut watch = client.watch_run(run);
    let mut watching = true;
    let mut feeding = std::pin::pin!(input::feed_or_fail(client, run, stdin));
    let mut telling = std::pin::pin!(connection::tell(ui, &state, client));
    let mut leaving = std::pin::pin!(cancel::listen(ui, &state, client, run, interrupts, on_interrupt));
    let ended: Result<()> = loop {
        if !watching && pool.is_done() {
            break Ok(());
        }
        let step = tokio::select! {
            item = watch.next(), if watching => match item {
                Ok(Some(ItemEvent::Item { value, .. })) => {
                    board.update(value, &mut pool);
                    Ok(())
                }
                Ok(Some(ItemEvent::Gap)) => Ok(()),
                Ok(None) => {
                    watching = false;
                    Ok(())
                }
                Err(error) => break Err(error.into()),
            },
            event = pool.next() => board.print(event).await,
            failure = &mut feeding => break Err(failure),
            never = &mut telling => match never {},
            () = &mut leaving => break Err(Failure::silent(Exit::Failed)),
        };
        if let Err(Stopped) = step {
            break Err(Failure::silent(Exit::BrokenPipe));
        }
        board.count();
    };
    state.clear();
    let groups = board.groups.take();
    let finished = board.finish();
    let ended = match groups {
        Some(groups) if ended.is_ok() => groups.print(ui, client, run, &finished.targets, &writer).await,
        _ => ended,
    };
    let written = writer.finish().await;
    if ended.is_err() || written.is_err() {
        if matches!(&ended, Err(failure) if failure.exit == Exit::BrokenPipe) || written.is_err() {
            // Hosts in the middle of their work are not stopped because a pager was closed.
            ui.message(&format!(
                "nobody reads the output any more; the run goes on: datacentered run attach {run}, or: datacentered run cancel {run}"
            ));
        }
        written?;
        return ended;
    }
    if ui.err_terminal {
        for line in report::skipped(&finished.targets, finished.offline, connect::now()) {
            ui.message(&line);
        }
    }
    for line in report::explanations(&finished.targets, finished.offline, connect::now()) {
        ui.message(&line);
    }
    for line in finished.unread {
        ui.message(&line);
    }
    if finished.failed == 0 {
        return Ok(());
    }
    ui.message(&format!(
        "{} of {} failed; all that is known about it: datacentered run show {run}",
        finished.failed,
        finished.targets.len()
    ));
    Err(Failure::silent(Exit::Failed))
}

/// One target and its lines.
struct Row {
    target: Target,
    out_prefix: Vec<u8>,
    err_prefix: Vec<u8>,
    out: Lines,
    err: Lines,
}

/// Where all targets stand.
struct Board<'a> {
    ui: Ui,
    state: &'a StateLine,
    writer: &'a Writer,
    offline: OfflinePolicy,
    rows: Vec<Row>,
    by_job: HashMap<JobId, usize>,
    /// What hosts say is held back and grouped.
    groups: Option<Groups>,
    /// Outputs that could not be read to their end.
    unread: Vec<String>,
    counted: Instant,
}

/// How it ended.
struct Finished {
    targets: Vec<Target>,
    offline: OfflinePolicy,
    unread: Vec<String>,
    failed: usize,
}

impl<'a> Board<'a> {
    fn new(
        ui: Ui,
        targets: Vec<Target>,
        offline: OfflinePolicy,
        state: &'a StateLine,
        writer: &'a Writer,
    ) -> Self {
        let width = targets.iter().map(|target| clean(&target.host).chars().count()).max().unwrap_or(0);
        let width = width.min(WIDEST_NAME);
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let by_job = targets.iter().enumerate().map(|(index, target)| (target.job, index)).collect();
        let row = |(index, target): (usize, Target)| {
            let prefix = |terminal: bool| prefix(&target.host, terminal, width, colours.then_some(index));
            let (out_prefix, err_prefix) = (prefix(ui.out_terminal), prefix(ui.err_terminal));
            Row { target, out_prefix, err_prefix, out: Lines::default(), err: Lines::default() }
        };
        let rows = targets.into_iter().enumerate().map(row).collect();
        Self {
            ui,
            state,
            writer,
            offline,
            rows,
            by_job,
            groups: None,
            unread: Vec::new(),
            counted: Instant::now(),
        }
    }

    fn targets(&self) -> Vec<Target> {
        self.rows.iter().map(|row| row.target.clone()).collect()
    }

    fn show(&self, index: usize, pool: &mut Pool) {
        if let Some(row) = self.rows.get(index) {
            pool.update(index, &row.target);
        }
    }

    fn update(&mut self, target: Target, pool: &mut Pool) {
        // Targets are frozen at the run's creation: one that is not in the list belongs to another run.
        let Some(index) = self.by_job.get(&target.job).copied() else { return };
        if let Some(row) = self.rows.get_mut(index) {
            row.target = target;
        }
        self.show(index, pool);
    }

    async fn print(&mut self, event: Event) -> Result<(), Stopped> {
        let (index, event) = match event {
            Event::Output(index, event) => (index, event),
            Event::Failed(index, error) => {
                let host = self.rows.get(index).map(|row| clean(&row.target.host)).unwrap_or_default();
                self.unread.push(format!("{host}: the rest of its output could not be read: {error}"));
                if let Some(groups) = &mut self.groups {
                    groups.unlike(index);
                }
                return self.end(index).await;
            }
            Event::Paused(..) => return Ok(()),
        };
        let Some(row) = self.rows.get_mut(index) else { return Ok(()) };
        if let Some(groups) = &mut self.groups {
            groups.take(index, &event);
            if matches!(event, OutputEvent::Bytes { .. }) {
                return Ok(());
            }
        }
        match event {
            OutputEvent::Bytes { kind, bytes, .. } => {
                let mut lines = Vec::with_capacity(bytes.len() + 64);
                let stream = if kind == Kind::Stderr {
                    row.err.push(&row.err_prefix, &bytes, &mut lines);
                    Stream::Err
                } else {
                    row.out.push(&row.out_prefix, &bytes, &mut lines);
                    Stream::Out
                };
                self.write(stream, lines).await
            }
            OutputEvent::Gap { from, to, reason } => {
                let text = report::gap(Some(&row.target.host), from, to, reason);
                self.state.suspend(|| self.ui.message(&text));
                Ok(())
            }
            OutputEvent::End { .. } => self.end(index).await,
        }
    }

    /// What stands in unfinished lines when a target's output has ended.
    async fn end(&mut self, index: usize) -> Result<(), Stopped> {
        let Some(row) = self.rows.get_mut(index) else { return Ok(()) };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        row.out.finish(&row.out_prefix, &mut out);
        row.err.finish(&row.err_prefix, &mut err);
        self.write(Stream::Out, out).await?;
        self.write(Stream::Err, err).await
    }

    async fn write(&self, stream: Stream, lines: Vec<u8>) -> Result<(), Stopped> {
        if lines.is_empty() { Ok(()) } else { self.writer.write(stream, Bytes::from(lines)).await }
    }

    /// Counts for the state line, now and then.
    fn count(&mut self) {
        if !self.state.is_shown() || self.counted.elapsed() < COUNT_EVERY {
            return;
        }
        self.counted = Instant::now();
        let (mut queued, mut running, mut unknown, mut ok) = (0, 0, 0, 0);
        for row in &self.rows {
            match &row.target {
                target if target.unknown => unknown += 1,
                target if target.state == JobState::Queued => queued += 1,
                target if target.state < JobState::Ended => running += 1,
                _ => ok += 1,
            }
        }
        let failed = self.failed();
        ok -= failed;
        let unheard = if unknown > 0 { format!(", {unknown} not heard of") } else { String::new() };
        self.state.set(format!("{queued} queued, {running} running, {ok} ok, {failed} failed{unheard}"));
    }

    fn failed(&self) -> usize {
        self.rows
            .iter()
            .filter_map(|row| row.target.outcome.as_ref())
            .filter(|outcome| outcome::counts_as_failed(outcome, self.offline))
            .count()
    }

    fn finish(self) -> Finished {
        let failed = self.failed().max(usize::from(!self.unread.is_empty()));
        let targets = self.rows.into_iter().map(|row| row.target).collect();
        Finished { targets, offline: self.offline, unread: self.unread, failed }
    }
}

/// What stands before each line of a host: padded and coloured on a terminal only.
fn prefix(host: &str, terminal: bool, width: usize, colour: Option<usize>) -> Vec<u8> {
    let host = clean(host);
    if !terminal {
        return format!("{host} | ").into_bytes();
    }
    let text = format!("{host:width$} |");
    match colour.and_then(|index| COLOURS.get(index % COLOURS.len())) {
        Some(colour) => format!("\x1b[{colour}m{text}\x1b[0m ").into_bytes(),
        None => format!("{text} ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_padded_and_coloured_on_a_terminal_only() {
        let text = |terminal, colour| String::from_utf8(prefix("db1", terminal, 6, colour)).expect("text");
        assert_eq!(text(false, Some(0)), "db1 | ");
        assert_eq!(text(true, None), "db1    | ");
        assert_eq!(text(true, Some(1)), "\x1b[33mdb1    |\x1b[0m ");
        assert_eq!(prefix("a\x1b[2J", false, 0, None), "a\u{fffd}[2J | ".as_bytes());
    }
}

//! `terminal play`: a recording as it came.

use std::time::Duration;

use datacentered_client::Client;
use datacentered_proto::RunId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::modes::Modes;
use super::recording::{Piece, Recording};
use super::{raw, show};
use crate::commands::run::report;
use crate::failure::{Exit, Failure, Result};
use crate::ui::Ui;
use crate::ui::state::StateLine;
use crate::ui::writer::{Stream, Writer};

/// Plays what there is of a recording.
pub(super) async fn play(
    ui: Ui,
    client: &Client,
    run: RunId,
    speed: f64,
    max_idle: Option<Duration>,
) -> Result<()> {
    let shown = show(client, run).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let writer = Writer::start(StateLine::hidden())?;
    let mut modes = Modes::default();
    let mut recording = Recording::open(client, run, &shown);
    let played = tokio::select! {
        played = print(ui, &mut recording, &writer, &mut modes, speed, max_idle) => played,
        _ = interrupt.recv() => Err(Failure::silent(Exit::Code(130))),
    };
    if ui.out_terminal {
        // The reader of our output may have gone; then there is nothing to put back.
        writer.write(Stream::Out, modes.undo().into()).await.ok();
    }
    writer.finish().await?;
    played
}

async fn print(
    ui: Ui,
    recording: &mut Recording,
    writer: &Writer,
    modes: &mut Modes,
    speed: f64,
    max_idle: Option<Duration>,
) -> Result<()> {
    let mut clock = Clock { speed, max_idle, before: None, due: Instant::now() };
    let mut told = false;
    while let Some(piece) = recording.next().await? {
        match piece {
            Piece::Mark(mark) => {
                let own = raw::window().filter(|_| ui.out_terminal);
                if !told && own.is_some_and(|own| own.cols < mark.window.cols || own.rows < mark.window.rows)
                {
                    told = true;
                    ui.advice(&format!(
                        "recorded in a window of {}x{}, which is larger than this one",
                        mark.window.cols, mark.window.rows
                    ));
                }
                tokio::time::sleep_until(clock.due(mark.at_ms)).await;
            }
            Piece::Bytes(bytes) => {
                modes.pass(&bytes);
                if writer.write(Stream::Out, bytes).await.is_err() {
                    return Err(Failure::silent(Exit::BrokenPipe));
                }
            }
            Piece::Gap(from, to, reason) => ui.message(&report::gap(None, from, to, reason)),
        }
    }
    Ok(())
}

/// When the next piece is due.
struct Clock {
    speed: f64,
    max_idle: Option<Duration>,
    before: Option<u64>,
    due: Instant,
}

impl Clock {
    fn due(&mut self, at_ms: u64) -> Instant {
        let passed = at_ms.saturating_sub(self.before.unwrap_or(at_ms));
        self.before = Some(at_ms);
        let mut pause = Duration::from_millis(passed);
        if let Some(most) = self.max_idle {
            pause = pause.min(most);
        }
        // A host that claims centuries is not waited for.
        let pause =
            Duration::try_from_secs_f64(pause.as_secs_f64() / self.speed).unwrap_or(LONGEST).min(LONGEST);
        self.due += pause;
        self.due
    }
}

/// Longest pause, whatever the recording says.
const LONGEST: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded_and_scaled() {
        let begun = Instant::now();
        let mut clock =
            Clock { speed: 2.0, max_idle: Some(Duration::from_secs(1)), before: None, due: begun };
        let mut due = |at_ms| clock.due(at_ms).duration_since(begun).as_millis();
        assert_eq!(due(5000), 0, "the first piece comes at once");
        assert_eq!(due(5100), 50);
        assert_eq!(due(60_000), 550);
        assert_eq!(due(100), 550, "a clock that goes back waits for nothing");
        let mut clock = Clock { speed: 1.0, max_idle: None, before: Some(0), due: begun };
        assert_eq!(clock.due(u64::MAX).duration_since(begun), LONGEST);
    }
}

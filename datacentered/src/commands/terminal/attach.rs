//! Being at a terminal: its output here, what is typed there, until it ends or one leaves.

use std::cell::RefCell;
use std::convert::Infallible;

use datacentered_client::{Client, ItemEvent, OutputEvent, OutputStream};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::run::Target;
use datacentered_proto::{JobState, Outcome, RunId};
use tokio::signal::unix::{SignalKind, signal};

use super::modes::Modes;
use super::raw::{self, Raw};
use super::screen::Screen;
use super::typing;
use crate::args::terminal::How;
use crate::commands::run::report::{self, Document};
use crate::commands::run::ssh_exit;
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::text::{outcome, short_id};
use crate::ui::Ui;
use crate::ui::state::StateLine;
use crate::ui::writer::{Stream, Writer};

/// Where one begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// One has just opened it.
    New,
    /// One comes back: first its screen.
    Again {
        /// Where its record ends, as far as the hub knew a moment ago.
        end: u64,
    },
}

/// One client at a terminal.
pub(super) struct Attach<'a> {
    pub(super) ui: Ui,
    pub(super) client: &'a Client,
    pub(super) run: RunId,
    pub(super) how: How,
    pub(super) begin: Begin,
}

/// Why one is no longer there.
enum Left {
    Ended(Box<Target>),
    Detached,
    /// A signal ended this process.
    Signalled(u8),
}

impl Attach<'_> {
    /// Stays until the terminal ends or the person leaves.
    pub(super) async fn follow(&self) -> Result<()> {
        let how = &self.how;
        if raw::typed() && !how.detach_keys.is_empty() {
            self.ui.advice(&format!("[{} detaches; the terminal goes on]", how.detach_keys));
        }
        let raw = if self.ui.json() { None } else { Raw::enter() };
        let writer = Writer::start(StateLine::hidden())?;
        let modes = RefCell::new(Modes::default());
        let left = self.stay(&writer, raw.as_ref(), &modes).await;
        if self.ui.out_terminal && !self.ui.json() {
            let undo = modes.borrow().undo();
            // The reader of our output may have gone; then there is nothing to put back.
            writer.write(Stream::Out, undo.into()).await.ok();
        }
        let written = writer.finish().await;
        drop(raw);
        let left = left?;
        if self.ui.json() && matches!(left, Left::Ended(_)) {
            self.ui.document(&Document::load(self.client, self.run, None).await?)?;
        }
        self.tell(left, written)
    }

    async fn stay(&self, writer: &Writer, raw: Option<&Raw>, modes: &RefCell<Modes>) -> Result<Left> {
        let mut output = self.client.terminal_output(self.run, self.begin.start());
        let known = match self.begin {
            Begin::New => raw::window(),
            Begin::Again { end } => {
                self.paint(&mut output, end, writer, modes).await?;
                None
            }
        };
        let window = async {
            if self.how.read_only {
                return std::future::pending().await;
            }
            typing::follow_window(self.client, self.run, raw, known).await
        };
        tokio::select! {
            // Both at once: the output is on its way while the outcome is not there yet.
            ended = async { tokio::try_join!(self.print(&mut output, writer, modes), self.end()) } => {
                ended.map(|((), target)| Left::Ended(Box::new(target)))
            }
            left = typing::pass_on(self.client, self.run, &self.how) => left.map(|()| Left::Detached),
            never = window => match never? {},
            never = self.tell_trouble() => match never {},
            signal = signalled() => signal.map(Left::Signalled),
        }
    }

    /// Brings this window to the screen that the terminal has.
    async fn paint(
        &self,
        output: &mut OutputStream,
        end: u64,
        writer: &Writer,
        modes: &RefCell<Modes>,
    ) -> Result<()> {
        let mut screen = Screen::read(output, end).await?;
        let window = raw::window().unwrap_or(raw::DEFAULT_WINDOW);
        if !self.ui.json() && writer.write(Stream::Out, screen.paint(window).into()).await.is_err() {
            return Err(Failure::silent(Exit::BrokenPipe));
        }
        modes.replace(screen.modes);
        Ok(())
    }

    async fn print(&self, output: &mut OutputStream, writer: &Writer, modes: &RefCell<Modes>) -> Result<()> {
        while let Some(event) = output.next().await? {
            match event {
                OutputEvent::Bytes { kind: Kind::Mark, .. } => {}
                OutputEvent::Bytes { bytes, .. } => {
                    modes.borrow_mut().pass(&bytes);
                    if !self.ui.json() && writer.write(Stream::Out, bytes).await.is_err() {
                        return Err(Failure::silent(Exit::BrokenPipe));
                    }
                }
                OutputEvent::Gap { from, to, reason } => {
                    self.say(&report::gap(None, from, to, reason));
                }
                OutputEvent::End { .. } => break,
            }
        }
        Ok(())
    }

    /// Waits for the end of what runs in it.
    async fn end(&self) -> Result<Target> {
        let mut watch = self.client.watch_run(self.run);
        while let Some(event) = watch.next().await? {
            if let ItemEvent::Item { value: target, .. } = event
                && target.state == JobState::Ended
            {
                return Ok(target);
            }
        }
        Err(Failure::failed("the terminal has ended without an outcome"))
    }

    /// A word below what is on the screen, where a person reads: raw mode takes no plain line ends.
    fn say(&self, text: &str) {
        if self.ui.err_terminal {
            self.ui.message(&format!("\r\n[{text}]\r"));
        }
    }

    /// Says when the connection is lost for longer than a moment; when it is back, the terminal goes on by itself.
    async fn tell_trouble(&self) -> Infallible {
        let mut connection = self.client.connection();
        loop {
            connection.lost().await;
            let quiet = std::time::Duration::from_secs(3);
            if tokio::time::timeout(quiet, connection.restored()).await.is_err() {
                self.say("the connection to the hub is lost; trying again");
                connection.restored().await;
                self.say("connected again");
            }
        }
    }

    /// What the process ends with.
    fn tell(&self, left: Left, written: std::io::Result<()>) -> Result<()> {
        match left {
            Left::Signalled(signal) => Err(Failure::silent(Exit::Code(128 + signal))),
            Left::Detached => {
                written?;
                let back = format!("datacentered terminal attach {}", short_id::shorten(self.run));
                self.ui.message(&format!("detached; the terminal goes on. Come back with: {back}"));
                Ok(())
            }
            Left::Ended(target) => {
                written?;
                self.ended(&target)
            }
        }
    }

    fn ended(&self, target: &Target) -> Result<()> {
        let Some(outcome) = &target.outcome else {
            return Err(Failure::failed("the terminal has ended without an outcome"));
        };
        if matches!(outcome, Outcome::Exited { .. }) {
            return ssh_exit(outcome);
        }
        Err(Failure::failed(report::told(target, outcome, connect::now()))
            .exit(Exit::Code(outcome::ssh_code(outcome)))
            .hint(format!("all that is known about it: datacentered run show {}", self.run)))
    }
}

/// Waits for a signal that ends this process. Ctrl-C is typed, where it is typed in raw mode.
async fn signalled() -> Result<u8> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    Ok(tokio::select! {
        _ = hangup.recv() => 1,
        _ = interrupt.recv() => 2,
        _ = quit.recv() => 3,
        _ = terminate.recv() => 15,
    })
}

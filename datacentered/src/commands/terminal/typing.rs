//! What is typed, on its way to the terminal.

use std::convert::Infallible;
use std::time::Duration;

use bytes::BytesMut;
use datacentered_client::Client;
use datacentered_proto::RunId;
use datacentered_proto::operations::TerminalResize;
use datacentered_proto::ops::job::Window;
use datacentered_proto::ops::terminal::ResizeParams;
use tokio::signal::unix::{SignalKind, signal};

use super::raw::{self, Raw};
use crate::args::terminal::How;
use crate::commands::run::input::read_stdin;
use crate::failure::{Failure, Result};
use crate::text::keys::Finder;

/// Bytes that may be typed ahead of the hub; more is not read, but the keys that detach among these are seen.
const AHEAD: usize = 256 * 1024;

/// The end of input, as a person types it.
const END_OF_INPUT: u8 = 4;

/// The interrupt, as a person types it.
const INTERRUPT: u8 = 3;

/// Comes back when the person has detached, or when the terminal in which they type has gone.
pub(super) async fn pass_on(client: &Client, run: RunId, how: &How) -> Result<()> {
    let mut chunks = read_stdin()?;
    let mut writer = client.terminal_input(run);
    let mut finder = Finder::new(how.detach_keys.clone());
    let mut queue = BytesMut::new();
    // One is there before one has typed anything, which the first write of nothing tells.
    let mut unsent = usize::from(!how.read_only);
    let (mut open, mut last) = (true, b'\n');
    loop {
        tokio::select! {
            // First: what is handed over counts as taken from the first look on, whatever becomes of this turn.
            biased;
            sent = writer.write(queue.split().freeze()), if unsent > 0 => {
                unsent = 0;
                if !sent? {
                    // It has ended; whoever waits for that says so.
                    return std::future::pending().await;
                }
            }
            chunk = chunks.recv(), if open && unsent < AHEAD => match chunk {
                Some(chunk) => {
                    let chunk = chunk
                        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
                    let (bytes, detached) = finder.pass(&chunk);
                    if detached || (how.read_only && bytes.contains(&INTERRUPT)) {
                        return Ok(());
                    }
                    if !how.read_only && !bytes.is_empty() {
                        last = bytes.last().copied().unwrap_or(last);
                        unsent += bytes.len();
                        queue.extend_from_slice(&bytes);
                    }
                }
                None if raw::typed() => return Ok(()),
                None => {
                    open = false;
                    if !how.read_only {
                        // A terminal has no end of file but this; behind an unfinished line the first one ends the line.
                        let ends = if last == b'\n' { 1 } else { 2 };
                        unsent += ends;
                        queue.extend_from_slice(&[END_OF_INPUT; 2][..ends]);
                    }
                }
            },
            else => return std::future::pending().await,
        }
    }
}

/// Tells the hub whenever the window has another size. Sizes that are overtaken while one is told are left out.
pub(super) async fn follow_window(
    client: &Client,
    run: RunId,
    raw: Option<&Raw>,
    told: Option<Window>,
) -> Result<Infallible> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut continued = signal(SignalKind::from_raw(CONTINUED))?;
    let mut told = told;
    loop {
        if let Some(window) = raw::window().filter(|window| told != Some(*window)) {
            told = Some(window);
            tell(client, run, window).await;
        }
        tokio::select! {
            _ = resized.recv() => {}
            _ = continued.recv() => {
                if let Some(raw) = raw {
                    raw.again();
                }
            }
        }
        // While a window is dragged there are many.
        tokio::time::sleep(SETTLE).await;
    }
}

/// Between a change of the window and telling it.
const SETTLE: Duration = Duration::from_millis(20);

/// SIGCONT.
const CONTINUED: i32 = 18;

/// Tells the hub a size. A terminal that has ended needs none.
async fn tell(client: &Client, run: RunId, window: Window) {
    let params = ResizeParams { key: client.clock().key(), run, window };
    client.call::<TerminalResize>(&params).await.ok();
}

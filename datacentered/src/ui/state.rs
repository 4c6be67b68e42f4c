//! The line at the bottom of the terminal that says how things stand.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Ui;

/// A line that is redrawn in place; on anything but a terminal it does not exist.
#[derive(Clone, Debug)]
pub(crate) struct StateLine(Option<ProgressBar>);

impl StateLine {
    /// A line on standard error, where that is a terminal and a person reads.
    pub(crate) fn new(ui: Ui) -> Self {
        if !ui.err_terminal || ui.json() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}{wide_msg}") {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    /// A line with a bar of bytes.
    pub(crate) fn bytes(ui: Ui) -> Self {
        let line = Self::new(ui);
        if let Some(bar) = &line.0 {
            let look = "{prefix}[{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(look) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_length(0);
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        line
    }

    /// So many bytes more are to come.
    pub(crate) fn expect(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc_length(bytes);
        }
    }

    /// So many bytes more have come.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    /// A line that is never shown.
    pub(crate) fn hidden() -> Self {
        Self(None)
    }

    /// Whether there is one to keep up to date.
    pub(crate) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// Says how things stand now.
    pub(crate) fn set(&self, text: String) {
        if let Some(bar) = &self.0 {
            bar.enable_steady_tick(Duration::from_millis(125));
            bar.set_message(text);
        }
    }

    /// Says what is in the way, before how things stand; nothing any more where it is empty.
    pub(crate) fn set_trouble(&self, text: &'static str) {
        if let Some(bar) = &self.0 {
            bar.enable_steady_tick(Duration::from_millis(125));
            bar.set_prefix(text);
        }
    }

    /// Takes the line away while something else is written.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the line away for good.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

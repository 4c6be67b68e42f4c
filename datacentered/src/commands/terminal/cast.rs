//! `terminal export`: a recording as an asciicast, version 2.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use datacentered_client::Client;
use datacentered_proto::RunId;
use datacentered_proto::ops::job::Window;
use datacentered_proto::ops::terminal::Mark;
use serde_json::json;

use super::recording::{Piece, Recording};
use super::utf8::Utf8;
use super::{raw, show};
use crate::commands::run::report;
use crate::failure::{Failure, Result};
use crate::ui::Ui;

/// What a recording becomes.
struct Cast<W> {
    out: W,
    /// The time of the first mark: what came before it is no longer kept.
    began: Option<u64>,
    now_ms: u64,
    window: Option<Window>,
    text: Utf8,
}

impl<W: Write> Cast<W> {
    fn new(out: W) -> Self {
        Self { out, began: None, now_ms: 0, window: None, text: Utf8::default() }
    }

    fn line(&mut self, value: &serde_json::Value) -> Result<()> {
        Ok(writeln!(self.out, "{value}")?)
    }

    fn event(&mut self, code: &str, data: &str) -> Result<()> {
        let elapsed = self.now_ms.saturating_sub(self.began.unwrap_or(0));
        self.line(&json!([elapsed as f64 / 1000.0, code, data]))
    }

    /// The header, once the first window is known; then a resize wherever it changes.
    fn mark(&mut self, mark: Mark, header: &serde_json::Value) -> Result<()> {
        let Mark { at_ms, window } = mark;
        self.now_ms = at_ms;
        let before = self.window.replace(window);
        if before.is_none() {
            self.began = Some(at_ms);
            let mut header = header.clone();
            header["width"] = window.cols.into();
            header["height"] = window.rows.into();
            return self.line(&header);
        }
        if before != Some(window) {
            return self.event("r", &format!("{}x{}", window.cols, window.rows));
        }
        Ok(())
    }

    fn output(&mut self, bytes: &[u8]) -> Result<()> {
        let text = self.text.pass(bytes);
        if text.is_empty() { Ok(()) } else { self.event("o", &text) }
    }

    fn end(&mut self) -> Result<()> {
        let text = self.text.end();
        if !text.is_empty() {
            self.event("o", &text)?;
        }
        Ok(self.out.flush()?)
    }
}

/// Writes what is kept of the recording up to now.
pub(super) async fn export(ui: Ui, client: &Client, run: RunId, file: Option<PathBuf>) -> Result<()> {
    let shown = show(client, run).await?;
    let Some(terminal) = &shown.exec.terminal else {
        return Err(Failure::usage(format!("run {run} is no terminal"))
            .hint("'datacentered terminal list' shows those that there are"));
    };
    let mut header = json!({"version": 2, "width": 0, "height": 0, "env": {"TERM": terminal.term}});
    let started = shown.targets.first().and_then(|target| target.started).unwrap_or(shown.summary.created);
    header["timestamp"] = (started.as_millis() / 1000).into();
    header["title"] = format!("{}: {}", shown.summary.on.join(" "), shown.summary.command).into();
    let mut recording = Recording::open(client, run, &shown);
    // Nothing is made before the hub has let anything be read.
    let mut piece = recording.next().await?;
    let out: Box<dyn Write> = match &file {
        Some(path) => {
            let made = File::create_new(path).map_err(|error| {
                Failure::usage(format!("cannot make the file {}: {error}", path.display()))
            })?;
            Box::new(made)
        }
        None => Box::new(std::io::stdout()),
    };
    let mut cast = Cast::new(BufWriter::new(out));
    while let Some(next) = piece {
        match next {
            Piece::Mark(mark) => cast.mark(mark, &header)?,
            Piece::Bytes(bytes) => {
                if cast.window.is_none() {
                    cast.mark(Mark { at_ms: 0, window: terminal.window }, &header)?;
                }
                cast.output(&bytes)?;
            }
            Piece::Gap(from, to, reason) => ui.message(&report::gap(None, from, to, reason)),
        }
        piece = recording.next().await?;
    }
    if cast.window.is_none() {
        let window = if terminal.window.is_valid() { terminal.window } else { raw::DEFAULT_WINDOW };
        cast.mark(Mark { at_ms: 0, window }, &header)?;
    }
    cast.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asciicast() {
        let mut out = Vec::new();
        let mut cast = Cast::new(&mut out);
        let header = json!({"version": 2, "width": 0, "height": 0, "timestamp": 1, "env": {"TERM": "xterm"}});
        let mark = |at_ms, cols| Mark { at_ms, window: Window { cols, rows: 24 } };
        cast.mark(mark(1000, 80), &header).expect("written");
        cast.output("a€".as_bytes().get(..3).expect("bytes")).expect("written");
        cast.mark(mark(1500, 80), &header).expect("written");
        cast.output("a€".as_bytes().get(3..).expect("bytes")).expect("written");
        cast.mark(mark(2250, 100), &header).expect("written");
        cast.output(b"\x1b[0m\xff\xe2").expect("written");
        cast.end().expect("written");
        let text = String::from_utf8(out).expect("text");
        let mut lines = text.lines();
        let header: serde_json::Value = serde_json::from_str(lines.next().expect("a line")).expect("JSON");
        assert_eq!(
            (&header["version"], &header["width"], &header["height"]),
            (&json!(2), &json!(80), &json!(24))
        );
        let rest: Vec<serde_json::Value> =
            lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(
            rest,
            [
                json!([0.0, "o", "a"]),
                json!([0.5, "o", "€"]),
                json!([1.25, "r", "100x24"]),
                json!([1.25, "o", "\u{1b}[0m\u{fffd}"]),
                json!([1.25, "o", "\u{fffd}"]),
            ]
        );
    }
}

//! The one place where anything is printed: data on standard output, our messages on standard error.

pub(crate) mod connection;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod writer;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Format;
use crate::failure::{Failure, Result};
use crate::text::clean::{clean, shorten};

/// How and where this process prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    /// What was asked for.
    pub(crate) format: Format,
    /// Whether standard output is a terminal.
    pub(crate) out_terminal: bool,
    /// Whether standard error is one; progress is shown only there.
    pub(crate) err_terminal: bool,
}

impl Ui {
    /// For this process.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, out_terminal: io::stdout().is_terminal(), err_terminal: io::stderr().is_terminal() }
    }

    /// Whether programs read the output.
    pub(crate) fn json(self) -> bool {
        self.format == Format::Json
    }

    /// One line of data.
    #[expect(clippy::unused_self, reason = "only who was handed the user interface prints")]
    pub(crate) fn line(self, line: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// One JSON document: indented for a terminal, else on one line.
    pub(crate) fn document<T: Serialize>(self, value: &T) -> Result<()> {
        let text = if self.out_terminal {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        self.line(&text.map_err(|error| Failure::failed(format!("cannot encode the result: {error}")))?)
    }

    /// One JSON object of many, on one line.
    pub(crate) fn object<T: Serialize>(self, value: &T) -> Result<()> {
        self.line(&encode_line(value)?)
    }

    /// A reply: as a document for programs, as `text` for people.
    pub(crate) fn reply<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        if self.json() { self.document(value) } else { self.line(&text()) }
    }

    /// A message of ours. Standard error may be closed: there is nobody else to tell.
    #[expect(clippy::unused_self, reason = "only who was handed the user interface prints")]
    pub(crate) fn message(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// What a person may want to do next, where one reads along.
    pub(crate) fn advice(self, text: &str) {
        if self.err_terminal && !self.json() {
            self.message(text);
        }
    }

    /// A cell of a table: cut where it would be too wide for a terminal, whole for everything else.
    pub(crate) fn cell(self, text: &str, width: usize) -> String {
        if self.out_terminal { shorten(text, width) } else { clean(text) }
    }

    /// Why the command did not go well.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        self.message(&format!("error: {}", failure.message));
        if let Some(hint) = &failure.hint {
            self.message(&format!("hint: {hint}"));
        }
    }
}

/// A value as one line of JSON.
pub(crate) fn encode_line<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Failure::failed(format!("cannot encode the result: {error}")))
}

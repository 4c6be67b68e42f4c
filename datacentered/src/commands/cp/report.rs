//! What became of a copy: for people as it happens, for programs as one document.

use std::sync::{Arc, Mutex, PoisonError};

use datacentered_client as client;
use datacentered_proto::{Code, Error};
use serde::Serialize;

use crate::failure::Failure;
use crate::text::clean::clean;
use crate::ui::Ui;
use crate::ui::state::StateLine;

/// Failures that are told one by one in a document; the rest is counted.
const LISTED: usize = 1000;

/// Why something was not copied.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This one file, or this one host; the rest goes on.
    Here(Error),
    /// Nothing goes on.
    Everywhere(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl From<client::Error> for Trouble {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Refused { operation, error } => match error.code {
                // What a host's file system says is about that file; what the hub says about us or the host is not.
                Code::Unauthenticated | Code::Forbidden | Code::NotFound | Code::Invalid
                    if error.file_fault().is_none() =>
                {
                    Self::Everywhere(client::Error::Refused { operation, error }.into())
                }
                _ => Self::Here(error),
            },
            other => Self::Everywhere(other.into()),
        }
    }
}

/// One thing that was not copied.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failed {
    path: String,
    code: Code,
    message: String,
}

/// What was copied between this machine and one host, or between two.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// The host that was copied from or to.
    pub(super) host: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) files: u64,
    pub(super) directories: u64,
    pub(super) symlinks: u64,
    pub(super) bytes: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<Failed>,
}

/// A report in the making; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Log {
    ui: Ui,
    state: StateLine,
    report: Arc<Mutex<Report>>,
}

impl Log {
    pub(super) fn new(ui: Ui, state: StateLine, host: &str, from: String, to: String) -> Self {
        let report = Report { host: host.to_owned(), from, to, ..Report::default() };
        Self { ui, state, report: Arc::new(Mutex::new(report)) }
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Report) -> T) -> T {
        // Counters and a list: whole after any panic.
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something was not copied.
    pub(super) fn fail(&self, path: &[u8], error: &Error) {
        let path = clean(&String::from_utf8_lossy(path));
        let message = clean(&error.message);
        let host = self.with(|report| {
            report.failed += 1;
            if report.failures.len() < LISTED {
                let failed = Failed { path: path.clone(), code: error.code, message: message.clone() };
                report.failures.push(failed);
            }
            clean(&report.host)
        });
        self.say(&format!("{host}: {message}"));
    }

    /// Something is left out on purpose.
    pub(super) fn skip(&self, path: &[u8], why: &str) {
        let host = self.with(|report| {
            report.skipped += 1;
            clean(&report.host)
        });
        self.say(&format!("{host}: {}: {why}", clean(&String::from_utf8_lossy(path))));
    }

    /// Something worth a word, although all is well.
    pub(super) fn note(&self, path: &[u8], what: &str) {
        let host = self.with(|report| clean(&report.host));
        self.say(&format!("{host}: {}: {what}", clean(&String::from_utf8_lossy(path))));
    }

    /// Bytes were copied.
    pub(super) fn advance(&self, bytes: u64) {
        self.state.advance(bytes);
    }

    /// More is to be copied.
    pub(super) fn expect(&self, bytes: u64) {
        self.state.expect(bytes);
    }

    pub(super) fn report(&self) -> Report {
        self.with(|report| report.clone())
    }

    fn say(&self, text: &str) {
        if !self.ui.json() {
            self.state.suspend(|| self.ui.message(text));
        }
    }
}

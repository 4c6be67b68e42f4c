//! A terminal as a test sits before it.

use std::time::Instant;

use bytes::Bytes;
use datacentered_agent_lib::jobs::{Jobs, OutputReader};
use datacentered_proto::JobId;
use datacentered_proto::ops::job::{ExecSpec, JobReport, TerminalSpec, Window};

use super::{Host, Output, PATIENCE, command};

/// The window that [`terminal`] begins with.
pub(crate) const WINDOW: Window = Window { cols: 80, rows: 24 };

/// A command on a terminal.
pub(crate) fn terminal(argv: &[&str]) -> ExecSpec {
    let mut spec = command(argv);
    spec.terminal = Some(TerminalSpec { window: WINDOW, term: "xterm-256color".into() });
    spec
}

/// A shell's script on a terminal.
pub(crate) fn terminal_sh(script: &str) -> ExecSpec {
    terminal(&["/bin/sh", "-c", script])
}

/// One that is looked at and typed into.
pub(crate) struct Screen<'a> {
    pub(crate) jobs: &'a Jobs,
    pub(crate) job: JobId,
    reader: OutputReader,
    pub(crate) output: Output,
    /// Bytes of the output that were waited for.
    seen: usize,
}

impl<'a> Screen<'a> {
    pub(crate) async fn open(host: &'a Host, spec: ExecSpec) -> Self {
        let job = host.start(spec).await;
        Self::of(&host.jobs, job).await
    }

    pub(crate) async fn of(jobs: &'a Jobs, job: JobId) -> Self {
        let reader = jobs.output(job, 0).await.expect("is known");
        Self { jobs, job, reader, output: Output::default(), seen: 0 }
    }

    /// Types what the host takes at once.
    pub(crate) async fn types(&self, bytes: impl AsRef<[u8]>) {
        let mut input = self.jobs.input(self.job).await.expect("has one");
        let held = input.held();
        input.write(held, Bytes::copy_from_slice(bytes.as_ref())).await.expect("takes it");
    }

    /// Waits until it shows a text behind what was waited for before.
    pub(crate) async fn shows(&mut self, text: &str) {
        let begin = Instant::now();
        loop {
            let fresh = &self.output.stdout[self.seen..];
            if let Some(at) = fresh.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.seen += at + text.len();
                return;
            }
            // Looked through once is enough, but for a text that has begun.
            self.seen += fresh.len().saturating_sub(text.len());
            assert!(begin.elapsed() < PATIENCE, "never {text:?}: {:?}", self.output.text());
            let event = tokio::time::timeout(PATIENCE, self.reader.next()).await;
            let event = event.unwrap_or_else(|_| panic!("never {text:?}: {:?}", self.output.text()));
            assert!(!self.output.add(event.expect("reads")), "ended: {:?}", self.output.text());
        }
    }

    pub(crate) async fn resize(&self, cols: u16, rows: u16) {
        self.jobs.resize(self.job, Window { cols, rows }).await.expect("resizes");
    }

    /// Reads to the end; the report says the same as the record.
    pub(crate) async fn ends(mut self) -> (JobReport, Output) {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.reader.next()).await.expect("in time");
            if self.output.add(event.expect("reads")) {
                break;
            }
        }
        let report = self.jobs.report(self.job).expect("is known");
        assert_eq!(report.stderr_bytes, 0);
        assert_eq!(report.stdout_bytes + report.mark_bytes, self.output.end, "{report:?}");
        if self.output.gaps.is_empty() {
            assert_eq!(report.stdout_bytes, self.output.stdout.len() as u64);
            assert_eq!(report.mark_bytes, 12 * self.output.marks.len() as u64);
        }
        (report, self.output)
    }
}

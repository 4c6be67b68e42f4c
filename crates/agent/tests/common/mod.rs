//! A place for jobs in a temporary directory, and what tests ask of it.

#![allow(
    dead_code,
    clippy::print_stdout,
    reason = "every test file uses its own part of this; tests may print"
)]

pub(crate) mod holder;
pub(crate) mod terminal;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use datacentered_agent_lib::boot::BootReader;
use datacentered_agent_lib::jobs::{Jobs, JobsConfig, OutputEvent};
use datacentered_link::clock::Clock;
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::GapReason;
use datacentered_proto::ops::job::{ExecSpec, JobReport, Offer};
use datacentered_proto::ops::terminal::Mark;
use datacentered_proto::{ByteString, JobId, JobState, Outcome, RunId};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The helper program.
pub(crate) fn helper() -> PathBuf {
    env!("CARGO_BIN_EXE_jobs-test-helper").into()
}

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) jobs: Jobs,
    pub(crate) config: JobsConfig,
}

pub(crate) fn config(dir: &Path) -> JobsConfig {
    JobsConfig { shim_program: helper(), ..JobsConfig::new(dir) }
}

pub(crate) async fn open(config: &JobsConfig) -> Jobs {
    Jobs::open(config.clone(), Clock::system(), BootReader::system()).await.expect("opens")
}

impl Host {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut JobsConfig)) -> Self {
        let dir = tempfile::tempdir().expect("makes");
        let mut config = config(&dir.path().join("data"));
        change(&mut config);
        Self { jobs: open(&config).await, dir, config }
    }

    /// The agent ends and comes back.
    pub(crate) async fn reopen(mut self) -> Self {
        self.jobs.shutdown().await;
        drop(self.jobs);
        self.jobs = open(&self.config).await;
        self
    }

    pub(crate) async fn reopen_with(mut self, boot: BootReader) -> Self {
        self.jobs.shutdown().await;
        drop(self.jobs);
        self.jobs = Jobs::open(self.config.clone(), Clock::system(), boot).await.expect("opens");
        self
    }

    pub(crate) fn job_dir(&self, job: JobId) -> PathBuf {
        self.config.dir.join("jobs").join(job.to_string())
    }

    pub(crate) fn offer_of(&self, spec: ExecSpec) -> Offer {
        offer_of(spec, self.jobs.incarnation())
    }

    pub(crate) async fn start(&self, spec: ExecSpec) -> JobId {
        let offer = self.offer_of(spec);
        let job = offer.job;
        self.jobs.offer(offer).await.expect("takes it");
        job
    }

    pub(crate) async fn run(&self, spec: ExecSpec) -> JobReport {
        let job = self.start(spec).await;
        self.ended(job).await
    }

    pub(crate) async fn ended(&self, job: JobId) -> JobReport {
        self.until(job, |report| report.state == JobState::Ended).await
    }

    pub(crate) async fn running(&self, job: JobId) -> JobReport {
        self.until(job, |report| report.state >= JobState::Running).await
    }

    pub(crate) async fn until(&self, job: JobId, done: impl Fn(&JobReport) -> bool) -> JobReport {
        let begin = Instant::now();
        loop {
            let report = self.jobs.report(job).expect("is known");
            if done(&report) {
                return report;
            }
            assert!(begin.elapsed() < PATIENCE, "still {report:?}");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    pub(crate) async fn output(&self, job: JobId) -> Output {
        self.output_from(job, 0).await
    }

    pub(crate) async fn output_from(&self, job: JobId, from: u64) -> Output {
        let mut reader = self.jobs.output(job, from).await.expect("is known");
        let mut output = Output { end: from, ..Output::default() };
        loop {
            let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("reads");
            if output.add(event) {
                return output;
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Each mark, and how many bytes of standard output came before it.
    pub(crate) marks: Vec<(Mark, usize)>,
    pub(crate) gaps: Vec<(u64, u64, GapReason)>,
    pub(crate) end: u64,
}

impl Output {
    /// Adds an event that must follow on what was before; true at the end.
    pub(crate) fn add(&mut self, event: OutputEvent) -> bool {
        match event {
            OutputEvent::Bytes { kind, offset, bytes } => {
                assert_eq!(offset, self.end, "continuous");
                assert!(!bytes.is_empty() && bytes.len() <= 16 << 10);
                self.end += bytes.len() as u64;
                match kind {
                    Kind::Mark => {
                        let mark = Mark::decode(&bytes).expect("a whole mark");
                        self.marks.push((mark, self.stdout.len()));
                    }
                    Kind::Stderr => self.stderr.extend_from_slice(&bytes),
                    _ => self.stdout.extend_from_slice(&bytes),
                }
                false
            }
            OutputEvent::Gap { from, to, reason } => {
                assert_eq!(from, self.end, "continuous");
                assert!(to > from);
                self.end = to;
                self.gaps.push((from, to, reason));
                false
            }
            OutputEvent::End { offset } => {
                assert_eq!(offset, self.end, "complete");
                true
            }
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

pub(crate) fn offer_of(spec: ExecSpec, incarnation: &str) -> Offer {
    let clock = Clock::system();
    Offer {
        job: JobId::from_uuid(clock.uuid()),
        run: clock.run_id(),
        incarnation: incarnation.to_owned(),
        by: "tester".into(),
        spec,
    }
}

pub(crate) fn run_id() -> RunId {
    Clock::system().run_id()
}

pub(crate) fn command(argv: &[&str]) -> ExecSpec {
    ExecSpec::command(argv.iter().map(|argument| ByteString::from(*argument)).collect())
}

pub(crate) fn sh(script: &str) -> ExecSpec {
    command(&["/bin/sh", "-c", script])
}

pub(crate) fn facts(report: &JobReport) -> Vec<&str> {
    report.evidence.iter().map(|evidence| evidence.fact.as_str()).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "compared with a report's outcome")]
pub(crate) fn exited(code: i32) -> Option<Outcome> {
    Some(Outcome::Exited { code })
}

/// Whether a process is there (zombies are not).
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// Processes whose environment or arguments hold a text.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let me = i32::try_from(std::process::id()).expect("fits");
    std::fs::read_dir("/proc")
        .expect("reads")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != me && is_alive(*pid))
        .filter(|pid| {
            ["cmdline", "environ"].iter().any(|file| {
                std::fs::read(format!("/proc/{pid}/{file}"))
                    .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
            })
        })
        .collect()
}

/// The process id of a job's shim.
pub(crate) fn shim_of(job: JobId) -> i32 {
    let begin = Instant::now();
    loop {
        let found = processes_with(&job.to_string());
        for pid in found {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split(|b| *b == 0).nth(1) == Some(b"shim") {
                return pid;
            }
        }
        assert!(begin.elapsed() < PATIENCE, "there is no shim");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn kill(pid: i32, signal: i32) {
    let _ = datacentered_agent_lib::sys::kill(pid, signal);
}

pub(crate) async fn eventually(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is written for each number from 0 to `count`, in a row.
pub(crate) fn lines(count: u32, line: impl Fn(u32) -> String) -> String {
    (0..count).map(line).collect()
}

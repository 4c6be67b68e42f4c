//! The program as a child process.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use super::fake_hub::FakeHub;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits that a test can sit out.
const FAST: &str = "[reconnect]\nbase_ms = 20\ncap_ms = 100\n[hub]\nreport_retry_ms = 20\n";

/// One run of the program. Ended and reaped however the test ends; its shims end with their commands.
pub(crate) struct Program {
    child: Child,
    data_dir: Arc<TempDir>,
    read: usize,
}

impl Program {
    /// Enrols with the hub.
    pub(crate) fn join(hub: &FakeHub) -> Self {
        let data_dir = Arc::new(tempfile::tempdir().expect("tempdir"));
        std::fs::write(data_dir.path().join("agent.toml"), FAST).expect("writes");
        std::fs::write(data_dir.path().join("token"), hub.token()).expect("writes");
        let token = format!("@{}", data_dir.path().join("token").display());
        let url = hub.address.to_string();
        let args = ["join", &url, "--token", &token, "--name", "web-1", "--label", "role=test", "-o", "json"];
        Self::spawn(data_dir, &args)
    }

    /// Starts on a data directory.
    pub(crate) fn start(data_dir: Arc<TempDir>, args: &[&str]) -> Self {
        Self::spawn(data_dir, &[&["start"], args].concat())
    }

    fn spawn(data_dir: Arc<TempDir>, args: &[&str]) -> Self {
        let file = |name: &str| std::fs::File::create(data_dir.path().join(name)).expect("creates");
        // A file that may not grow is a failed write, and no end by a signal.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_datacentered-agent")])
            .args(args)
            .arg("--data-dir")
            .arg(data_dir.path())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("starts");
        Self { child, data_dir, read: 0 }
    }

    /// The data directory, for what a test puts there and for the next run.
    pub(crate) fn data_dir(&self) -> Arc<TempDir> {
        self.data_dir.clone()
    }

    /// The next event of a kind on standard output; others before it are skipped.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        let search = async {
            loop {
                let events = self.events();
                let found = events.iter().skip(self.read).position(|event| event["event"] == kind);
                if let Some(at) = found {
                    self.read += at + 1;
                    return events[self.read - 1].clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no event: {kind}"))
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.data_dir.path().join("stdout")).expect("reads");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
    }

    /// One line of the kernel's summary of the process's memory.
    pub(crate) fn memory_kib(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let summary = std::fs::read_to_string(path).expect("reads");
        let line = summary.lines().find_map(|line| line.strip_prefix(what)).expect("has the line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("signals");
    }

    /// From now on no file takes a byte of the process.
    pub(crate) fn fail_writes(&self) {
        let none = Rlimit { current: Some(0), maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, none).expect("limits");
    }

    /// Waits for the end of the process.
    pub(crate) async fn gone(&mut self) -> Option<i32> {
        let wait = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("waits") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("ends")
    }

    /// Sends a signal and waits; the exit code, all events, and the log.
    pub(crate) async fn end(mut self, signal: Signal) -> (Option<i32>, Vec<Value>, String) {
        self.signal(signal);
        self.finished().await
    }

    /// Waits; the exit code, all events, and the log.
    pub(crate) async fn finish(mut self) -> (Option<i32>, Vec<Value>, String) {
        self.finished().await
    }

    async fn finished(&mut self) -> (Option<i32>, Vec<Value>, String) {
        let code = self.gone().await;
        (code, self.events(), std::fs::read_to_string(self.data_dir.path().join("stderr")).expect("reads"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

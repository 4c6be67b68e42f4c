//! A hub or agent as a process of its own, which says in JSON lines how it is.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::{Failure, Result};
use crate::text::clean::clean;

/// How long a server may take to say what is waited for.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long a server may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Longest line that a server says, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;

/// Lines that wait to be read; the servers say few.
const QUEUE: usize = 64;

/// What is shown of a failed server's log, in bytes.
const LOG_TAIL: u64 = 2000;

/// A server's process.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    events: mpsc::Receiver<Value>,
    log: PathBuf,
    /// Goes on reading, so that the server never waits for its pipe.
    _reader: AbortOnDropHandle<()>,
}

impl Server {
    /// Starts this same program with other arguments; its messages go to a file in `directory`.
    pub(crate) fn start(
        name: &'static str,
        directory: &Path,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self> {
        let unstartable =
            |error: std::io::Error| Failure::failed(format!("cannot start the {name}: {error}"));
        let program = std::env::current_exe().map_err(unstartable)?;
        let log = directory.join(format!("{name}.log"));
        let messages = File::create(&log).map_err(unstartable)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages)
            // Ctrl-C in this terminal is for this command, which then ends them in order.
            .process_group(0)
            .kill_on_drop(true);
        for (variable, _) in std::env::vars_os() {
            // What is set for this person's own hub is not meant for this one.
            if variable.as_encoded_bytes().starts_with(b"DATACENTERED_") {
                command.env_remove(variable);
            }
        }
        let mut child = command.spawn().map_err(unstartable)?;
        let (sender, events) = mpsc::channel(QUEUE);
        let reader = tokio::spawn(read_events(child.stdout.take(), sender));
        Ok(Self { name, child, events, log, _reader: AbortOnDropHandle::new(reader) })
    }

    /// Waits until the server has said `event`.
    pub(crate) async fn event(&mut self, event: &str) -> Result<Value> {
        let said = async {
            while let Some(value) = self.events.recv().await {
                if value.get("event").and_then(Value::as_str) == Some(event) {
                    return Some(value);
                }
            }
            None
        };
        match timeout(READY_WITHIN, said).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(self.ended().await),
            Err(_) => Err(self.failure(&format!(
                "the {} did not get ready within {} s",
                self.name,
                READY_WITHIN.as_secs()
            ))),
        }
    }

    /// Waits until the process has ended, which is a failure while it is needed.
    pub(crate) async fn ended(&mut self) -> Failure {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.failure(&format!("the {} ended ({how})", self.name))
    }

    /// Asks the process to end, and ends it where it does not.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already; then there is nothing to ask for.
            kill_process(pid, Signal::TERM).ok();
        }
        if timeout(END_WITHIN, self.child.wait()).await.is_err() {
            self.child.kill().await.ok();
        }
    }

    /// Ends the process at once, as a crash would.
    pub(crate) async fn kill(mut self) {
        // It may have ended already; then there is nothing to end.
        self.child.kill().await.ok();
    }

    /// Its process number, for as long as it has not been waited for.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    fn failure(&self, message: &str) -> Failure {
        let log = tail(&self.log).unwrap_or_default();
        let lines: Vec<String> = log.lines().map(|line| format!("\n  {}", clean(line))).collect();
        Failure::failed(format!("{message}; the last it said was:{}", lines.concat()))
    }
}

async fn read_events(stdout: Option<ChildStdout>, events: mpsc::Sender<Value>) {
    let Some(stdout) = stdout else { return };
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Ok(value) = serde_json::from_slice(&line) {
            // Nobody waits for the later ones; they are dropped when the queue is full.
            events.try_send(value).ok();
        }
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

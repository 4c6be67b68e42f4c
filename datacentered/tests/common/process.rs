//! Processes of the program: servers that say how they are in JSON lines, and commands that must end in time.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;

/// Events that a test has not looked at yet; later ones are dropped.
const QUEUE: usize = 1024;

/// A hub or an agent.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    events: Receiver<Value>,
    log: PathBuf,
}

impl Server {
    /// Starts it; what it logs is added to a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let messages = OpenOptions::new().append(true).create(true).open(log).expect("a log");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages)
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, events) = sync_channel(QUEUE);
        // It ends with the process, whose end closes the pipe.
        std::thread::spawn(move || {
            for value in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                sender.try_send(value).ok();
            }
        });
        Self { child, events, log: log.to_owned() }
    }

    /// Waits until it has said `event`.
    #[track_caller]
    pub(crate) fn event(&mut self, event: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(value) if value["event"] == event => return value,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("no '{event}' in time; its log:\n{}", self.log()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended before '{event}'; its log:\n{}", self.log())
                }
            }
        }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub(crate) fn terminate(mut self) {
        signal(&self.child, Signal::TERM);
        let began = Instant::now();
        while self.child.try_wait().expect("a child").is_none() {
            assert!(began.elapsed() < PATIENCE, "it does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process number");
    kill_process(pid, signal).ok();
}

/// Waits for a command's end and its output; one that takes too long is killed, and the test fails.
#[track_caller]
pub(crate) fn wait_with_output(child: Child, patience: Duration) -> Output {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process number");
    let (sender, done) = sync_channel(1);
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output().expect("its output");
        sender.send(()).ok();
        output
    });
    let late = done.recv_timeout(patience).is_err();
    if late {
        kill_process(pid, Signal::KILL).ok();
    }
    let output = waiter.join().expect("the waiter ends");
    assert!(!late, "the command did not end in time: {output:?}");
    output
}

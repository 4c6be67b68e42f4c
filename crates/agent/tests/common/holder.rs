//! A process that holds jobs and can be killed for real.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use datacentered_proto::ops::job::{ListReply, Offer};

use super::{PATIENCE, helper};

/// A process that holds jobs.
pub(crate) struct Holder {
    pub(crate) child: Child,
    stdin: ChildStdin,
    pub(crate) lines: Receiver<String>,
}

impl Holder {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::spawn(Command::new(helper()).arg("hold").arg(dir))
    }

    /// One that lives on when a file may not grow.
    pub(crate) fn start_limited(dir: &Path) -> Self {
        let script = "trap '' XFSZ; exec \"$0\" hold \"$1\"";
        Self::spawn(Command::new("sh").args(["-c", script]).arg(helper()).arg(dir))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let stdin = child.stdin.take().expect("is piped");
        let stdout = child.stdout.take().expect("is piped");
        let (sender, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, lines }
    }

    pub(crate) fn say(&mut self, line: &str) {
        let _ = writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush());
    }

    pub(crate) fn hear(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("says something")
    }

    pub(crate) fn reports(&mut self) -> ListReply {
        self.say("reports");
        serde_json::from_str(&self.hear()).expect("a list")
    }

    /// Kills it for real.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }
}

/// An offer as the process takes it.
pub(crate) fn line_of(offer: &Offer) -> String {
    serde_json::to_string(offer).expect("encodes")
}

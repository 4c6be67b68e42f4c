//! `--group`: hosts that answered the same are shown together, and what they said once.
//!
//! Each stream of each host is compared by its hash and length. So that memory stays bounded, a host's output is held
//! up to [`HELD_PER_HOST`] only, and that of all hosts together up to [`HELD_IN_ALL`]; what is not held is read from
//! the hub's store again when it is printed.

use std::collections::HashMap;

use bytes::Bytes;
use datacentered_client::{Client, OutputEvent};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::run::Target;
use datacentered_proto::{Outcome, RunId};
use sha2::{Digest as _, Sha256};

use crate::failure::{Exit, Failure, Result};
use crate::text::clean::clean;
use crate::text::signal;
use crate::ui::Ui;
use crate::ui::writer::{Stopped, Stream, Writer};

/// Most output of one host that is held, in bytes.
const HELD_PER_HOST: usize = 64 * 1024;

/// Most output of all hosts that is held, in bytes.
const HELD_IN_ALL: usize = 32 * 1024 * 1024;

/// One stream of one host.
#[derive(Debug, Default)]
struct Said {
    hash: Sha256,
    length: u64,
    last: Option<u8>,
}

impl Said {
    fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        self.last = bytes.last().copied().or(self.last);
    }
}

/// What one host said.
#[derive(Debug)]
struct Host {
    out: Said,
    err: Said,
    /// Stretches that are missing: such an output equals no other, for nobody knows what stood there.
    holes: bool,
    /// Both streams, while they are small enough.
    held: Option<[Vec<u8>; 2]>,
}

/// What every host of a run said.
#[derive(Debug)]
pub(super) struct Groups {
    hosts: Vec<Host>,
    held: usize,
}

/// Hosts that said the same and ended the same way, by their places in the run.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    members: Vec<usize>,
    /// The one whose output is printed.
    shown: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Same {
    out: ([u8; 32], u64),
    err: ([u8; 32], u64),
    /// The host itself, where it is like no other.
    alone: Option<usize>,
    ended: String,
}

impl Groups {
    /// Nobody has said anything yet.
    pub(super) fn new(hosts: usize) -> Self {
        let host = || Host {
            out: Said::default(),
            err: Said::default(),
            holes: false,
            held: Some([vec![], vec![]]),
        };
        Self { hosts: (0..hosts).map(|_| host()).collect(), held: 0 }
    }

    /// Takes in what a host said.
    pub(super) fn take(&mut self, index: usize, event: &OutputEvent) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        match event {
            OutputEvent::Bytes { kind, bytes, .. } => {
                let error = *kind == Kind::Stderr;
                if error {
                    host.err.push(bytes);
                } else {
                    host.out.push(bytes);
                }
                let Some(held) = &mut host.held else { return };
                let before = held.iter().map(Vec::len).sum::<usize>();
                if before + bytes.len() > HELD_PER_HOST || self.held + bytes.len() > HELD_IN_ALL {
                    self.held -= before;
                    host.held = None;
                } else {
                    self.held += bytes.len();
                    held[usize::from(error)].extend_from_slice(bytes);
                }
            }
            OutputEvent::Gap { .. } => self.unlike(index),
            OutputEvent::End { .. } => {}
        }
    }

    /// Not all that this host said is known.
    pub(super) fn unlike(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.holes = true;
        }
    }

    /// The groups, in the order of their first hosts. Hosts that neither ran anything nor said anything are left out:
    /// they are explained elsewhere.
    fn gather(&mut self, targets: &[Target]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut known: HashMap<Same, usize> = HashMap::new();
        for (index, (host, target)) in self.hosts.iter_mut().zip(targets).enumerate() {
            if host.out.length + host.err.length == 0 && !ran(target.outcome.as_ref()) {
                continue;
            }
            let digest = |said: &mut Said| (said.hash.finalize_reset().into(), said.length);
            let same = Same {
                out: digest(&mut host.out),
                err: digest(&mut host.err),
                alone: host.holes.then_some(index),
                ended: target.outcome.as_ref().map(ended).unwrap_or_default(),
            };
            let place = *known.entry(same).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.members.push(index),
                None => groups.push(Group { members: vec![index], shown: index }),
            }
        }
        for group in &mut groups {
            // One of which everything is held need not be read again.
            let held = |index: &&usize| self.hosts.get(**index).is_some_and(|host| host.held.is_some());
            group.shown = group.members.iter().find(held).copied().unwrap_or(group.shown);
        }
        groups
    }

    /// Prints every group: its hosts, then what they said.
    pub(super) async fn print(
        mut self,
        ui: Ui,
        client: &Client,
        run: RunId,
        targets: &[Target],
        writer: &Writer,
    ) -> Result<()> {
        for group in self.gather(targets) {
            let Some(host) = self.hosts.get(group.shown) else { continue };
            let head = Bytes::from(head(&group, targets));
            write(writer, Stream::Out, head.clone()).await?;
            for (place, said) in [&host.out, &host.err].into_iter().enumerate() {
                let (kind, stream) = [(Kind::Stdout, Stream::Out), (Kind::Stderr, Stream::Err)][place];
                if said.length == 0 {
                    continue;
                }
                // Where the two go different ways, each says whose it is.
                if stream == Stream::Err && !(ui.out_terminal && ui.err_terminal) {
                    write(writer, stream, head.clone()).await?;
                }
                if let Some(held) = &host.held {
                    write(writer, stream, Bytes::copy_from_slice(&held[place])).await?;
                } else if let Some(target) = targets.get(group.shown) {
                    read_again(client, run, target, kind, writer, stream).await?;
                }
                if said.last != Some(b'\n') {
                    write(writer, stream, Bytes::from_static(b"\n")).await?;
                }
            }
        }
        Ok(())
    }
}

/// Prints one stream of a target from the hub's store.
async fn read_again(
    client: &Client,
    run: RunId,
    target: &Target,
    wanted: Kind,
    writer: &Writer,
    stream: Stream,
) -> Result<()> {
    let mut output = client.output(run, Some(target.host_id.to_string()), 0);
    while let Some(event) = output.next().await? {
        if let OutputEvent::Bytes { kind, bytes, .. } = event
            && kind == wanted
        {
            write(writer, stream, bytes).await?;
        }
    }
    Ok(())
}

async fn write(writer: &Writer, stream: Stream, bytes: Bytes) -> Result<()> {
    writer.write(stream, bytes).await.map_err(|Stopped| Failure::silent(Exit::BrokenPipe))
}

/// Whether a process was started.
fn ran(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::TimedOut))
}

/// How it ended, without what differs from host to host.
fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited { code: 0 } => String::new(),
        Outcome::Exited { code } => format!("exit code {code}"),
        Outcome::Signaled { signal } => format!("signal {}", signal::human(*signal)),
        other => other.kind().replace('_', " "),
    }
}

/// `web1, web2 (2 hosts):`, and how it ended where that was not well.
fn head(group: &Group, targets: &[Target]) -> String {
    let members: Vec<&Target> = group.members.iter().filter_map(|index| targets.get(*index)).collect();
    let names: Vec<String> = members.iter().map(|target| clean(&target.host)).collect();
    let hosts = if names.len() == 1 { "1 host".to_owned() } else { format!("{} hosts", names.len()) };
    let ended = members.first().and_then(|target| target.outcome.as_ref()).map(ended).unwrap_or_default();
    let ended = if ended.is_empty() { ended } else { format!(", {ended}") };
    format!("{} ({hosts}{ended}):\n", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ops::GapReason;
    use serde_json::json;

    fn target(host: &str, outcome: serde_json::Value) -> Target {
        serde_json::from_value(json!({
            "host": host, "host_id": "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f",
            "job": "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f", "state": "ended", "unknown": false,
            "outcome": outcome, "evidence": [], "stdout_bytes": 0, "stderr_bytes": 0, "stored_bytes": 0,
        }))
        .expect("a target")
    }

    fn exited(host: &str, code: i32) -> Target {
        target(host, json!({"kind": "exited", "code": code}))
    }

    fn said(kind: Kind, bytes: &[u8]) -> OutputEvent {
        OutputEvent::Bytes { kind, offset: 0, bytes: Bytes::copy_from_slice(bytes) }
    }

    fn heads(groups: &mut Groups, targets: &[Target]) -> Vec<String> {
        groups.gather(targets).iter().map(|group| head(group, targets)).collect()
    }

    #[test]
    fn the_same_words_on_the_same_stream_and_the_same_end() {
        let targets = [exited("web1", 0), exited("web2", 0), exited("web3", 0), exited("web4", 3)];
        let mut groups = Groups::new(4);
        // How the bytes were cut, and how the streams lay in time, is not what was said.
        groups.take(0, &said(Kind::Stdout, b"ab"));
        groups.take(0, &said(Kind::Stderr, b"c"));
        groups.take(1, &said(Kind::Stderr, b"c"));
        groups.take(1, &said(Kind::Stdout, b"a"));
        groups.take(1, &said(Kind::Stdout, b"b"));
        groups.take(2, &said(Kind::Stdout, b"abc"));
        groups.take(3, &said(Kind::Stdout, b"ab"));
        groups.take(3, &said(Kind::Stderr, b"c"));
        assert_eq!(
            heads(&mut groups, &targets),
            ["web1, web2 (2 hosts):\n", "web3 (1 host):\n", "web4 (1 host, exit code 3):\n"]
        );
    }

    #[test]
    fn what_is_not_whole_equals_nothing_and_what_never_ran_is_left_out() {
        let away = || target("db1", json!({"kind": "offline", "since": null}));
        let targets = [exited("a", 0), exited("b", 0), exited("c", 0), away()];
        let mut groups = Groups::new(4);
        groups.take(1, &OutputEvent::Gap { from: 0, to: 9, reason: GapReason::Lost });
        assert_eq!(heads(&mut groups, &targets), ["a, c (2 hosts):\n", "b (1 host):\n"]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_not_held_is_compared_all_the_same() {
        let hosts = 2 * HELD_IN_ALL / HELD_PER_HOST;
        let targets: Vec<Target> = (0..hosts).map(|index| exited(&format!("h{index}"), 0)).collect();
        let mut groups = Groups::new(hosts);
        let piece = said(Kind::Stdout, &vec![b'x'; HELD_PER_HOST / 2]);
        for _ in 0..2 {
            for index in 0..hosts {
                groups.take(index, &piece);
                let held: usize =
                    groups.hosts.iter().filter_map(|host| host.held.as_ref()).flatten().map(Vec::len).sum();
                assert!(held == groups.held && held <= HELD_IN_ALL, "{held}");
            }
        }
        // Two hosts say more than is held of one.
        for index in [0, 1] {
            groups.take(index, &piece);
            assert!(groups.hosts[index].held.is_none());
        }
        let gathered = groups.gather(&targets);
        assert_eq!(gathered.iter().map(|group| group.members.len()).collect::<Vec<_>>(), [2, hosts - 2]);
        assert!(groups.hosts[gathered[1].shown].held.is_some(), "one that need not be read again");
    }
}

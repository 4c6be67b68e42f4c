//! What scripts wait on: one JSON object a line on standard output, where it was asked for.

use std::io::Write as _;

use datacentered_proto::HostId;
use serde::Serialize;

/// Something that a script may wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Announcement {
    /// The host has its identity, on disk.
    Enrolled {
        /// Its identity in the hub's registry.
        host: HostId,
        /// The name that the hub gave it.
        name: String,
    },
    /// The link is up and the hub knows this host.
    Connected {
        /// The address that answered.
        hub: String,
        /// The host's name on the hub.
        name: String,
    },
    /// The link is down, or an attempt to bring it up failed.
    Disconnected {
        /// A stable word such as `link_lost`, `unreachable`, `revoked`.
        reason: &'static str,
        /// The same for a person.
        message: String,
        /// When the next attempt comes, in milliseconds from now.
        retry_ms: u64,
    },
    /// The agent ends in good order; what it runs goes on.
    Stopped,
}

/// Tells announcements to whoever asked for them.
#[derive(Clone, Copy, Debug)]
pub struct Announcer {
    json: bool,
}

impl Announcer {
    /// With `json`, announcements go to standard output; without, standard output stays empty.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Tells one.
    pub fn tell(&self, announcement: &Announcement) {
        if !self.json {
            return;
        }
        if let Ok(mut line) = serde_json::to_vec(announcement) {
            line.push(b'\n');
            let mut out = std::io::stdout().lock();
            // A script that has read what it waited for may close the pipe; the agent goes on.
            let _ = out.write_all(&line).and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_as_scripts_expect_them() {
        let text = |announcement| serde_json::to_string(&announcement).expect("encodes");
        let lost = Announcement::Disconnected { reason: "link_lost", message: "x".into(), retry_ms: 250 };
        assert_eq!(
            text(lost),
            r#"{"event":"disconnected","reason":"link_lost","message":"x","retry_ms":250}"#
        );
        let host = "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f".parse().expect("id");
        assert_eq!(
            text(Announcement::Enrolled { host, name: "a".into() }),
            r#"{"event":"enrolled","host":"0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f","name":"a"}"#
        );
        assert_eq!(
            text(Announcement::Connected { hub: "wss://h:1".into(), name: "a".into() }),
            r#"{"event":"connected","hub":"wss://h:1","name":"a"}"#
        );
        assert_eq!(text(Announcement::Stopped), r#"{"event":"stopped"}"#);
    }
}

//! What agent and shim say to each other: one JSON message per packet on a sequenced-packet Unix socket.
//!
//! Both sides begin with a hello that carries [`super::launch::VERSION`]. Unknown messages are ignored, so that a newer agent can
//! work with an older shim and the other way round.

use datacentered_proto::Timestamp;
use datacentered_proto::ops::job::Window;
use serde::{Deserialize, Serialize};

use crate::journal::slots::{End, Started};

/// Largest packet, in bytes.
pub const MAX_PACKET: usize = 16 << 10;

/// From the agent to a shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ToShim {
    /// The first message on every connection.
    Hello {
        /// The agent's version of the protocol.
        version: u32,
    },
    /// The job is in the journal: begin. Only on the connection that the shim was started with.
    Go {
        /// The slot that was reserved for it.
        slot: u32,
    },
    /// The last [`FromShim::Progress`] was seen; send the next when there is one.
    Seen,
    /// End the job: TERM to the whole tree, then KILL.
    Cancel {
        /// Who asked.
        by: String,
    },
    /// A signal to the whole tree.
    Signal {
        /// Names the request in its answer.
        id: u64,
        /// The signal's number.
        signal: i32,
    },
    /// Another window for the terminal; since version [`super::launch::TERMINAL_VERSION`].
    Resize {
        /// Names the request in its answer.
        id: u64,
        /// The window.
        window: Window,
    },
    /// Output below this offset is no longer needed.
    Ack {
        /// The offset.
        upto: u64,
    },
    /// The file of standard input has grown.
    Input {
        /// How long it is now.
        length: u64,
        /// Whether this is all there will be.
        eof: bool,
    },
    /// A message of a newer agent.
    #[serde(other)]
    Unknown,
}

/// From a shim to the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FromShim {
    /// The first message on every connection.
    Hello {
        /// The shim's version of the protocol.
        version: u32,
        /// The shim's process id.
        pid: i32,
        /// Whether the program was executed already, and when.
        started: Option<Started>,
    },
    /// The program was executed.
    Started(Started),
    /// How far output and input are.
    Progress(Progress),
    /// Answers [`ToShim::Signal`].
    Signalled {
        /// The request.
        id: u64,
        /// To how many processes it was sent.
        processes: u32,
    },
    /// Answers [`ToShim::Resize`].
    Resized {
        /// The request.
        id: u64,
        /// Whether there is a terminal that has the window now.
        done: bool,
    },
    /// The outcome; its record is written and being synced.
    Ended(End),
    /// Outcome and output are on disk; the shim ends.
    Synced(Syncs),
    /// A message of a newer shim.
    #[serde(other)]
    Unknown,
}

/// How far a job's output and input are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of standard output so far, discarded ones included.
    pub stdout: u64,
    /// Bytes of standard error so far, discarded ones included.
    pub stderr: u64,
    /// Bytes of a terminal's marks so far, discarded ones included.
    #[serde(default)]
    pub marks: u64,
    /// Bytes of standard input that the process has been given.
    pub stdin: u64,
}

/// How many times a shim waited for the disk, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syncs {
    /// For the record that precedes the exec.
    pub starting: u32,
    /// For the output.
    pub spool: u32,
    /// For the outcome.
    pub end: u32,
    /// When all of it was on disk.
    pub at: Option<Timestamp>,
}

/// Writes a message as one packet's bytes.
///
/// # Errors
/// Where it would be larger than [`MAX_PACKET`].
pub fn encode(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_PACKET {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_of_newer_versions_are_unknown_not_errors() {
        let unknown = serde_json::from_str::<ToShim>(r#"{"t":"dance","steps":[1]}"#).expect("decodes");
        assert_eq!(unknown, ToShim::Unknown);
        let unknown = serde_json::from_str::<FromShim>(r#"{"t":"sing"}"#).expect("decodes");
        assert_eq!(unknown, FromShim::Unknown);
    }

    #[test]
    fn the_hello_is_fixed() {
        let text = serde_json::to_string(&ToShim::Hello { version: 1 }).expect("encodes");
        assert_eq!(text, r#"{"t":"hello","version":1}"#);
    }

    #[test]
    fn a_window_is_said_as_later_versions_expect_it() {
        let resize = ToShim::Resize { id: 1, window: Window { cols: 80, rows: 24 } };
        let text = serde_json::to_string(&resize).expect("encodes");
        assert_eq!(text, r#"{"t":"resize","id":1,"window":{"cols":80,"rows":24}}"#);
        // What a shim of the first version says of its progress.
        let progress =
            serde_json::from_str::<FromShim>(r#"{"t":"progress","stdout":1,"stderr":2,"stdin":3}"#);
        let expected = Progress { stdout: 1, stderr: 2, marks: 0, stdin: 3 };
        assert_eq!(progress.expect("decodes"), FromShim::Progress(expected));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = serde_json::from_slice::<ToShim>(&bytes);
            let _ = serde_json::from_slice::<FromShim>(&bytes);
        }
    }
}

//! Files on hosts: looked at, read, written beside their place, and put there.
//!
//! Every operation names a `root` and, mostly, a `path` below it. The root is what a person wrote: it is found as any
//! program would find it, symbolic links included; a relative one begins in the home directory of the agent's user. The
//! path below it never leaves the root and never goes through a symbolic link.
//!
//! The hub's operations and the agents' twins take the same parameters; an agent takes no notice of `host` and `key`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StreamOpen;
use crate::bytestring::ByteString;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::ids::OperationKey;

/// Most entries of one `file.place`.
pub const MAX_PLACED: usize = 256;

/// Bytes of a file that may be under way on one stream: on a link with 20 ms to the other end that is 50 MiB a second.
pub const FILE_WINDOW: u64 = 1024 * 1024;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe: it is not copied.
    Other,
}

/// A time of a file, exactly as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTime {
    /// Seconds since 1970.
    pub s: i64,
    /// Nanoseconds behind them, below 10^9.
    #[serde(default)]
    pub ns: u32,
}

/// The numbers of a file's user and group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// One thing in a file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Where it is below the root; empty for the root itself.
    pub path: ByteString,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes in it.
    pub size: u64,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Whose it is.
    pub owner: Owner,
    /// When its content changed last.
    pub mtime: FileTime,
    /// When it was read last.
    pub atime: FileTime,
    /// Which file it is, as long as it exists: another file in its place has another one.
    pub version: String,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ByteString>,
    /// Why what is in a directory could not be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// `file.stat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatParams {
    /// The host, by name or id.
    pub host: String,
    /// A file or directory; a symbolic link is followed.
    pub root: ByteString,
    /// Below the root; the root itself where it is empty. A symbolic link is not followed.
    #[serde(default)]
    pub path: ByteString,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatReply {
    /// Absent where there is nothing.
    pub entry: Option<Entry>,
}

/// `file.list`: everything below a directory, each directory before what is in it, by the bytes of the names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// The host, by name or id.
    pub host: String,
    /// The directory; a symbolic link is followed.
    pub root: ByteString,
    /// Go on behind this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ByteString>,
    /// Most entries in the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListReply {
    /// The entries; symbolic links are not followed.
    pub entries: Vec<Entry>,
    /// Where the next page begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ByteString>,
}

/// `file.read`: a file's bytes, as frames of kind file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadParams {
    /// The host, by name or id.
    pub host: String,
    /// The file, or the directory that `path` lies below; a symbolic link is followed.
    pub root: ByteString,
    /// Below the root; the root itself where it is empty. A symbolic link is not followed.
    #[serde(default)]
    pub path: ByteString,
    /// The first byte wanted, where there is no cursor.
    #[serde(default)]
    pub from: u64,
    /// Go on from here. A conflict where another file is in its place by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Bytes of the whole file that are wanted; as many as it has now where absent. It is an error when it has fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether a [`ReadNote`] as JSON follows behind the last byte, in the same stream.
    #[serde(default)]
    pub note: bool,
    /// The stream.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// What follows behind the last byte of a file, where it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadNote {
    /// SHA-256 of the file's bytes from the first one on, in lower-case hex, as the sender read them.
    pub sha256: String,
    /// Bytes that the file has now: more than were sent where it has grown meanwhile.
    pub size_now: u64,
}

/// `file.write`: bytes for a file (frames of kind file from the caller), which are kept beside its place until
/// `file.place` puts them there. The cursor of the reply says how many bytes the host holds already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteParams {
    /// The host, by name or id.
    pub host: String,
    /// The directory that `path` lies below; it has to be there.
    pub root: ByteString,
    /// The file, below the root; the directory that it lies in has to be there.
    pub path: ByteString,
    /// The name of what is kept beside the place: 8 to 64 of `[a-z0-9]`, the same when the same copy is taken up again.
    pub part: String,
    /// Which attempt this is. Another opening of the same attempt takes the place of the first one; another attempt
    /// waits for the first one to end.
    pub transfer: OperationKey,
    /// Bytes that the whole file has.
    pub size: u64,
    /// Begins anew: what is kept beside the place is thrown away.
    #[serde(default)]
    pub fresh: bool,
    /// The stream. It ends with reason `done` at the size.
    #[serde(default)]
    pub stream: StreamOpen,
}

/// Permissions, times and owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Where a file is replaced, its permissions and owner stay.
    #[serde(default)]
    pub keep_existing: bool,
    /// When its content changed last; now where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<FileTime>,
    /// When it was read last; now where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atime: Option<FileTime>,
    /// Whose it is to be. Only an agent that runs as root can give files away; others take no notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// What is to be put in a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Placing {
    /// A directory; one that is there already stays as it is.
    Directory {
        /// Permission bits; the owner's are added until the directory gets its attributes.
        mode: u32,
    },
    /// Attributes for a directory that is there.
    Attributes {
        /// The attributes.
        attributes: Attributes,
    },
    /// A symbolic link; another link or a file in its place is replaced.
    Symlink {
        /// Where it leads.
        target: ByteString,
        /// Times and owner.
        attributes: Attributes,
    },
    /// What `file.write` has kept: checked, made durable, and put in its place in one step.
    File {
        /// As in `file.write`.
        part: String,
        /// As in `file.write`.
        transfer: OperationKey,
        /// Bytes that it has.
        size: u64,
        /// SHA-256 of all of them, in lower-case hex. On a mismatch what was kept is thrown away.
        sha256: String,
        /// Permissions, times and owner.
        attributes: Attributes,
    },
    /// What `file.write` has kept is thrown away; the place stays as it is.
    Discard {
        /// As in `file.write`.
        part: String,
        /// As in `file.write`.
        transfer: OperationKey,
    },
}

/// One place below a root, and what goes there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlaceEntry {
    /// The place, below the root.
    pub path: ByteString,
    /// What goes there.
    #[serde(flatten)]
    pub placing: Placing,
}

/// `file.place`: one after the other; one that fails does not keep the others from being put in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceParams {
    /// The client's key for this change.
    pub key: OperationKey,
    /// The host, by name or id.
    pub host: String,
    /// The directory that every place lies below.
    pub root: ByteString,
    /// At most 256.
    pub entries: Vec<PlaceEntry>,
}

/// What became of one place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Placed {
    /// There was nothing before.
    #[serde(default)]
    pub made: bool,
    /// Why it is as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// What became of every place, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaceReply {
    /// The results.
    pub results: Vec<Placed>,
}

/// The member of [`Error::details`] that says what a host's file system has against an operation: one of [`fault`].
pub const FAULT: &str = "file";

/// The words that [`FAULT`] may hold; they never change their meaning.
pub mod fault {
    /// There is no such file or directory.
    pub const NOT_FOUND: &str = "not_found";
    /// The agent's user may not do that.
    pub const PERMISSION: &str = "permission";
    /// The file system is full, or a quota.
    pub const FULL: &str = "full";
    /// There is something else in the place: a directory where a file is meant, and so on.
    pub const KIND: &str = "kind";
    /// The file has become shorter while it was read.
    pub const SHRANK: &str = "shrank";
    /// Another file is in its place by now.
    pub const CHANGED: &str = "changed";
    /// The host holds less than the whole file: send the rest.
    pub const INCOMPLETE: &str = "incomplete";
    /// The bytes that arrived are not those that were sent.
    pub const CHECKSUM: &str = "checksum";
    /// Everything else that a file system says.
    pub const OTHER: &str = "other";
}

impl Error {
    /// What a file system has against it, where it was one.
    pub fn file_fault(&self) -> Option<&str> {
        self.details.as_ref()?.get(FAULT)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_documented() {
        let text = r#"{"path":"a/b","kind":"symlink","target":"../c","attributes":{"mode":511}}"#;
        let entry: PlaceEntry = serde_json::from_str(text).expect("parses");
        assert!(
            matches!(&entry.placing, Placing::Symlink { target, .. } if *target == ByteString::from("../c"))
        );
        assert_eq!(
            serde_json::from_str::<PlaceEntry>(&serde_json::to_string(&entry).expect("encodes"))
                .expect("parses"),
            entry
        );
        let bytes = PlaceEntry { path: ByteString(vec![0xff]), placing: Placing::Directory { mode: 0o755 } };
        let text = serde_json::to_string(&bytes).expect("encodes");
        assert_eq!(serde_json::from_str::<PlaceEntry>(&text).expect("parses"), bytes);
    }

    #[test]
    fn faults_are_told_apart_from_other_errors() {
        let full = Error::limited("full").with_details(serde_json::json!({FAULT: fault::FULL}));
        assert_eq!(full.file_fault(), Some("full"));
        assert_eq!(Error::limited("busy").file_fault(), None);
    }
}

//! One file, from one side to the other.

use std::time::Duration;

use bytes::Bytes;
use datacentered_agent_lib::files::Held;
use datacentered_agent_lib::files::hash::{Hasher, hex};
use datacentered_client::Sent;
use datacentered_proto::ops::file::{Attributes, Entry, PlaceEntry, Placing, fault};
use datacentered_proto::{ByteString, Error, OperationKey};

use super::Options;
use super::report::{Log, Trouble};
use super::side::{Place, Side};
use super::source::From;
use super::target::{PartId, To};

/// How often a copy is begun anew because the source became another file, or arrived damaged.
const RESTARTS: u32 = 3;

/// How often the rest is sent where the host lost some, such as by a power cut.
const COMPLETIONS: u32 = 20;

/// A file that has been written beside its place and waits to be put there.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) entry: PlaceEntry,
    pub(super) held: Option<Held>,
    pub(super) bytes: u64,
}

/// One copy of one file.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) source: Entry,
    pub(super) options: Options,
    pub(super) transfer: OperationKey,
    pub(super) log: Log,
}

/// What a copied thing is given, as the options say.
pub(super) fn attributes(entry: &Entry, preserve: bool) -> Attributes {
    if preserve {
        Attributes {
            mode: entry.mode,
            keep_existing: false,
            mtime: Some(entry.mtime),
            atime: Some(entry.atime),
            owner: Some(entry.owner),
        }
    } else {
        Attributes { mode: entry.mode & 0o777, keep_existing: true, ..Attributes::default() }
    }
}

impl Copy {
    /// Copies the file and puts it in its place.
    pub(super) async fn run(&mut self) -> Result<(), Trouble> {
        let mut completions = 0;
        let mut fresh = !self.options.resume;
        loop {
            let written = self.write(fresh).await?;
            let bytes = written.bytes;
            let placed = self.to.side.place(&self.to.root, vec![written.entry], written.held).await?;
            let error = placed.into_iter().next().and_then(|placed| placed.error);
            match error {
                None => {
                    self.count(bytes);
                    return Ok(());
                }
                Some(error) if error.file_fault() == Some(fault::INCOMPLETE) && completions < COMPLETIONS => {
                    completions += 1;
                    fresh = false;
                }
                Some(error) if error.file_fault() == Some(fault::CHECKSUM) && completions < COMPLETIONS => {
                    // What was kept from before may not be what it seemed; from the first byte on it is.
                    completions = COMPLETIONS;
                    fresh = true;
                }
                Some(error) => return Err(error.into()),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// One more file is in its place.
    pub(super) fn count(&self, bytes: u64) {
        self.log.with(|report| {
            report.files += 1;
            report.bytes += bytes;
        });
    }

    /// Copies the file up to the point where it can be put in its place. What cannot be taken up again is thrown away.
    pub(super) async fn write(&mut self, mut fresh: bool) -> Result<Written, Trouble> {
        let mut restarts = 0;
        loop {
            match self.attempt(fresh).await {
                Err(Trouble::Here(error)) => {
                    let other = error.file_fault() == Some(fault::CHANGED);
                    if other && restarts < RESTARTS {
                        restarts += 1;
                        fresh = true;
                        self.look_again().await?;
                        continue;
                    }
                    self.discard().await;
                    return Err(error.into());
                }
                result => return result,
            }
        }
    }

    async fn look_again(&mut self) -> Result<(), Trouble> {
        let shown = self.from.shown();
        match self.from.side.stat(&shown).await? {
            Some(entry) => {
                self.source = Entry { path: self.source.path.clone(), ..entry };
                Ok(())
            }
            None => Err(Error::not_found(format!(
                "{} was removed while it was copied",
                String::from_utf8_lossy(&shown)
            ))
            .into()),
        }
    }

    /// The same for every attempt at the same copy of the same file, also by another process.
    fn part(&self) -> String {
        let mut hash = Hasher::new();
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        // Hosts may share a file system: each writes a part of its own.
        for side in [&self.from.side, &self.to.side] {
            match side {
                Side::Host { name, .. } => add(name.as_bytes()),
                Side::Here => add(b""),
            }
        }
        add(&self.from.shown());
        add(self.to.path.as_bytes());
        add(self.source.version.as_bytes());
        add(&self.source.size.to_be_bytes());
        add(&self.source.mtime.s.to_be_bytes());
        add(&self.source.mtime.ns.to_be_bytes());
        hex(&hash.finish()).chars().take(16).collect()
    }

    async fn attempt(&self, fresh: bool) -> Result<Written, Trouble> {
        let size = self.source.size;
        let id = PartId { part: self.part(), transfer: self.transfer, size };
        let (mut to, mut at) = To::open(&self.to, &id, fresh).await?;
        let mut from = From::open(&self.from, &self.source, at).await?;
        let mut shown = at;
        self.log.advance(at);
        loop {
            let piece = from.next().await?;
            let last = piece.is_none();
            let sent = match piece {
                Some(piece) => self.send(&mut to, piece, &mut at).await?,
                None => to.end().await?,
            };
            match sent {
                Sent::Sent if last => break,
                Sent::Sent => {}
                Sent::GoOnAt(there) => {
                    at = there;
                    from.go_back(there).await?;
                }
            }
            // What is sent a second time does not count twice.
            self.log.advance(at.saturating_sub(shown));
            shown = shown.max(at);
        }
        self.log.advance(size.saturating_sub(shown));
        let note = from.note().await?;
        if note.size_now > size {
            self.log.note(
                &self.from.shown(),
                &format!(
                    "it grew while it was copied; the {size} bytes that it had at the start were copied"
                ),
            );
        }
        let attributes = attributes(&self.source, self.options.preserve);
        let placing =
            Placing::File { part: id.part, transfer: id.transfer, size, sha256: note.sha256, attributes };
        let entry = PlaceEntry { path: self.to.path.clone(), placing };
        Ok(Written { entry, held: to.held(), bytes: size })
    }

    async fn send(&self, to: &mut To, piece: Bytes, at: &mut u64) -> Result<Sent, Trouble> {
        let len = piece.len() as u64;
        let sent = to.send(piece).await?;
        if sent == Sent::Sent {
            *at += len;
        }
        Ok(sent)
    }

    /// Throws away what is kept beside the place; where that does not work it only takes room.
    async fn discard(&self) {
        let placing = Placing::Discard { part: self.part(), transfer: self.transfer };
        let entry = PlaceEntry { path: self.to.path.clone(), placing };
        self.to.side.place(&self.to.root, vec![entry], None).await.ok();
    }
}

/// A name below another, as it goes over the wire.
pub(super) fn below(path: &ByteString, name: &[u8]) -> ByteString {
    ByteString(crate::text::endpoint::join(path.as_bytes(), name))
}

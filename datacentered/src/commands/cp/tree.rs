//! A directory with all that is in it.
//!
//! Directories are made first, with their owner's rights added, and get their own permissions and times at the end, so
//! that one which nobody may write to can be filled. Files go several at a time; each page is done before the next is
//! asked for, so that memory does not grow with the tree, but for what its directories are to become.

use std::collections::VecDeque;

use datacentered_proto::ByteString;
use datacentered_proto::ops::file::{Entry, EntryKind, MAX_PLACED, PlaceEntry, Placed, Placing, fault};
use tokio::task::JoinSet;

use super::file::{Copy, Written, attributes, below};
use super::report::Trouble;
use super::side::Place;

/// Files of one tree that are copied at a time.
const AT_ONCE: usize = 6;

/// Files that wait to be put in their places together.
const TOGETHER: usize = 64;

/// Directories that one copy may make: what they are to become is remembered until its end.
const MAX_DIRECTORIES: usize = 1_000_000;

/// A tree that is being copied; the parts of `copy` that concern one file are those of its top.
pub(super) struct Tree {
    copy: Copy,
    /// Directories that were made, and what they get at the end.
    directories: Vec<PlaceEntry>,
    /// What could not be made: nothing below is tried.
    lost: Vec<ByteString>,
    files: JoinSet<(Copy, Result<Written, Trouble>)>,
    written: Vec<(Copy, Written)>,
}

/// Copies a tree: what is below the source's root comes below the target's path.
pub(super) async fn copy(copy: Copy) -> Result<(), Trouble> {
    let mut tree =
        Tree { copy, directories: Vec::new(), lost: Vec::new(), files: JoinSet::new(), written: Vec::new() };
    let top = Entry { path: ByteString::default(), ..tree.copy.source.clone() };
    if !tree.copy.to.path.as_bytes().is_empty() {
        tree.make(vec![top]).await?;
        if !tree.lost.is_empty() {
            return Ok(());
        }
    }
    let mut next = None;
    loop {
        let page = tree.copy.from.side.list(&tree.copy.from.root, next).await?;
        tree.page(page.entries).await?;
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    tree.finish().await
}

impl Tree {
    async fn page(&mut self, entries: Vec<Entry>) -> Result<(), Trouble> {
        let (directories, others): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.kind == EntryKind::Directory);
        for entry in &directories {
            if let Some(error) = &entry.error {
                self.copy.log.fail(entry.path.as_bytes(), error);
            }
        }
        self.make(directories).await?;
        let mut links = Vec::new();
        for entry in others {
            if self.is_lost(&entry.path) {
                continue;
            }
            match entry.kind {
                EntryKind::File => self.start(entry).await?,
                EntryKind::Symlink => links.push(entry),
                EntryKind::Directory | EntryKind::Other => {
                    let why = "left out: it is a device, a socket or a pipe";
                    self.copy.log.skip(entry.path.as_bytes(), why);
                }
            }
        }
        self.links(links).await?;
        self.drain().await
    }

    fn is_lost(&self, path: &ByteString) -> bool {
        let below = |lost: &ByteString| {
            path.as_bytes()
                .strip_prefix(lost.as_bytes())
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        };
        self.lost.iter().any(below)
    }

    fn target(&self, path: &ByteString) -> ByteString {
        below(&self.copy.to.path, path.as_bytes())
    }

    /// Puts things in their places, and tells of those that could not be put there.
    async fn place(&self, entries: Vec<PlaceEntry>) -> Result<Vec<Placed>, Trouble> {
        let mut results = Vec::with_capacity(entries.len());
        let mut entries = VecDeque::from(entries);
        while !entries.is_empty() {
            let some: Vec<PlaceEntry> = entries.drain(..entries.len().min(MAX_PLACED)).collect();
            results.extend(self.copy.to.side.place(&self.copy.to.root, some, None).await?);
        }
        Ok(results)
    }

    /// Makes directories, the outer ones first.
    async fn make(&mut self, directories: Vec<Entry>) -> Result<(), Trouble> {
        let wanted: Vec<Entry> = directories.into_iter().filter(|entry| !self.is_lost(&entry.path)).collect();
        let entries = wanted
            .iter()
            .map(|entry| PlaceEntry {
                path: self.target(&entry.path),
                placing: Placing::Directory { mode: entry.mode },
            })
            .collect();
        let results = self.place(entries).await?;
        for (entry, placed) in wanted.into_iter().zip(results) {
            if let Some(error) = placed.error {
                if !self.is_lost(&entry.path) {
                    self.copy.log.fail(entry.path.as_bytes(), &error);
                }
                self.lost.push(entry.path);
                continue;
            }
            self.copy.log.with(|report| report.directories += 1);
            // One that was there keeps what it had, unless -p.
            if placed.made || self.copy.options.preserve {
                if self.directories.len() >= MAX_DIRECTORIES {
                    let told = format!("more than {MAX_DIRECTORIES} directories; copy the tree in parts");
                    return Err(datacentered_proto::Error::limited(told).into());
                }
                let attributes = attributes(&entry, self.copy.options.preserve);
                let path = self.target(&entry.path);
                self.directories.push(PlaceEntry { path, placing: Placing::Attributes { attributes } });
            }
        }
        Ok(())
    }

    async fn links(&mut self, links: Vec<Entry>) -> Result<(), Trouble> {
        let entries = links
            .iter()
            .map(|entry| PlaceEntry {
                path: self.target(&entry.path),
                placing: Placing::Symlink {
                    target: entry.target.clone().unwrap_or_default(),
                    attributes: attributes(entry, self.copy.options.preserve),
                },
            })
            .collect();
        let results = self.place(entries).await?;
        for (entry, placed) in links.iter().zip(results) {
            match placed.error {
                Some(error) => self.copy.log.fail(entry.path.as_bytes(), &error),
                None => self.copy.log.with(|report| report.symlinks += 1),
            }
        }
        Ok(())
    }

    /// Begins a file, when there is room for one more.
    async fn start(&mut self, entry: Entry) -> Result<(), Trouble> {
        while self.files.len() >= AT_ONCE {
            self.one().await?;
        }
        self.copy.log.expect(entry.size);
        let from = Place { path: entry.path.clone(), ..self.copy.from.clone() };
        let to = Place { path: self.target(&entry.path), ..self.copy.to.clone() };
        let mut copy = Copy { from, to, source: entry, ..self.copy.clone() };
        self.files.spawn(async move {
            let fresh = !copy.options.resume;
            let written = copy.write(fresh).await;
            (copy, written)
        });
        Ok(())
    }

    /// Waits for one file.
    async fn one(&mut self) -> Result<(), Trouble> {
        let Some(done) = self.files.join_next().await else { return Ok(()) };
        let Ok((copy, written)) = done else {
            return Err(datacentered_proto::Error::internal("a part of this program failed").into());
        };
        match written {
            Ok(written) => self.written.push((copy, written)),
            Err(Trouble::Here(error)) => copy.log.fail(copy.source.path.as_bytes(), &error),
            Err(everywhere) => return Err(everywhere),
        }
        if self.written.len() >= TOGETHER {
            self.put().await?;
        }
        Ok(())
    }

    /// Puts what has been written in its places. What this machine wrote itself goes one by one, with its hash.
    async fn put(&mut self) -> Result<(), Trouble> {
        let written = std::mem::take(&mut self.written);
        let (known, unknown): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|(_, written)| written.held.is_some());
        for (copy, written) in known {
            let placed = copy.to.side.place(&copy.to.root, vec![written.entry], written.held).await?;
            let error = placed.into_iter().next().and_then(|placed| placed.error);
            self.put_one(copy, written.bytes, error).await?;
        }
        let entries = unknown.iter().map(|(_, written)| written.entry.clone()).collect();
        let results = self.place(entries).await?;
        for ((copy, written), placed) in unknown.into_iter().zip(results) {
            self.put_one(copy, written.bytes, placed.error).await?;
        }
        Ok(())
    }

    async fn put_one(
        &self,
        mut copy: Copy,
        bytes: u64,
        error: Option<datacentered_proto::Error>,
    ) -> Result<(), Trouble> {
        let Some(error) = error else {
            copy.count(bytes);
            return Ok(());
        };
        let error = match error.file_fault() {
            // The rest of it, or all of it again, and this time on its own.
            Some(fault::INCOMPLETE | fault::CHECKSUM) => match copy.run().await {
                Err(Trouble::Here(error)) => error,
                result => return result,
            },
            _ => error,
        };
        copy.log.fail(copy.source.path.as_bytes(), &error);
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Trouble> {
        while !self.files.is_empty() {
            self.one().await?;
        }
        self.put().await
    }

    /// Gives every directory what it is to have, the inner ones first.
    async fn finish(&mut self) -> Result<(), Trouble> {
        let mut directories = std::mem::take(&mut self.directories);
        directories.reverse();
        let results = self.place(directories.clone()).await?;
        for (entry, placed) in directories.iter().zip(results) {
            if let Some(error) = placed.error {
                self.copy.log.fail(entry.path.as_bytes(), &error);
            }
        }
        Ok(())
    }
}

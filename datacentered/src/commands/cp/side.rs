//! The two sides of a copy: this machine, or a host.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use datacentered_agent_lib::files::{self, Held, Placer, Relative};
use datacentered_client::Client;
use datacentered_proto::operations::{FileList, FilePlace, FileStat};
use datacentered_proto::ops::file::{
    Entry, ListParams, ListReply, PlaceEntry, PlaceParams, Placed, StatParams,
};
use datacentered_proto::{ByteString, Error};

use super::report::Trouble;
use crate::text::clean::clean;

/// Entries of one page of a tree.
pub(super) const PAGE: u32 = 1000;

/// A side of a copy.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// This machine.
    Here,
    /// A host.
    Host {
        /// The way to it.
        client: Client,
        /// Its name or id.
        name: String,
    },
}

/// A place on a side: a root, and what lies below it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) side: Side,
    pub(super) root: ByteString,
    pub(super) path: ByteString,
}

impl Place {
    /// The root as this machine finds it.
    pub(super) fn local(&self) -> Result<(PathBuf, Relative), Error> {
        Ok((local(self.root.as_bytes()), Relative::parse(&self.path)?))
    }

    /// For people.
    pub(super) fn shown(&self) -> Vec<u8> {
        crate::text::endpoint::join(self.root.as_bytes(), self.path.as_bytes())
    }
}

/// A root on this machine; an empty one is the directory we are in.
pub(super) fn local(root: &[u8]) -> PathBuf {
    let root = if root.is_empty() { b"." } else { root };
    Path::new(OsStr::from_bytes(root)).to_owned()
}

/// Does what blocks.
pub(super) async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::internal("a part of this program failed"))
}

impl Side {
    /// A path on this side, for people.
    pub(super) fn label(&self, path: &[u8]) -> String {
        let path = clean(&String::from_utf8_lossy(path));
        match self {
            Self::Here => path,
            Self::Host { name, .. } => format!("{name}:{path}"),
        }
    }

    /// What is at a path; none where there is nothing. The first thing that a host is asked, so that one which is away is an
    /// error at once.
    pub(super) async fn stat(&self, path: &[u8]) -> Result<Option<Entry>, Trouble> {
        let root = ByteString(path.to_vec());
        match self {
            Self::Here => {
                let root = local(path);
                Ok(block(move || files::stat(&root, &Relative::default())).await??)
            }
            Self::Host { client, name } => {
                let params = StatParams { host: name.clone(), root, path: ByteString::default() };
                Ok(client.call_host::<FileStat>(&params, false).await?.entry)
            }
        }
    }

    /// A page of what is below a directory.
    pub(super) async fn list(
        &self,
        root: &ByteString,
        next: Option<ByteString>,
    ) -> Result<ListReply, Trouble> {
        match self {
            Self::Here => {
                let root = local(root.as_bytes());
                let listed = block(move || {
                    let after = next.as_ref().map(Relative::parse).transpose()?;
                    files::list(&root, after.as_ref(), PAGE as usize)
                });
                Ok(listed.await??)
            }
            Self::Host { client, name } => {
                let params = ListParams { host: name.clone(), root: root.clone(), next, limit: Some(PAGE) };
                Ok(client.call_host::<FileList>(&params, true).await?)
            }
        }
    }

    /// Puts things in their places. `held` is what this machine knows of the one file that it wrote.
    pub(super) async fn place(
        &self,
        root: &ByteString,
        entries: Vec<PlaceEntry>,
        held: Option<Held>,
    ) -> Result<Vec<Placed>, Trouble> {
        match self {
            Self::Here => {
                let root = local(root.as_bytes());
                let placed = block(move || {
                    let mut placer = Placer::open(&root)?;
                    let mut results = Vec::with_capacity(entries.len());
                    for entry in &entries {
                        results.push(match Relative::parse(&entry.path) {
                            Ok(path) => placer.place(&path, &entry.placing, held),
                            Err(error) => Placed { made: false, error: Some(error) },
                        });
                    }
                    placer.finish().map(|()| results)
                });
                Ok(placed.await??)
            }
            Self::Host { client, name } => {
                let key = client.clock().key();
                let params = PlaceParams { key, host: name.clone(), root: root.clone(), entries };
                Ok(client.call_host::<FilePlace>(&params, true).await?.results)
            }
        }
    }
}

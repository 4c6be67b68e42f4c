//! `hostfile.*`: files of this host, for copies.
//!
//! Everything here goes through [`Files::admit`] first: the one place where the host has its word about files.

mod read;
mod write;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datacentered_link::{Answer, Called, Request};
use datacentered_proto::limits::{DEFAULT_PAGE, MAX_PAGE};
use datacentered_proto::ops::file::{
    ListParams, ListReply, MAX_PLACED, PlaceParams, PlaceReply, Placed, Placing, StatParams, StatReply,
};
use datacentered_proto::{ByteString, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::ServeConfig;
use crate::files::{self, Placer, Relative};
use crate::policy::{LocalTime, PolicyFile, Question};
use crate::sys::users;
use datacentered_link::clock::Clock;
use write::Writes;

/// When a caller that met a limit may try again, in milliseconds.
const RETRY_AFTER_MS: u64 = 200;

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// It is looked at or read.
    Read,
    /// It is written, replaced or thrown away.
    Write,
}

impl Act {
    /// The first word of what the host's policy is asked.
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// The files of this host. It outlives links: a copy that is cut off goes on over the next one.
#[derive(Debug)]
pub struct Files {
    writes: Writes,
    streams: Arc<Semaphore>,
    /// Threads that file work may block at a time, so that a slow disk leaves some for jobs.
    workers: Arc<Semaphore>,
    limit: usize,
    policy: Arc<PolicyFile>,
    clock: Clock,
}

impl Files {
    /// With the limits of `[serve]`, and the host's policy.
    pub fn new(config: &ServeConfig, policy: Arc<PolicyFile>, clock: Clock) -> Self {
        Self {
            writes: Writes::default(),
            streams: Arc::new(Semaphore::new(config.file_streams)),
            workers: Arc::new(Semaphore::new(config.file_workers)),
            limit: config.file_streams,
            policy,
            clock,
        }
    }

    /// Says where a root is, and whether this host lets the hub do that there.
    ///
    /// The host's own rules belong here: every operation on files asks this, with the path as it will be used.
    fn admit(&self, act: Act, root: &ByteString, path: &Relative) -> Result<PathBuf, Error> {
        let root = files::root_path(root, &home())?;
        tracing::debug!(?act, root = %root.display(), path = %path.to_wire().to_text(), "a file operation");
        let at = LocalTime::of(self.clock.wall());
        match self.policy.refuses(|| Question::about_file(act.word(), &path.below(&root), at)) {
            None => Ok(root),
            Some(why) => Err(Error::forbidden(format!("refused by the host: {why}"))),
        }
    }

    /// Does something that blocks.
    async fn block<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        // The semaphore is never closed.
        let permit = self.workers.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|_| Error::internal("a file operation failed; the agent's log has more"))
    }

    /// Room for one more stream.
    fn slot(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Error> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Error::limited(format!(
                "this host copies {} files at once, as many as it may (`serve.file_streams` in its agent.toml); try later",
                self.limit
            ))
            .with_retry_after_ms(RETRY_AFTER_MS)
        })
    }

    pub(super) fn stat(self: &Arc<Self>, request: &Request) -> Called {
        self.blocking(request, |files, params: StatParams| {
            let path = Relative::parse(&params.path)?;
            let root = files.admit(Act::Read, &params.root, &path)?;
            Ok(StatReply { entry: files::stat(&root, &path)? })
        })
    }

    pub(super) fn list(self: &Arc<Self>, request: &Request) -> Called {
        self.blocking(request, |files, params: ListParams| -> Result<ListReply, Error> {
            let root = files.admit(Act::Read, &params.root, &Relative::default())?;
            let after = params.next.as_ref().map(Relative::parse).transpose()?;
            let limit = params.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
            files::list(&root, after.as_ref(), limit)
        })
    }

    pub(super) fn read(self: &Arc<Self>, request: &Request) -> Called {
        read::open(self, request)
    }

    pub(super) fn write(self: &Arc<Self>, request: &Request) -> Called {
        write::open(self, request)
    }

    pub(super) fn place(self: &Arc<Self>, request: &Request) -> Called {
        let params: PlaceParams = match request.params() {
            Ok(params) => params,
            Err(error) => return Called::Now(Err(error)),
        };
        let files = self.clone();
        Called::later(async move { Answer::of(&files.place_all(params).await?) })
    }

    async fn place_all(self: &Arc<Self>, params: PlaceParams) -> Result<PlaceReply, Error> {
        if params.entries.len() > MAX_PLACED {
            return Err(Error::invalid(format!("at most {MAX_PLACED} entries in one request")));
        }
        let root = self.admitted(params.root.clone(), Relative::default()).await?;
        let place = root.clone();
        let mut placer = self.block(move || Placer::open(&place)).await??;
        let mut reply = PlaceReply::default();
        for entry in params.entries {
            let admitted = match Relative::parse(&entry.path) {
                Ok(path) => self.admitted(params.root.clone(), path.clone()).await.map(|_| path),
                Err(error) => Err(error),
            };
            let placed = match admitted {
                Ok(path) => {
                    // Whoever still writes to the part has to come to its end first.
                    let settled = match &entry.placing {
                        Placing::File { part, transfer, .. } | Placing::Discard { part, transfer } => {
                            Some(self.writes.settle(&root, &path, part, *transfer).await)
                        }
                        _ => None,
                    };
                    let held = settled.as_ref().and_then(write::Settled::held);
                    if let Some(error) = settled.as_ref().and_then(write::Settled::failed) {
                        Placed { made: false, error: Some(error) }
                    } else {
                        let (back, placed) = self
                            .block(move || {
                                let placed = placer.place(&path, &entry.placing, held);
                                // Others are kept away also where nobody waits for this any more.
                                drop(settled);
                                (placer, placed)
                            })
                            .await?;
                        placer = back;
                        placed
                    }
                }
                Err(error) => Placed { made: false, error: Some(error) },
            };
            reply.results.push(placed);
        }
        self.block(move || placer.finish()).await??;
        Ok(reply)
    }

    async fn admitted(self: &Arc<Self>, root: ByteString, path: Relative) -> Result<PathBuf, Error> {
        let files = self.clone();
        self.block(move || files.admit(Act::Write, &root, &path)).await?
    }

    /// Answers with what blocks for a while.
    fn blocking<P, R>(
        self: &Arc<Self>,
        request: &Request,
        work: impl FnOnce(&Self, P) -> Result<R, Error> + Send + 'static,
    ) -> Called
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
    {
        let params: P = match request.params() {
            Ok(params) => params,
            Err(error) => return Called::Now(Err(error)),
        };
        let files = self.clone();
        let own = files.clone();
        Called::later(async move { Answer::of(&files.block(move || work(&own, params)).await??) })
    }
}

/// Where relative roots begin: the home directory of the agent's user.
fn home() -> PathBuf {
    match users::by_uid(rustix::process::geteuid().as_raw()) {
        Ok(Some(user)) if user.home.as_bytes().starts_with(b"/") => {
            Path::new(std::ffi::OsStr::from_bytes(user.home.as_bytes())).to_owned()
        }
        _ => PathBuf::from("/"),
    }
}

//! Where a file's bytes go to.

use bytes::Bytes;
use datacentered_agent_lib::files::{Held, Part};
use datacentered_client::{FileWriter, Sent};
use datacentered_proto::ops::StreamOpen;
use datacentered_proto::ops::file::WriteParams;
use datacentered_proto::{Error, OperationKey};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::report::Trouble;
use super::side::{Place, Side, block};

/// Pieces that wait for the disk: at 16 KiB from a link, 1 MiB.
const AHEAD: usize = 64;

/// How a part is to be found again.
#[derive(Clone, Debug)]
pub(super) struct PartId {
    pub(super) part: String,
    pub(super) transfer: OperationKey,
    pub(super) size: u64,
}

/// A file that is written, beside its place.
#[derive(Debug)]
pub(super) enum To {
    /// On this machine.
    Here(Local),
    /// On a host.
    Host(Box<FileWriter>),
}

impl To {
    /// Opens it; the first byte wanted.
    pub(super) async fn open(place: &Place, id: &PartId, fresh: bool) -> Result<(Self, u64), Trouble> {
        match &place.side {
            Side::Here => {
                let (root, path) = place.local()?;
                let PartId { part, size, .. } = id.clone();
                let part = block(move || Part::open(&root, &path, &part, size, fresh)).await??;
                let held = part.held();
                Ok((Self::Here(Local::start(part)), held))
            }
            Side::Host { client, name } => {
                let params = WriteParams {
                    host: name.clone(),
                    root: place.root.clone(),
                    path: place.path.clone(),
                    part: id.part.clone(),
                    transfer: id.transfer,
                    size: id.size,
                    fresh,
                    stream: StreamOpen::default(),
                };
                let mut writer = Box::new(client.write_file(params, true));
                let held = writer.open().await?;
                Ok((Self::Host(writer), held))
            }
        }
    }

    /// Takes the bytes that follow.
    pub(super) async fn send(&mut self, bytes: Bytes) -> Result<Sent, Trouble> {
        match self {
            Self::Here(local) => Ok(local.send(bytes).await?),
            Self::Host(writer) => Ok(writer.send(bytes).await?),
        }
    }

    /// That was all.
    pub(super) async fn end(&mut self) -> Result<Sent, Trouble> {
        match self {
            Self::Here(local) => Ok(local.end().await?),
            Self::Host(writer) => Ok(writer.end().await?),
        }
    }

    /// What this machine knows of what it wrote.
    pub(super) fn held(&self) -> Option<Held> {
        match self {
            Self::Here(local) => local.held,
            Self::Host(_) => None,
        }
    }
}

/// A file of this machine, written on a thread of its own.
#[derive(Debug)]
pub(super) struct Local {
    sender: Option<mpsc::Sender<Bytes>>,
    thread: Option<JoinHandle<Result<Held, Error>>>,
    held: Option<Held>,
}

impl Local {
    fn start(mut part: Part) -> Self {
        let (sender, mut pieces) = mpsc::channel::<Bytes>(AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(piece) = pieces.blocking_recv() {
                if let Err(error) = part.write(part.held(), &piece) {
                    part.remove();
                    return Err(error);
                }
            }
            let digest = part.finish()?;
            Ok(Held { size: part.held(), digest })
        });
        Self { sender: Some(sender), thread: Some(thread), held: None }
    }

    async fn send(&mut self, bytes: Bytes) -> Result<Sent, Error> {
        if let Some(sender) = &self.sender
            && sender.send(bytes).await.is_ok()
        {
            return Ok(Sent::Sent);
        }
        // The thread has given up; it says why.
        self.end().await.and_then(|_| Err(Error::internal("a file was written after its end")))
    }

    async fn end(&mut self) -> Result<Sent, Error> {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let held = thread.await.map_err(|_| Error::internal("a part of this program failed"))?;
            self.held = Some(held?);
        }
        Ok(Sent::Sent)
    }
}

//! Where a streaming operation writes, whatever carries it: a link's stream or an HTTP response.

use bytes::Bytes;
use datacentered_link::{BoxFuture, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::{EndReason, GapReason, StreamOpened};
use datacentered_proto::{Cursor, Error};
use serde::Serialize;
use tokio::sync::mpsc;

/// One step of a stream that HTTP carries.
#[derive(Clone, Debug)]
pub enum HttpItem {
    /// An item and the cursor behind it.
    Item {
        /// Hand it back to resume behind this item.
        cursor: Cursor,
        /// The item as JSON.
        json: String,
    },
    /// Bytes.
    Bytes {
        /// What they are.
        kind: Kind,
        /// Where the first of them stands.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Something is missing.
    Gap {
        /// The first missing offset.
        from: u64,
        /// Where it goes on.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// The end.
    End {
        /// Why.
        reason: EndReason,
        /// The final offset.
        offset: u64,
        /// What went wrong.
        error: Option<Error>,
    },
}

/// The reader has gone; stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reader of the stream has gone")]
pub struct ReaderGone;

/// The writing end of a stream.
#[derive(Debug)]
pub enum Outlet {
    /// A stream of a link.
    Link(StreamWriter),
    /// The body of an HTTP response, which is bounded by its channel.
    Http(mpsc::Sender<HttpItem>),
}

impl Outlet {
    async fn http(sender: &mpsc::Sender<HttpItem>, item: HttpItem) -> Result<(), ReaderGone> {
        sender.send(item).await.map_err(|_| ReaderGone)
    }

    /// Sends an item; waits for credit.
    pub async fn item<T: Serialize + Sync>(&mut self, cursor: &Cursor, value: &T) -> Result<(), ReaderGone> {
        match self {
            Self::Link(writer) => writer.send_item(cursor, value).await.map_err(|_| ReaderGone),
            Self::Http(sender) => {
                let json = serde_json::to_string(value).map_err(|_| ReaderGone)?;
                Self::http(sender, HttpItem::Item { cursor: cursor.clone(), json }).await
            }
        }
    }

    /// Sends bytes; waits for credit.
    pub async fn bytes(&mut self, kind: Kind, offset: u64, bytes: Bytes) -> Result<(), ReaderGone> {
        match self {
            Self::Link(writer) => writer.send_bytes(kind, offset, bytes).await.map_err(|_| ReaderGone),
            Self::Http(sender) => Self::http(sender, HttpItem::Bytes { kind, offset, bytes }).await,
        }
    }

    /// Says that something is missing.
    pub async fn gap(&mut self, from: u64, to: u64, reason: GapReason) -> Result<(), ReaderGone> {
        match self {
            Self::Link(writer) => writer.gap(from, to, reason).await.map_err(|_| ReaderGone),
            Self::Http(sender) => Self::http(sender, HttpItem::Gap { from, to, reason }).await,
        }
    }

    /// Ends the stream.
    pub async fn end(self, reason: EndReason, offset: u64, error: Option<Error>) {
        // A reader that has gone needs no end.
        match self {
            Self::Link(writer) => {
                let _ = writer.end(reason, offset, error).await;
            }
            Self::Http(sender) => {
                let _ = Self::http(&sender, HttpItem::End { reason, offset, error }).await;
            }
        }
    }

    /// Waits until the reader has gone.
    pub async fn closed(&self) {
        match self {
            Self::Link(writer) => writer.closed().await,
            Self::Http(sender) => sender.closed().await,
        }
    }
}

/// Writes a stream.
pub(crate) type Body = Box<dyn FnOnce(Outlet) -> BoxFuture<'static, ()> + Send>;

/// The answer to a cursor of a history that is gone: a stream that says so and ends, in the epoch that there is now.
pub(crate) fn gone(epoch: String) -> (StreamOpened, Body) {
    let body: Body = Box::new(|outlet: Outlet| {
        Box::pin(async move {
            let error =
                Error::conflict("the history that this cursor belongs to is gone; begin again without it");
            outlet.end(EndReason::Gap, 0, Some(error)).await;
        })
    });
    (StreamOpened { cursor: Some(Cursor::new(epoch, 0)), credit: None }, body)
}

//! Streams of items that go on behind the last one over every new link.

use std::marker::PhantomData;

use datacentered_link::{StreamEvent, StreamReader};
use datacentered_proto::Cursor;
use datacentered_proto::ops::{EndReason, StreamEnd, StreamOpen};
use datacentered_proto::rpc::Cause;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::error::Error;
use crate::retry::Retry;

/// Makes the parameters that open the stream behind a cursor, or from its beginning.
pub(crate) type Make =
    Box<dyn Fn(Option<Cursor>, StreamOpen) -> datacentered_proto::Result<Box<RawValue>> + Send + Sync>;

/// One thing on a stream of items.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemEvent<T> {
    /// An item.
    Item {
        /// The place behind it: hand it back to go on after it.
        cursor: Cursor,
        /// The item.
        value: T,
    },
    /// Something is missing here; what follows is whole again.
    Gap,
}

/// A stream of items, typed. Made by [`Client::items`].
#[derive(Debug)]
pub struct ItemStream<T> {
    raw: RawItemStream,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> ItemStream<T> {
    pub(crate) fn new(raw: RawItemStream) -> Self {
        Self { raw, item: PhantomData }
    }

    /// The next event; none behind the end. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<ItemEvent<T>>, Error> {
        Ok(match self.raw.next().await? {
            None => None,
            Some(ItemEvent::Gap) => Some(ItemEvent::Gap),
            Some(ItemEvent::Item { cursor, value }) => {
                let value = serde_json::from_str(value.get()).map_err(|error| {
                    let told = format!("an item is not understood ({error}); is the hub of another version?");
                    Error::refused(&self.raw.operation, datacentered_proto::Error::internal(told))
                })?;
                Some(ItemEvent::Item { cursor, value })
            }
        })
    }
}

/// A stream of items, unparsed. Made by [`Client::items_raw`].
pub struct RawItemStream {
    client: Client,
    operation: String,
    make: Make,
    cursor: Option<Cursor>,
    reader: Option<StreamReader>,
    retry: Retry,
    /// The history was gone at the last opening, and nothing has come since.
    begun_again: bool,
    done: bool,
}

impl RawItemStream {
    pub(crate) fn new(client: Client, operation: String, from: Option<Cursor>, make: Make) -> Self {
        let retry = client.retry();
        Self { client, operation, make, cursor: from, reader: None, retry, begun_again: false, done: false }
    }

    /// The next event; none behind the end. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<ItemEvent<Box<RawValue>>>, Error> {
        while !self.done {
            let Some(reader) = &mut self.reader else {
                self.open().await?;
                continue;
            };
            match reader.next().await {
                Some(StreamEvent::Item { cursor, value }) => {
                    self.cursor = Some(cursor.clone());
                    self.begun_again = false;
                    self.retry.worked();
                    return Ok(Some(ItemEvent::Item { cursor, value }));
                }
                Some(StreamEvent::Gap(_)) => return Ok(Some(ItemEvent::Gap)),
                Some(StreamEvent::End(end)) => {
                    self.reader = None;
                    if self.ended(end).await? {
                        return Ok(Some(ItemEvent::Gap));
                    }
                }
                Some(StreamEvent::Bytes { .. }) => {
                    self.done = true;
                    return Err(
                        self.refused(datacentered_proto::Error::internal("bytes came instead of items"))
                    );
                }
                None => self.reader = None,
            }
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<(), Error> {
        let link = self.client.link().await?;
        // Encoded before the number of the stream is known would be too early: the closure only fills it in.
        let (make, cursor) = (&self.make, self.cursor.clone());
        let mut failed = None;
        let params = |open| match make(cursor, open) {
            Ok(params) => params,
            Err(error) => {
                failed = Some(error);
                RawValue::NULL.to_owned()
            }
        };
        let opened = link.open_raw(&self.operation, 0, Cause::default(), params).await;
        if let Some(error) = failed {
            self.done = true;
            return Err(self.refused(error));
        }
        match opened {
            Ok((_, reader)) => {
                self.reader = Some(reader);
                Ok(())
            }
            Err(error) => {
                let waited = self.retry.wait(error).await;
                self.waited(waited)
            }
        }
    }

    /// The stream has ended. True where a gap is to be told.
    async fn ended(&mut self, end: StreamEnd) -> Result<bool, Error> {
        match end.reason {
            EndReason::Done | EndReason::Closed => {
                self.done = true;
                Ok(false)
            }
            EndReason::Gap if self.begun_again => {
                self.done = true;
                Err(self.refused(datacentered_proto::Error::internal(
                    "the hub says again and again that the history is gone",
                )))
            }
            EndReason::Gap => {
                self.cursor = None;
                self.begun_again = true;
                Ok(true)
            }
            EndReason::Revoked => {
                self.done = true;
                let error = end.error.unwrap_or_else(|| {
                    datacentered_proto::Error::forbidden("the permission to read this has ended")
                });
                Err(self.refused(error))
            }
            EndReason::Failed => {
                let error =
                    end.error.unwrap_or_else(|| datacentered_proto::Error::unavailable("the stream failed"));
                let waited = self.retry.wait_behind_end(error).await;
                self.waited(waited).map(|()| false)
            }
        }
    }

    /// Gives up where waiting did not help.
    fn waited(&mut self, waited: Result<(), datacentered_proto::Error>) -> Result<(), Error> {
        waited.map_err(|error| {
            self.done = true;
            self.refused(error)
        })
    }

    fn refused(&self, error: datacentered_proto::Error) -> Error {
        Error::refused(&self.operation, error)
    }
}

impl std::fmt::Debug for RawItemStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawItemStream")
            .field("operation", &self.operation)
            .field("cursor", &self.cursor)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

//! Streams of bytes that cannot be resumed.

use bytes::Bytes;
use datacentered_link::{StreamEvent, StreamReader};
use datacentered_proto::ops::EndReason;

use crate::error::Error;

/// A stream of bytes that is whole or fails. Made by [`crate::Client::bytes`].
#[derive(Debug)]
pub struct ByteStream {
    operation: &'static str,
    reader: StreamReader,
    position: u64,
    done: bool,
}

impl ByteStream {
    pub(crate) fn new(operation: &'static str, reader: StreamReader) -> Self {
        Self { operation, reader, position: 0, done: false }
    }

    /// The next bytes; none behind the last ones. An error means that what has come so far is not whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.done {
            return Ok(None);
        }
        let error = match self.reader.next().await {
            Some(StreamEvent::Bytes { payload, .. }) => {
                self.position += payload.len() as u64;
                return Ok(Some(payload));
            }
            Some(StreamEvent::End(end)) if end.reason == EndReason::Done && end.offset == self.position => {
                self.done = true;
                return Ok(None);
            }
            Some(StreamEvent::End(end)) => end.error,
            Some(StreamEvent::Gap(_) | StreamEvent::Item { .. }) | None => None,
        };
        self.done = true;
        let error = error.unwrap_or_else(|| {
            datacentered_proto::Error::unavailable(format!(
                "the stream ended early, at byte {}",
                self.position
            ))
        });
        Err(Error::refused(self.operation, error))
    }
}

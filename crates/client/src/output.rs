//! A target's output or a terminal's, byte-exact across lost links and restarts of the hub.

use bytes::Bytes;
use datacentered_link::{StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{RunOutput, TerminalOutput};
use datacentered_proto::ops::{EndReason, GapReason, StreamEnd, StreamOpened};
use datacentered_proto::ops::{run, terminal};
use datacentered_proto::{Cursor, Operation, RunId};

use crate::client::Client;
use crate::error::Error;
use crate::retry::Retry;

/// One thing in a target's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// Bytes.
    Bytes {
        /// Of which stream.
        kind: Kind,
        /// Where the first one stands in the job's one record.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A stretch is missing.
    Gap {
        /// The first missing offset.
        from: u64,
        /// Where it goes on.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// Everything there will ever be has been given out.
    End {
        /// The final offset.
        offset: u64,
    },
}

/// Where the reading of a terminal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalStart {
    /// At this byte of its recording.
    From(u64),
    /// This many bytes before its end as it is now, or a little earlier; for the replay of the screen.
    Tail(u64),
}

/// Where a reader stands in a job's record, and what of an incoming stretch is new to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position(u64);

impl Position {
    /// What is new of bytes that begin at `offset`; none where all of it is known.
    fn take(&mut self, offset: u64, mut bytes: Bytes) -> Option<Fresh> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end <= self.0 {
            return None;
        }
        let hole_from = (offset > self.0).then_some(self.0);
        let known = usize::try_from(self.0.saturating_sub(offset)).unwrap_or(bytes.len()).min(bytes.len());
        let bytes = bytes.split_off(known);
        self.0 = end;
        Some(Fresh { hole_from, offset: end - bytes.len() as u64, bytes })
    }

    /// What is new of a hole: where it begins.
    fn skip(&mut self, from: u64, to: u64) -> Option<u64> {
        if to <= self.0 {
            return None;
        }
        let from = from.max(self.0);
        self.0 = to;
        Some(from)
    }
}

/// Bytes that a reader has not had yet.
#[derive(Debug, PartialEq, Eq)]
struct Fresh {
    /// Where the hole before them begins, where there is one.
    hole_from: Option<u64>,
    offset: u64,
    bytes: Bytes,
}

/// What is read.
#[derive(Clone, Debug)]
enum Source {
    /// The output of a run's target.
    Target { host: Option<String> },
    /// What a terminal printed; where `tail` is given, from that many bytes before its end.
    Terminal { tail: Option<u64> },
}

/// The output of a target or of a terminal. Made by [`Client::output`] and [`Client::terminal_output`].
#[derive(Debug)]
pub struct OutputStream {
    client: Client,
    run: RunId,
    source: Source,
    position: Position,
    /// Which history the position belongs to; known from the first opening on.
    epoch: Option<String>,
    reader: Option<StreamReader>,
    /// Bytes behind a hole that was told first.
    held: Option<OutputEvent>,
    retry: Retry,
    begun_again: bool,
    done: bool,
}

impl OutputStream {
    pub(crate) fn target(client: Client, run: RunId, host: Option<String>, from: u64) -> Self {
        Self::new(client, run, Source::Target { host }, from)
    }

    pub(crate) fn terminal(client: Client, run: RunId, start: TerminalStart) -> Self {
        match start {
            TerminalStart::From(from) => Self::new(client, run, Source::Terminal { tail: None }, from),
            TerminalStart::Tail(tail) => Self::new(client, run, Source::Terminal { tail: Some(tail) }, 0),
        }
    }

    fn new(client: Client, run: RunId, source: Source, from: u64) -> Self {
        let retry = client.retry();
        Self {
            client,
            run,
            source,
            position: Position(from),
            epoch: None,
            reader: None,
            held: None,
            retry,
            begun_again: false,
            done: false,
        }
    }

    /// The offset of the next byte: all before it has been given out.
    pub fn position(&self) -> u64 {
        match &self.held {
            Some(OutputEvent::Bytes { offset, .. }) => *offset,
            _ => self.position.0,
        }
    }

    /// The next event; none behind [`OutputEvent::End`]. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, Error> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        while !self.done {
            let Some(reader) = &mut self.reader else {
                self.open().await?;
                continue;
            };
            match reader.next().await {
                Some(StreamEvent::Bytes { kind, offset, payload }) => {
                    self.worked();
                    let Some(fresh) = self.position.take(offset, payload) else { continue };
                    let bytes = OutputEvent::Bytes { kind, offset: fresh.offset, bytes: fresh.bytes };
                    // The hub declares its gaps. Should it ever not, the hole is still not silent.
                    let Some(from) = fresh.hole_from else { return Ok(Some(bytes)) };
                    self.held = Some(bytes);
                    return Ok(Some(OutputEvent::Gap { from, to: fresh.offset, reason: GapReason::Lost }));
                }
                Some(StreamEvent::Gap(gap)) => {
                    self.worked();
                    if let Some(from) = self.position.skip(gap.from, gap.to) {
                        return Ok(Some(OutputEvent::Gap { from, to: gap.to, reason: gap.reason }));
                    }
                }
                Some(StreamEvent::End(end)) => {
                    self.reader = None;
                    if let Some(event) = self.ended(end).await? {
                        return Ok(Some(event));
                    }
                }
                Some(StreamEvent::Item { .. }) => {
                    self.done = true;
                    return Err(
                        self.refused(datacentered_proto::Error::internal("items came instead of bytes"))
                    );
                }
                None => self.reader = None,
            }
        }
        Ok(None)
    }

    fn worked(&mut self) {
        self.begun_again = false;
        self.retry.worked();
    }

    async fn open(&mut self) -> Result<(), Error> {
        match self.call().await? {
            Ok((reply, mut reader)) => {
                if let Some(cursor) = reply.cursor {
                    if let Source::Terminal { tail: tail @ Some(_) } = &mut self.source {
                        // From now on it is a place like any other.
                        *tail = None;
                        self.position.0 = cursor.offset;
                        reader.begin_at(cursor.offset);
                    }
                    self.epoch = Some(cursor.epoch);
                }
                self.reader = Some(reader);
                Ok(())
            }
            Err(error) => {
                let waited = self.retry.wait(error).await;
                self.waited(waited)
            }
        }
    }

    async fn call(&self) -> Result<datacentered_proto::Result<(StreamOpened, StreamReader)>, Error> {
        let link = self.client.link().await?;
        let (run, from) = (self.run, self.position.0);
        let cursor = self.epoch.clone().map(|epoch| Cursor::new(epoch, from));
        Ok(match self.source.clone() {
            Source::Target { host } => {
                link.open::<RunOutput>(from, |stream| run::OutputParams { run, host, cursor, from, stream })
                    .await
            }
            Source::Terminal { tail } => {
                link.open::<TerminalOutput>(from, |stream| terminal::OutputParams {
                    run,
                    cursor,
                    from,
                    tail,
                    stream,
                })
                .await
            }
        })
    }

    fn refused(&self, error: datacentered_proto::Error) -> Error {
        let name = match self.source {
            Source::Target { .. } => RunOutput::SPEC.name,
            Source::Terminal { .. } => TerminalOutput::SPEC.name,
        };
        Error::refused(name, error)
    }

    async fn ended(&mut self, end: StreamEnd) -> Result<Option<OutputEvent>, Error> {
        match end.reason {
            EndReason::Done => {
                self.done = true;
                Ok(Some(OutputEvent::End { offset: end.offset }))
            }
            EndReason::Closed => {
                let error = datacentered_proto::Error::unavailable("the hub closed the stream");
                let waited = self.retry.wait_behind_end(error).await;
                self.waited(waited).map(|()| None)
            }
            EndReason::Gap if self.begun_again => {
                self.done = true;
                Err(self.refused(datacentered_proto::Error::internal(
                    "the hub says again and again that the output's history is gone",
                )))
            }
            // Another history, such as after a restore: offsets are the host's and stay what they are, so the rest can
            // still be read; whether what was given out is part of it cannot be known.
            EndReason::Gap => {
                self.epoch = None;
                self.begun_again = true;
                let at = self.position.0;
                Ok(Some(OutputEvent::Gap { from: at, to: at, reason: GapReason::Lost }))
            }
            EndReason::Revoked => {
                self.done = true;
                Err(self.refused(end.error.unwrap_or_else(|| {
                    datacentered_proto::Error::forbidden("the permission to read this has ended")
                })))
            }
            EndReason::Failed => {
                let error =
                    end.error.unwrap_or_else(|| datacentered_proto::Error::unavailable("the stream failed"));
                let waited = self.retry.wait_behind_end(error).await;
                self.waited(waited).map(|()| None)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_known_already_is_left_out() {
        let fresh = |hole_from, offset, bytes: &'static [u8]| {
            Some(Fresh { hole_from, offset, bytes: Bytes::from_static(bytes) })
        };
        let mut position = Position(10);
        assert_eq!(position.take(0, Bytes::from_static(b"0123456789")), None);
        assert_eq!(position.take(8, Bytes::from_static(b"89ab")), fresh(None, 10, b"ab"));
        assert_eq!(position.take(15, Bytes::from_static(b"x")), fresh(Some(12), 15, b"x"));
        assert_eq!(position.skip(10, 16), None);
        assert_eq!(position.skip(14, 20), Some(16));
        assert_eq!(position, Position(20));
    }

    proptest! {
        /// However the record is cut and repeated, a reader gets each byte once and in order.
        #[test]
        fn every_byte_exactly_once(
            record in proptest::collection::vec(any::<u8>(), 1..200),
            pieces in proptest::collection::vec((0usize..200, 1usize..50), 0..60),
        ) {
            let mut position = Position(0);
            let mut got = Vec::new();
            let whole = Bytes::from(record.clone());
            let pieces = pieces.into_iter().chain([(0, 200)]);
            for (start, len) in pieces {
                // A resumed stream begins at or before the position, never behind it.
                let start = start.min(got.len());
                let end = (start + len).min(record.len());
                if let Some(fresh) = position.take(start as u64, whole.slice(start..end)) {
                    prop_assert_eq!(fresh.hole_from, None);
                    prop_assert_eq!(fresh.offset, got.len() as u64);
                    got.extend_from_slice(&fresh.bytes);
                }
            }
            prop_assert_eq!(got, record);
        }
    }
}

//! Standard input for a run, or what is typed into a terminal, which goes on where the hub left off.
//!
//! What is read from a pipe cannot be read again, so everything that the hub may not have yet is kept. That is bounded: the
//! hub grants credit only for what it has taken, so what lies more than a window back is with the hub.

use std::collections::VecDeque;

use bytes::Bytes;
use datacentered_link::{Link, SendError, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{RunInput, TerminalInput};
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::ops::{run, terminal};
use datacentered_proto::{Code, Operation, OperationKey, RunId};

use crate::client::Client;
use crate::error::Error;
use crate::retry::Retry;

/// Bytes kept at least, whatever the window is.
const KEPT_AT_LEAST: u64 = 1024 * 1024;

/// Bytes kept at most, whatever the hub says its window is.
const KEPT_AT_MOST: u64 = 16 * 1024 * 1024;

/// The standard input of a run's targets, or one writer at a terminal. Made by [`Client::input`] and
/// [`Client::terminal_input`].
#[derive(Debug)]
pub struct InputWriter {
    client: Client,
    run: RunId,
    /// Who types, at a terminal.
    writer: Option<OperationKey>,
    kept: Kept,
    stream: Option<(Link, StreamWriter)>,
    /// The next byte to send.
    next: u64,
    /// How far the hub lets a writer run ahead.
    window: u64,
    retry: Retry,
    /// The hub has closed a stream on which nothing was sent: a second time means that nobody reads.
    closed_idle: bool,
    /// The run takes no more.
    over: bool,
}

impl InputWriter {
    pub(crate) fn new(client: Client, run: RunId, writer: Option<OperationKey>) -> Self {
        let retry = client.retry();
        Self {
            client,
            run,
            writer,
            kept: Kept::default(),
            stream: None,
            next: 0,
            window: KEPT_AT_LEAST,
            retry,
            closed_idle: false,
            over: false,
        }
    }

    /// Sends bytes behind those before; waits for credit. False when the run takes no more input.
    ///
    /// Dropped while it waits, it has taken the bytes: they are sent with what follows.
    pub async fn write(&mut self, bytes: Bytes) -> Result<bool, Error> {
        self.kept.push(bytes);
        self.send_kept().await?;
        self.kept.forget(self.next.saturating_sub(self.window.clamp(KEPT_AT_LEAST, KEPT_AT_MOST)));
        Ok(!self.over)
    }

    /// Tells that there is no more, and goes on telling it over every new link: it comes back only when the run takes no
    /// more input. Meant to run beside whatever waits for the end of the run.
    pub async fn finish(mut self) -> Result<(), Error> {
        loop {
            self.send_kept().await?;
            if self.over {
                return Ok(());
            }
            let Some((link, writer)) = self.stream.take() else { continue };
            if writer.end(EndReason::Done, self.next, None).await.is_ok() {
                // Nobody tells whether the end of input has arrived, so it is repeated when this link is lost.
                let reason = link.closed().await;
                tracing::debug!(%reason, "the link was lost behind the end of input");
            }
        }
    }

    /// Sends everything that is kept and not sent yet, over as many links as it takes.
    async fn send_kept(&mut self) -> Result<(), Error> {
        while !self.over {
            let Some((link, writer)) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            // A send that was dropped while it waited may have sent a part.
            self.next = writer.offset().unwrap_or(self.next);
            let Some(bytes) = self.kept.from(self.next) else { return Ok(()) };
            let sent = writer.send_bytes(Kind::Stdin, self.next, bytes).await;
            let progress = writer.offset().is_some_and(|offset| offset > self.next);
            self.next = writer.offset().unwrap_or(self.next);
            match sent {
                Ok(()) => {
                    self.retry.worked();
                    self.closed_idle = false;
                }
                Err(SendError::Closed) if link.is_closed() => self.stream = None,
                Err(SendError::Closed) => {
                    // Every target has ended, or the hub is going down: the next opening tells.
                    self.over = self.closed_idle && !progress;
                    self.closed_idle = true;
                    self.stream = None;
                }
                Err(error @ (SendError::TooLarge { .. } | SendError::OutOfOrder { .. })) => {
                    return Err(self.refused(error.into()));
                }
            }
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Error> {
        let link = self.client.link().await?;
        match self.call(&link).await {
            Ok((reply, writer)) => {
                let held = reply.cursor.map_or(0, |cursor| cursor.offset);
                self.window = reply.credit.unwrap_or(0).saturating_sub(held);
                if held < self.kept.start {
                    return Err(Error::InputLost { missing: held });
                }
                if held > self.kept.end() {
                    let told =
                        format!("the run has {held} bytes of input already, which came from somewhere else");
                    return Err(self.refused(datacentered_proto::Error::conflict(told)));
                }
                self.next = held;
                self.kept.forget(held);
                self.stream = Some((link, writer));
                Ok(())
            }
            // The run has ended, or its input has.
            Err(error) if matches!(error.code, Code::Conflict | Code::NotFound) => {
                self.over = true;
                Ok(())
            }
            Err(error) => {
                let waited = self.retry.wait(error).await;
                waited.map_err(|error| self.refused(error))
            }
        }
    }

    async fn call(&self, link: &Link) -> datacentered_proto::Result<(StreamOpened, StreamWriter)> {
        let run = self.run;
        match self.writer {
            None => link.upload::<RunInput>(|stream| run::InputParams { run, stream }).await,
            Some(writer) => {
                link.upload::<TerminalInput>(|stream| terminal::InputParams { run, writer, stream }).await
            }
        }
    }

    fn refused(&self, error: datacentered_proto::Error) -> Error {
        let name = if self.writer.is_some() { TerminalInput::SPEC.name } else { RunInput::SPEC.name };
        Error::refused(name, error)
    }
}

/// The latest bytes of a record.
#[derive(Debug, Default)]
struct Kept {
    /// Where the first one stands.
    start: u64,
    len: u64,
    chunks: VecDeque<Bytes>,
}

impl Kept {
    fn end(&self) -> u64 {
        self.start + self.len
    }

    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len() as u64;
            self.chunks.push_back(bytes);
        }
    }

    /// Drops whole chunks that lie before `offset`.
    fn forget(&mut self, offset: u64) {
        while let Some(first) = self.chunks.front() {
            let len = first.len() as u64;
            if self.start + len > offset {
                break;
            }
            self.start += len;
            self.len -= len;
            self.chunks.pop_front();
        }
    }

    /// The bytes from `offset` to the end of their chunk; none at the end of the record.
    fn from(&self, offset: u64) -> Option<Bytes> {
        let mut at = self.start;
        for chunk in &self.chunks {
            let end = at + chunk.len() as u64;
            if offset < end {
                let skip = usize::try_from(offset.saturating_sub(at)).unwrap_or(0).min(chunk.len());
                return Some(chunk.slice(skip..));
            }
            at = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// From any place that has not been forgotten, the rest of the record can be sent again.
        #[test]
        fn what_is_kept_is_whole(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
            forget in 0u64..400,
            from in 0u64..400,
        ) {
            let record: Vec<u8> = chunks.concat();
            let mut kept = Kept::default();
            for chunk in chunks {
                kept.push(chunk.into());
            }
            kept.forget(forget);
            prop_assert!(kept.start <= forget);
            prop_assert_eq!(kept.end(), record.len() as u64);
            let from = from.clamp(kept.start, kept.end());
            let mut at = from;
            let mut got = Vec::new();
            while let Some(bytes) = kept.from(at) {
                at += bytes.len() as u64;
                got.extend_from_slice(&bytes);
            }
            prop_assert_eq!(got, &record[usize::try_from(from).expect("small")..]);
        }
    }
}

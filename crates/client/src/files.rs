//! Files on hosts, across lost links: a reader that goes on behind its last byte, and a writer that goes on where the host
//! stands.
//!
//! A host that is away when something is asked of it for the first time is an error at once. Once something has begun, it
//! is waited for like a hub that is away, for as long as [`crate::ClientConfig::reconnect_timeout`] says.

use bytes::Bytes;
use datacentered_link::{SendError, StreamEvent, StreamReader, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{FileRead, FileWrite};
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::file::{FILE_WINDOW, ReadNote, ReadParams, WriteParams};
use datacentered_proto::{Cursor, Operation, rpc};

use crate::client::Client;
use crate::error::Error;
use crate::retry::Retry;

/// Largest note that follows a file, in bytes.
const MAX_NOTE: usize = 4096;

/// Streams that a host may close in a row, without a byte and without a reason, before it is believed.
const MOST_CLOSED: u32 = 5;

impl Client {
    /// As [`Client::call`], for an operation on a host's files: also waits for a host that has no room at the moment, and,
    /// where `begun`, for one that is away.
    pub async fn call_host<O: Operation>(&self, params: &O::Params, begun: bool) -> Result<O::Reply, Error> {
        let name = O::SPEC.name;
        let refused = |error| Error::refused(name, error);
        let raw = rpc::raw(params).map_err(refused)?;
        let mut retry = self.retry();
        loop {
            let link = self.link().await?;
            match link.call_raw(name, &raw, rpc::Cause::default()).await {
                Ok(reply) => {
                    return serde_json::from_str(reply.get()).map_err(|error| {
                        let told = format!("the hub's reply is not understood ({error})");
                        refused(datacentered_proto::Error::internal(told))
                    });
                }
                Err(error) => retry.wait_for_host(error, begun).await.map_err(refused)?,
            }
        }
    }

    /// Reads a file of a host. `params` say where it begins and need the file's size; their stream is not looked at.
    pub fn read_file(&self, params: ReadParams, begun: bool) -> FileReader {
        FileReader {
            retry: self.retry(),
            client: self.clone(),
            position: params.from,
            size: params.size.unwrap_or(u64::MAX),
            params,
            epoch: None,
            reader: None,
            note: Vec::new(),
            begun,
            done: false,
        }
    }

    /// Writes a file of a host, up to the point where `file.place` puts it in place. The stream of `params` is not looked
    /// at.
    pub fn write_file(&self, params: WriteParams, begun: bool) -> FileWriter {
        FileWriter {
            retry: self.retry(),
            client: self.clone(),
            params,
            writer: None,
            at: 0,
            begun,
            closed: 0,
        }
    }
}

/// A file of a host. Made by [`Client::read_file`].
#[derive(Debug)]
pub struct FileReader {
    client: Client,
    params: ReadParams,
    /// The next byte.
    position: u64,
    size: u64,
    /// Which file it is; known from the first opening on.
    epoch: Option<String>,
    reader: Option<StreamReader>,
    note: Vec<u8>,
    retry: Retry,
    begun: bool,
    done: bool,
}

impl FileReader {
    /// The next bytes; none at the end of the file.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.done {
            let Some(reader) = &mut self.reader else {
                self.open().await?;
                continue;
            };
            match reader.next().await {
                Some(StreamEvent::Bytes { offset, payload, .. }) => {
                    self.retry.worked();
                    if let Some(bytes) = self.take(offset, payload)? {
                        return Ok(Some(bytes));
                    }
                }
                Some(StreamEvent::End(end)) if end.reason == EndReason::Done => self.done = true,
                Some(StreamEvent::End(end)) => {
                    let error = end
                        .error
                        .unwrap_or_else(|| datacentered_proto::Error::unavailable("the file stopped coming"));
                    self.again(error).await?;
                }
                Some(StreamEvent::Gap(_) | StreamEvent::Item { .. }) => {
                    return Err(refused_read(datacentered_proto::Error::internal(
                        "something else came instead of a file's bytes",
                    )));
                }
                None => self.reader = None,
            }
        }
        Ok(None)
    }

    /// What the host said behind the last byte, where a note was asked for.
    pub fn note(&self) -> Result<ReadNote, Error> {
        serde_json::from_slice(&self.note).map_err(|error| {
            let told = format!("the host's note behind the file is not understood: {error}");
            refused_read(datacentered_proto::Error::internal(told))
        })
    }

    /// What of incoming bytes belongs to the file; the rest is the note.
    fn take(&mut self, offset: u64, mut bytes: Bytes) -> Result<Option<Bytes>, Error> {
        let inside = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let note = bytes.split_off(inside);
        if self.note.len() + note.len() > MAX_NOTE {
            return Err(refused_read(datacentered_proto::Error::internal("more came than the file has")));
        }
        self.note.extend_from_slice(&note);
        if bytes.is_empty() {
            return Ok(None);
        }
        self.position = offset + bytes.len() as u64;
        Ok(Some(bytes))
    }

    async fn open(&mut self) -> Result<(), Error> {
        let link = self.client.link().await?;
        let from = self.position;
        self.note.clear();
        let cursor = self.epoch.clone().map(|epoch| Cursor::new(epoch, from));
        let params = ReadParams { cursor, from, ..self.params.clone() };
        match link.open::<FileRead>(from, |stream| ReadParams { stream, ..params }).await {
            Ok((opened, mut reader)) => {
                reader.widen(FILE_WINDOW);
                self.epoch = opened.cursor.map(|cursor| cursor.epoch);
                self.reader = Some(reader);
                self.begun = true;
                Ok(())
            }
            Err(error) => self.again(error).await,
        }
    }

    async fn again(&mut self, error: datacentered_proto::Error) -> Result<(), Error> {
        self.reader = None;
        self.retry.wait_for_host(error, self.begun).await.map_err(refused_read)
    }
}

/// How bytes were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// They are on their way.
    Sent,
    /// The host stands elsewhere: go on with the byte at this offset.
    GoOnAt(u64),
}

/// A file of a host that is being written. Made by [`Client::write_file`].
#[derive(Debug)]
pub struct FileWriter {
    client: Client,
    params: WriteParams,
    writer: Option<StreamWriter>,
    /// The next byte to send.
    at: u64,
    retry: Retry,
    begun: bool,
    /// Streams in a row that were closed without a byte.
    closed: u32,
}

impl FileWriter {
    /// Opens it and says where the host stands: the next byte to send.
    pub async fn open(&mut self) -> Result<u64, Error> {
        loop {
            let link = self.client.link().await?;
            let params = self.params.clone();
            match link.upload::<FileWrite>(|stream| WriteParams { stream, ..params }).await {
                Ok((opened, writer)) => {
                    self.at = opened.cursor.map_or(0, |cursor| cursor.offset);
                    self.writer = Some(writer);
                    self.begun = true;
                    // From now on what the host has is ours.
                    self.params.fresh = false;
                    return Ok(self.at);
                }
                Err(error) => self.retry.wait_for_host(error, self.begun).await.map_err(refused_write)?,
            }
        }
    }

    /// Sends the bytes that follow; waits for credit.
    pub async fn send(&mut self, bytes: Bytes) -> Result<Sent, Error> {
        let Some(writer) = &mut self.writer else { return self.open().await.map(Sent::GoOnAt) };
        let len = bytes.len() as u64;
        match writer.send_bytes(Kind::File, self.at, bytes).await {
            Ok(()) => {
                self.at += len;
                self.closed = 0;
                self.retry.worked();
                Ok(Sent::Sent)
            }
            Err(SendError::Closed) => self.closed().await,
            Err(error) => Err(refused_write(error.into())),
        }
    }

    /// Says that this was the last byte. What is under way still arrives; `file.place` waits for it.
    pub async fn end(&mut self) -> Result<Sent, Error> {
        let Some(writer) = self.writer.take() else { return self.open().await.map(Sent::GoOnAt) };
        match writer.end(EndReason::Done, self.at, None).await {
            Ok(()) => Ok(Sent::Sent),
            Err(SendError::Closed) => self.closed().await,
            Err(error) => Err(refused_write(error.into())),
        }
    }

    /// The stream was closed; opening it again tells why, or where it goes on.
    async fn closed(&mut self) -> Result<Sent, Error> {
        self.writer = None;
        self.closed += 1;
        if self.closed > MOST_CLOSED {
            return Err(refused_write(datacentered_proto::Error::internal(
                "the host closes the stream again and again without a reason",
            )));
        }
        self.open().await.map(Sent::GoOnAt)
    }
}

fn refused_read(error: datacentered_proto::Error) -> Error {
    Error::refused(FileRead::SPEC.name, error)
}

fn refused_write(error: datacentered_proto::Error) -> Error {
    Error::refused(FileWrite::SPEC.name, error)
}

//! `hostfile.read`: a file's bytes from an offset.

use std::sync::Arc;

use bytes::Bytes;
use datacentered_link::{Answer, Called, Request, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::file::{ReadParams, fault as word};
use datacentered_proto::{Code, Cursor, Error};

use super::{Act, Files};
use crate::files::{Relative, Source, fault};

/// Bytes read at a time: the next piece is read while one is sent.
const PIECE: usize = 256 * 1024;

/// Bytes of what was sent before that are hashed at a time.
const HASHED: u64 = 16 << 20;

pub(super) fn open(files: &Arc<Files>, request: &Request) -> Called {
    let params: ReadParams = match request.params() {
        Ok(params) => params,
        Err(error) => return Called::Now(Err(error)),
    };
    let slot = match files.slot() {
        Ok(slot) => slot,
        Err(error) => return Called::Now(Err(error)),
    };
    let files = files.clone();
    Called::later(async move {
        let stream = params.stream;
        let note = params.note;
        let (source, from) = files
            .block({
                let files = files.clone();
                move || begin(&files, &params)
            })
            .await??;
        let cursor = Cursor::new(source.version(), from);
        Answer::send(stream, Some(cursor), move |writer| async move {
            send(&files, source, from, note, writer).await;
            drop(slot);
        })
    })
}

fn begin(files: &Files, params: &ReadParams) -> Result<(Source, u64), Error> {
    let path = Relative::parse(&params.path)?;
    let root = files.admit(Act::Read, &params.root, &path)?;
    let source = Source::open(&root, &path, params.size, params.note)?;
    let from = match &params.cursor {
        Some(cursor) if cursor.epoch != source.version() => {
            let told = "another file is in its place by now; copy it from the beginning";
            return Err(fault(Code::Conflict, word::CHANGED, told));
        }
        Some(cursor) => cursor.offset,
        None => params.from,
    };
    if from > source.size() {
        return Err(Error::invalid(format!("byte {from} is behind the last of {}", source.size())));
    }
    Ok((source, from))
}

/// Sends until the end of the file, or of the reader's interest.
async fn send(files: &Arc<Files>, mut source: Source, from: u64, note: bool, mut writer: StreamWriter) {
    while source.at() < from {
        if writer.is_closed() {
            return;
        }
        let skipped = files
            .block(move || {
                let skipped = source.skip(from, HASHED);
                (source, skipped)
            })
            .await;
        match skipped {
            Ok((back, Ok(()))) => source = back,
            Ok((_, Err(error))) | Err(error) => return fail(writer, from, error).await,
        }
    }
    let mut next = read(files, source).await;
    loop {
        let (back, piece, at) = match next {
            Ok((back, Ok(Some(piece)))) => {
                let at = back.at() - piece.len() as u64;
                (back, piece, at)
            }
            Ok((source, Ok(None))) => return finish(files, source, note, writer).await,
            Ok((source, Err(error))) => return fail(writer, source.at(), error).await,
            Err(error) => {
                let at = writer.offset().unwrap_or(from);
                return fail(writer, at, error).await;
            }
        };
        let (sent, read) = tokio::join!(writer.send_bytes(Kind::File, at, piece), read(files, back));
        if let Err(error) = sent {
            tracing::debug!(%error, "a file is no longer sent");
            return;
        }
        next = read;
    }
}

type Read = Result<(Source, Result<Option<Bytes>, Error>), Error>;

async fn read(files: &Arc<Files>, mut source: Source) -> Read {
    files
        .block(move || {
            let read = source.read(PIECE);
            (source, read)
        })
        .await
}

/// What comes behind the last byte.
async fn finish(files: &Arc<Files>, source: Source, note: bool, mut writer: StreamWriter) {
    let size = source.size();
    if !note {
        let _ = writer.end(EndReason::Done, size, None).await;
        return;
    }
    let text = match files.block(move || source.note()).await {
        Ok(Ok(note)) => serde_json::to_vec(&note).unwrap_or_default(),
        Ok(Err(error)) | Err(error) => return fail(writer, size, error).await,
    };
    let end = size + text.len() as u64;
    if writer.send_bytes(Kind::File, size, text.into()).await.is_ok() {
        let _ = writer.end(EndReason::Done, end, None).await;
    }
}

async fn fail(writer: StreamWriter, at: u64, error: Error) {
    tracing::debug!(code = %error.code, %error, "a file cannot be read to its end");
    let _ = writer.end(EndReason::Failed, at, Some(error)).await;
}

//! `job.output`: a job's output from an offset, then as it is written.

use std::sync::Arc;

use datacentered_link::{Answer, Called, Request, StreamWriter};
use datacentered_proto::Cursor;
use datacentered_proto::ops::EndReason;
use datacentered_proto::ops::job::OutputParams;
use tokio::sync::Semaphore;

use super::too_many;
use crate::jobs::{Jobs, OutputEvent, OutputReader};

/// The epoch of every offset that a host gives: a job's record is never made anew.
pub(super) const EPOCH: &str = "host";

pub(super) fn open(request: &Request, jobs: Arc<Jobs>, running: &Arc<Semaphore>) -> Called {
    let params: OutputParams = match request.params() {
        Ok(params) => params,
        Err(error) => return Called::Now(Err(error)),
    };
    let Ok(slot) = running.clone().try_acquire_owned() else {
        return Called::Now(Err(too_many("sends the output of", "serve.output_streams")));
    };
    Called::later(async move {
        let reader = jobs.output(params.job, params.from).await?;
        let cursor = Cursor::new(EPOCH, params.from);
        Answer::send(params.stream, Some(cursor), move |writer| async move {
            send(reader, writer, params.from).await;
            drop(slot);
        })
    })
}

/// Sends until the output or the reader's interest ends.
async fn send(mut reader: OutputReader, mut writer: StreamWriter, mut at: u64) {
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            // A quiet job must not hold on to a reader that has gone.
            () = writer.closed() => return,
        };
        let sent = match next {
            Ok(OutputEvent::Bytes { kind, offset, bytes }) => {
                at = offset + bytes.len() as u64;
                writer.send_bytes(kind, offset, bytes).await
            }
            Ok(OutputEvent::Gap { from, to, reason }) => {
                at = to;
                writer.gap(from, to, reason).await
            }
            Ok(OutputEvent::End { offset }) => {
                let _ = writer.end(EndReason::Done, offset, None).await;
                return;
            }
            Err(error) => {
                tracing::debug!(code = %error.code, %error, "the output of a job cannot be read");
                let _ = writer.end(EndReason::Failed, at, Some(error)).await;
                return;
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "output is no longer sent");
            return;
        }
    }
}

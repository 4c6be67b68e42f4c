//! `job.input`: bytes for a job's standard input.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datacentered_link::{Answer, Called, Request, StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::job::InputParams;
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::{Code, Cursor, Error, rpc};
use tokio::sync::Semaphore;

use super::output::EPOCH;
use super::too_many;
use crate::jobs::{InputWriter, Jobs};

/// Pause before a disk that did not take input is asked again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) fn open(request: &Request, jobs: Arc<Jobs>, running: &Arc<Semaphore>) -> Called {
    let params: InputParams = match request.params() {
        Ok(params) => params,
        Err(error) => return Called::Now(Err(error)),
    };
    let Ok(slot) = running.clone().try_acquire_owned() else {
        return Called::Now(Err(too_many("feeds the input of", "serve.input_streams")));
    };
    let link = request.link.clone();
    Called::later(async move {
        let input = jobs.input(params.job).await?;
        // What the host holds already is not sent again after a cut.
        let held = input.held();
        let opened =
            StreamOpened { cursor: Some(Cursor::new(EPOCH, held)), credit: Some(link.first_credit(held)) };
        Ok(Answer::Receive {
            reply: rpc::raw(&opened)?,
            stream: params.stream,
            from: held,
            body: Box::new(move |reader| {
                Box::pin(async move {
                    feed(input, reader).await;
                    drop(slot);
                })
            }),
        })
    })
}

/// Writes what comes. Taking an event gives its credit back, so that a process that does not read holds the hub up and
/// nothing else.
async fn feed(mut input: InputWriter, mut reader: StreamReader) {
    while let Some(event) = reader.next().await {
        let result = match event {
            StreamEvent::Bytes { kind: Kind::Stdin, offset, payload } => {
                write(&mut input, offset, payload).await
            }
            StreamEvent::End(end) if end.reason == EndReason::Done && end.offset == input.held() => {
                input.eof().await
            }
            StreamEvent::End(end) if end.reason == EndReason::Done => Err(Error::conflict(format!(
                "the input ended at {}, and the host holds {} bytes of it",
                end.offset,
                input.held()
            ))),
            // Cut off or given up: the hub comes back and goes on from what is held.
            StreamEvent::End(_) => return,
            StreamEvent::Bytes { .. } | StreamEvent::Item { .. } | StreamEvent::Gap(_) => {
                Err(Error::invalid("standard input takes bytes of kind stdin, without gaps"))
            }
        };
        if let Err(error) = result {
            // Dropping the reader tells the hub; the job's report has the state.
            tracing::debug!(code = %error.code, %error, "standard input is no longer fed");
            return;
        }
    }
}

/// Writes one piece; a disk that does not take it now is asked again, so that the process gets all of its input.
async fn write(input: &mut InputWriter, offset: u64, payload: Bytes) -> Result<(), Error> {
    loop {
        match input.write(offset, payload.clone()).await {
            Err(error) if error.code == Code::Unavailable && input.pause(RETRY).await => {
                tracing::debug!(%error, "standard input could not be stored; trying again");
            }
            written => return written,
        }
    }
}

//! What a hub calls on an agent, answered by a simulated host.

use std::sync::Arc;

use datacentered_link::{Answer, Called, Handler, Request, StreamEvent, StreamReader, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{
    AgentDrain, JobAck, JobCancel, JobInput, JobList, JobOffer, JobOutput, JobRelease, JobSignal, JobSpec,
};
use datacentered_proto::ops::job::{
    CancelParams, DrainParams, InputParams, JobParams, ListParams, Offer, OutputParams, ReleaseParams,
    SignalParams,
};
use datacentered_proto::ops::{Done, EndReason};
use datacentered_proto::{Cursor, Error, JobId, Operation, Outcome};
use tokio::time::sleep;

use crate::board::Offered;
use crate::host::Host;
use crate::output;
use crate::stats::count;

/// The epoch of every offset that a host gives, as with agents.
const EPOCH: &str = "host";

const OFFER: &str = JobOffer::SPEC.name;
const LIST: &str = JobList::SPEC.name;
const SPEC: &str = JobSpec::SPEC.name;
const CANCEL: &str = JobCancel::SPEC.name;
const SIGNAL: &str = JobSignal::SPEC.name;
const OUTPUT: &str = JobOutput::SPEC.name;
const ACK: &str = JobAck::SPEC.name;
const INPUT: &str = JobInput::SPEC.name;
const RELEASE: &str = JobRelease::SPEC.name;
const DRAIN: &str = AgentDrain::SPEC.name;

/// Serves one host's link.
#[derive(Debug)]
pub(crate) struct Serve(pub(crate) Arc<Host>);

impl Handler for Serve {
    fn call(&self, request: Request) -> Called {
        let host = self.0.clone();
        let Some(late) = host.faults.delay else {
            return answer(&host, &request).map_or(Called::NoSuchMethod, Called::Now);
        };
        Called::later(async move {
            sleep(late).await;
            answer(&host, &request).unwrap_or_else(|| Err(Error::not_found("there is no such operation")))
        })
    }
}

/// None where there is no such operation.
fn answer(host: &Arc<Host>, request: &Request) -> Option<Result<Answer, Error>> {
    let now = host.clock.wall();
    Some(match request.method.as_str() {
        OFFER => request.params().and_then(|offer| offered(host, offer)),
        LIST => request.params().and_then(|params: ListParams| Answer::of(&host.journal().list(params.next))),
        SPEC => request
            .params()
            .and_then(|params: JobParams| host.journal().spec(params.job))
            .and_then(|offer| Answer::of(&offer)),
        CANCEL => request
            .params()
            .and_then(|params: CancelParams| host.journal().cancel(params, now))
            .and_then(|report| Answer::of(&report)),
        SIGNAL => request.params().and_then(|params: SignalParams| {
            host.journal().known(params.job)?;
            host.journal().end(params.job, Outcome::Signaled { signal: params.signal }, now);
            Answer::of(&Done {})
        }),
        OUTPUT => request.params().and_then(|params| send_output(host, &params)),
        INPUT => request.params().and_then(|params| take_input(host, request, &params)),
        RELEASE => request
            .params()
            .and_then(|params: ReleaseParams| host.journal().release(&params.jobs))
            .and_then(|()| Answer::of(&Done {})),
        // The output can be made again at any time: there is no spool that could drop it.
        ACK => Answer::of(&Done {}),
        DRAIN => request.params().and_then(|params: DrainParams| {
            host.drained(params.reconnect_after_ms);
            Answer::of(&Done {})
        }),
        _ => return None,
    })
}

fn offered(host: &Arc<Host>, offer: Offer) -> Result<Answer, Error> {
    let stats = &host.shared.stats;
    let (job, run) = (offer.job, offer.run);
    let taken = host.journal().offer(offer, host.clock.wall())?;
    if taken.fresh {
        count(&stats.offers);
        host.shared.board.add(Offered { host: host.index, job, run });
        host.shared.tasks.spawn(host.clone().live(job));
    } else {
        count(&stats.repeated_offers);
    }
    Answer::of(&taken.report)
}

fn send_output(host: &Arc<Host>, params: &OutputParams) -> Result<Answer, Error> {
    let (job, from) = (params.job, params.from);
    host.journal().known(job)?;
    let host = host.clone();
    Answer::send(params.stream, Some(Cursor::new(EPOCH, from)), move |writer| async move {
        print(&host, job, from, writer).await;
    })
}

/// Sends the output from an offset, and ends the stream when the job has ended.
async fn print(host: &Host, job: JobId, from: u64, mut writer: StreamWriter) {
    let Some(ended) = host.journal().end_of(job) else { return };
    let mut at = from;
    loop {
        let bytes = output::piece(at, host.output_bytes());
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len() as u64;
        if writer.send_bytes(Kind::Stdout, at, bytes).await.is_err() {
            return;
        }
        at += length;
        host.shared.stats.output_bytes.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
    }
    tokio::select! {
        () = ended.cancelled() => {}
        () = writer.closed() => return,
    }
    // A reader that has gone comes back and asks again.
    let _ = writer.end(EndReason::Done, at, None).await;
}

/// Input is read and thrown away; how long a job takes does not depend on it.
fn take_input(host: &Arc<Host>, request: &Request, params: &InputParams) -> Result<Answer, Error> {
    let job = params.job;
    let from = host.journal().known(job)?.stdin_bytes;
    let host = host.clone();
    Answer::receive(&request.link, params.stream, from, move |reader| async move {
        swallow(&host, job, reader).await;
    })
}

async fn swallow(host: &Host, job: JobId, mut reader: StreamReader) {
    while let Some(event) = reader.next().await {
        if let StreamEvent::Bytes { offset, payload, .. } = event {
            host.journal().fed(job, offset + payload.len() as u64);
        }
    }
}

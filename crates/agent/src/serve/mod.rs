//! Answers what the hub calls: the operations that the table gives to agents.
//!
//! Only the pinned hub is at the other end; what it sends is checked all the same.

pub mod files;
mod input;
mod list;
mod output;

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::{Answer, Called, Handler, Request};
use datacentered_proto::operations::{
    AgentDrain, HostfileList, HostfilePlace, HostfileRead, HostfileStat, HostfileWrite, JobAck, JobCancel,
    JobInput, JobList, JobOffer, JobOutput, JobRelease, JobResize, JobSignal, JobSpec,
};
use datacentered_proto::ops::Done;
use datacentered_proto::{Error, Operation};
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

use crate::jobs::Jobs;
use crate::range::Range;
use files::Files;

/// Limits of what the hub may ask for at once; `[serve]` in `agent.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Most outputs that are read at once: as many as there may be jobs. One that has nothing to send costs 2 KiB
    /// and, once its job has written something, an open file; one that sends takes up to 64 KiB for what it
    /// has read, besides the link's window.
    pub output_streams: usize,
    /// Most standard inputs that are fed at once: as many as there may be jobs. One that gets nothing costs
    /// 1.5 KiB and, once something was fed, an open file; what comes waits in the link's window, on its way to disk.
    pub input_streams: usize,
    /// Size of one page of the list of jobs, in bytes of JSON.
    pub list_page_bytes: usize,
    /// Most jobs in one page.
    pub list_page_jobs: usize,
    /// Most files that are read or written at once, for copies. Each may hold 1 MiB in the link's window, and one that is
    /// written another 512 KiB on its way to disk.
    pub file_streams: usize,
    /// Most threads that work on files may block at once; a slow disk must leave some for jobs.
    pub file_workers: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            output_streams: 1024,
            input_streams: 1024,
            list_page_bytes: 128 * 1024,
            list_page_jobs: 1000,
            file_streams: 32,
            file_workers: 6,
        }
    }
}

impl ServeConfig {
    pub(crate) fn ranges(&self) -> Vec<Range> {
        vec![
            Range::new("serve.output_streams", self.output_streams as u64, 1, 65_536),
            Range::new("serve.input_streams", self.input_streams as u64, 1, 65_536),
            // Above it, a page and the report that exceeds it would not fit into a message together.
            Range::new("serve.list_page_bytes", self.list_page_bytes as u64, 1024, 128 * 1024),
            Range::new("serve.list_page_jobs", self.list_page_jobs as u64, 1, 100_000),
            Range::new("serve.file_streams", self.file_streams as u64, 1, 1024),
            Range::new("serve.file_workers", self.file_workers as u64, 1, 12),
        ]
    }
}

/// Whether the hub has announced that it goes down, and when it wants to be dialled again. Clones share it.
#[derive(Clone, Debug)]
pub struct Drain(Arc<watch::Sender<Option<Duration>>>);

impl Drain {
    /// Not announced.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// What the hub announced last.
    pub fn announced(&self) -> Option<Duration> {
        *self.0.borrow()
    }

    /// Waits until the hub announces it.
    pub async fn wait(&self) {
        // The sender is held by `self`, so that this cannot end early.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    fn announce(&self, after: Duration) {
        self.0.send_replace(Some(after));
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

/// Serves one link.
#[derive(Debug)]
pub struct Serve {
    jobs: Arc<Jobs>,
    files: Arc<Files>,
    config: ServeConfig,
    drain: Drain,
    outputs: Arc<Semaphore>,
    inputs: Arc<Semaphore>,
}

impl Serve {
    /// Serves what `jobs` holds; the hub's announcement to go down ends up in `drain`.
    pub fn new(jobs: Arc<Jobs>, files: Arc<Files>, config: &ServeConfig, drain: Drain) -> Self {
        Self {
            jobs,
            files,
            config: config.clone(),
            drain,
            outputs: Arc::new(Semaphore::new(config.output_streams)),
            inputs: Arc::new(Semaphore::new(config.input_streams)),
        }
    }
}

const OFFER: &str = JobOffer::SPEC.name;
const LIST: &str = JobList::SPEC.name;
const SPEC: &str = JobSpec::SPEC.name;
const CANCEL: &str = JobCancel::SPEC.name;
const SIGNAL: &str = JobSignal::SPEC.name;
const RESIZE: &str = JobResize::SPEC.name;
const OUTPUT: &str = JobOutput::SPEC.name;
const ACK: &str = JobAck::SPEC.name;
const INPUT: &str = JobInput::SPEC.name;
const RELEASE: &str = JobRelease::SPEC.name;
const FILE_STAT: &str = HostfileStat::SPEC.name;
const FILE_LIST: &str = HostfileList::SPEC.name;
const FILE_READ: &str = HostfileRead::SPEC.name;
const FILE_WRITE: &str = HostfileWrite::SPEC.name;
const FILE_PLACE: &str = HostfilePlace::SPEC.name;
const DRAIN: &str = AgentDrain::SPEC.name;

impl Handler for Serve {
    fn call(&self, request: Request) -> Called {
        let jobs = self.jobs.clone();
        match request.method.as_str() {
            OFFER => later::<JobOffer, _>(&request, |offer| async move { jobs.offer(offer).await }),
            LIST => now::<JobList>(&request, |params| list::page(&jobs, &params, &self.config)),
            SPEC => later::<JobSpec, _>(&request, |params| async move { jobs.spec(params.job).await }),
            CANCEL => later::<JobCancel, _>(&request, |params| async move {
                jobs.cancel(params.job, params.run, &params.by).await
            }),
            SIGNAL => later::<JobSignal, _>(&request, |params| async move {
                jobs.signal(params.job, params.signal).await.map(|()| Done {})
            }),
            RESIZE => later::<JobResize, _>(&request, |params| async move {
                jobs.resize(params.job, params.window).await.map(|()| Done {})
            }),
            ACK => later::<JobAck, _>(&request, |params| async move {
                jobs.ack(params.job, params.upto).await.map(|()| Done {})
            }),
            RELEASE => later::<JobRelease, _>(&request, |params| async move {
                jobs.release(&params.jobs).await.map(|()| Done {})
            }),
            OUTPUT => output::open(&request, jobs, &self.outputs),
            INPUT => input::open(&request, jobs, &self.inputs),
            FILE_STAT => self.files.stat(&request),
            FILE_LIST => self.files.list(&request),
            FILE_READ => self.files.read(&request),
            FILE_WRITE => self.files.write(&request),
            FILE_PLACE => self.files.place(&request),
            DRAIN => now::<AgentDrain>(&request, |params| {
                self.drain.announce(Duration::from_millis(params.reconnect_after_ms));
                Ok(Done {})
            }),
            _ => Called::NoSuchMethod,
        }
    }
}

/// Answers at once.
fn now<O: Operation>(request: &Request, answer: impl FnOnce(O::Params) -> Result<O::Reply, Error>) -> Called {
    Called::Now(request.params::<O::Params>().and_then(answer).and_then(|reply| Answer::of(&reply)))
}

/// Answers when the future is ready.
fn later<O: Operation, F>(request: &Request, answer: impl FnOnce(O::Params) -> F) -> Called
where
    F: Future<Output = Result<O::Reply, Error>> + Send + 'static,
{
    match request.params::<O::Params>() {
        Ok(params) => {
            let reply = answer(params);
            Called::later(async move { Answer::of(&reply.await?) })
        }
        Err(error) => Called::Now(Err(error)),
    }
}

fn too_many(what: &str, limit: &str) -> Error {
    Error::limited(format!(
        "this host {what} as many jobs as it may at once (`{limit}` in its agent.toml); try later"
    ))
}

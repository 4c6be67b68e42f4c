//! A host: its journal outlives its links and its agent; its commands go on whatever happens to either.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use datacentered_link::{Answer, Called, Handler, Limits, Link, Request, Side, websocket_config};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::JobReport as JobReportOperation;
use datacentered_proto::ops::job::{
    CancelParams, JobParams, JobReport, ListReply, Offer, OutputParams, ReleaseParams,
};
use datacentered_proto::ops::session::AgentHello;
use datacentered_proto::ops::{Done, EndReason};
use datacentered_proto::{Error, JobId, JobState, Outcome, RunId};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as SocketRole;

use super::super::world::{Key, hello};

/// The name of the journal; every offer must be for it.
pub(super) const INCARNATION: &str = "first";

/// What every command prints.
const OUTPUT: &[u8] = b"out\n";

/// Pause between looks of what a simulated program waits for.
const LOOK: Duration = Duration::from_millis(200);

/// What is on the host's disk, and what a test wants to know of it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Jobs that the hub has not told it to forget.
    jobs: BTreeMap<JobId, Kept>,
    released: HashSet<JobId>,
    high_water: u64,
    /// How often each job's end was told.
    pub(super) tells: HashMap<JobId, u32>,
    /// How often each job was started.
    pub(super) starts: HashMap<JobId, u32>,
    /// How each job ended here.
    pub(super) ends: HashMap<JobId, Outcome>,
    /// What the hub did that it must never do.
    pub(super) faults: Vec<String>,
}

#[derive(Debug)]
struct Kept {
    offer: Option<Offer>,
    report: JobReport,
    told: bool,
}

/// One host. Clones are the same host.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) key: Key,
    journal: Arc<Mutex<Journal>>,
    changed: Arc<Notify>,
}

fn fresh(job: JobId, run: RunId, state: JobState, outcome: Option<Outcome>) -> JobReport {
    let (evidence, started, ended) = (vec![], None, None);
    let (stdout_bytes, stderr_bytes, stdin_bytes, high_water) = (0, 0, 0, 0);
    JobReport {
        job,
        run,
        state,
        outcome,
        evidence,
        started,
        ended,
        stdout_bytes,
        stderr_bytes,
        mark_bytes: 0,
        stdin_bytes,
        high_water,
    }
}

impl Host {
    pub(super) fn new() -> Self {
        Self { key: Key::new(), journal: Arc::default(), changed: Arc::default() }
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("lock")
    }

    /// Runs an agent over a connection until it ends: says hello, tells what has ended until the hub has it.
    pub(super) async fn serve(self, socket: DuplexStream) {
        let limits = Limits::default();
        let socket =
            WebSocketStream::from_raw_socket(socket, SocketRole::Client, Some(websocket_config(&limits)))
                .await;
        let (link, driver) = Link::start(socket, Side::Dialled, Arc::new(self.clone()), limits);
        let mut telling = JoinSet::new();
        telling.spawn(self.tell(link));
        driver.await;
    }

    async fn tell(self, link: Link) {
        let high_water = self.journal().high_water;
        let (incarnation, boot_id) = (INCARNATION.into(), "boot".into());
        let agent = AgentHello { incarnation, high_water, boot_id, version: "test".into() };
        if hello(&link, None, Some(agent)).await.is_err() {
            link.close("not greeted");
            return;
        }
        loop {
            let changed = self.changed.notified();
            let next = self
                .journal()
                .jobs
                .values()
                .find(|kept| kept.report.outcome.is_some() && !kept.told)
                .map(|kept| kept.report.clone());
            let Some(mut report) = next else {
                changed.await;
                continue;
            };
            {
                let mut journal = self.journal();
                report.high_water = journal.high_water;
                *journal.tells.entry(report.job).or_default() += 1;
            }
            if link.call::<JobReportOperation>(&report).await.is_ok() {
                if let Some(kept) = self.journal().jobs.get_mut(&report.job) {
                    kept.told = true;
                }
            } else if link.is_closed() {
                return;
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    fn offered(&self, offer: Offer) -> JobReport {
        let mut journal = self.journal();
        let job = offer.job;
        if offer.incarnation != INCARNATION {
            journal.faults.push(format!("{job} was offered to the journal {}", offer.incarnation));
        }
        if let Some(known) = journal.jobs.get(&job) {
            return known.report.clone();
        }
        if journal.released.contains(&job) {
            journal.faults.push(format!("{job} was offered again after it was settled"));
        }
        journal.high_water += 1;
        *journal.starts.entry(job).or_default() += 1;
        let report = fresh(job, offer.run, JobState::Running, None);
        // How long it takes is told in its environment.
        let millis = offer.spec.timeout_ms.unwrap_or(1000) / 2;
        journal.jobs.insert(job, Kept { offer: Some(offer), report: report.clone(), told: false });
        drop(journal);
        let host = self.clone();
        // Nobody holds this task: a command goes on whatever happens to the agent.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            host.end(job, Outcome::Exited { code: 0 });
        });
        report
    }

    fn end(&self, job: JobId, outcome: Outcome) {
        let mut journal = self.journal();
        let Some(kept) = journal.jobs.get_mut(&job) else { return };
        if kept.report.outcome.is_none() {
            kept.report.state = JobState::Ended;
            kept.report.stdout_bytes = OUTPUT.len() as u64;
            kept.report.outcome = Some(outcome.clone());
            journal.high_water += 1;
            journal.ends.insert(job, outcome);
        }
        drop(journal);
        self.changed.notify_waiters();
    }

    fn cancelled(&self, params: CancelParams) -> JobReport {
        let outcome = Outcome::Cancelled { by: params.by };
        self.end(params.job, outcome.clone());
        let mut journal = self.journal();
        if let Some(kept) = journal.jobs.get(&params.job) {
            return kept.report.clone();
        }
        let report = fresh(params.job, params.run, JobState::Ended, Some(outcome.clone()));
        if !journal.released.contains(&params.job) {
            journal.high_water += 1;
            journal.ends.insert(params.job, outcome);
            journal.jobs.insert(params.job, Kept { offer: None, report: report.clone(), told: false });
        }
        report
    }

    fn release(&self, jobs: Vec<JobId>) {
        let mut journal = self.journal();
        for job in jobs {
            if let Some(kept) = journal.jobs.remove(&job)
                && kept.report.outcome.is_none()
            {
                journal.faults.push(format!("{job} was to be forgotten while it ran"));
            }
            journal.released.insert(job);
            journal.high_water += 1;
        }
    }

    fn output(&self, params: &OutputParams) -> Result<Answer, Error> {
        let (host, job, from) = (self.clone(), params.job, params.from);
        if !self.journal().jobs.contains_key(&job) {
            return Err(Error::not_found("no such job"));
        }
        Answer::send(params.stream, None, move |mut writer| async move {
            let total = loop {
                let ended = host
                    .journal()
                    .jobs
                    .get(&job)
                    .map(|kept| (kept.report.outcome.is_some(), kept.report.stdout_bytes));
                match ended {
                    Some((false, _)) => tokio::time::sleep(LOOK).await,
                    Some((true, total)) => break total,
                    None => break from,
                }
            };
            if from < total {
                let rest = OUTPUT[from as usize..total as usize].to_vec();
                if writer.send_bytes(Kind::Stdout, from, rest.into()).await.is_err() {
                    return;
                }
            }
            let _ = writer.end(EndReason::Done, total, None).await;
        })
    }
}

impl Handler for Host {
    fn call(&self, request: Request) -> Called {
        Called::Now(match request.method.as_str() {
            "job.offer" => request.params::<Offer>().and_then(|offer| Answer::of(&self.offered(offer))),
            "job.list" => {
                let jobs = self.journal().jobs.values().map(|kept| kept.report.clone()).collect();
                Answer::of(&ListReply { jobs, next: None })
            }
            "job.spec" => request.params::<JobParams>().and_then(|params| {
                let journal = self.journal();
                let offer = journal.jobs.get(&params.job).and_then(|kept| kept.offer.as_ref());
                offer.ok_or_else(|| Error::not_found("no such job")).and_then(Answer::of)
            }),
            "job.output" => request.params::<OutputParams>().and_then(|params| self.output(&params)),
            "job.cancel" => request.params().and_then(|params| Answer::of(&self.cancelled(params))),
            "job.release" => request.params::<ReleaseParams>().and_then(|params| {
                self.release(params.jobs);
                Answer::of(&Done {})
            }),
            "job.ack" | "agent.drain" => Answer::of(&Done {}),
            _ => return Called::NoSuchMethod,
        })
    }
}

//! A scripted agent: the agents' operations over a real link, with a journal in memory that outlives its links.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use datacentered_link::{Answer, Called, Handler, Link, Request, StreamEvent};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::JobReport as JobReportOperation;
use datacentered_proto::ops::job::{
    AckParams, CancelParams, InputParams, JobParams, JobReport, ListReply, Offer, OutputParams,
    ReleaseParams, ResizeParams, Window,
};
use datacentered_proto::ops::session::AgentHello;
use datacentered_proto::ops::{Done, EndReason, GapReason, StreamOpened};
use datacentered_proto::{Cursor, Error, HostId, JobId, JobState, Outcome, RunId, rpc};

use super::world::{Key, World, hello};
use crate::sessions::Who;

/// What the agent does with an offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Script {
    /// Accepts, runs, prints, exits with this code, all at once.
    Exit(i32),
    /// Accepts and goes on running.
    Run,
    /// Does not answer.
    Silence,
    /// Cannot take it now.
    Busy,
    /// Cannot say whether it has it.
    Unclear,
    /// Looks at it when the script is another one.
    Later,
}

#[derive(Default)]
pub(super) struct Journal {
    pub(super) jobs: HashMap<JobId, (Offer, JobReport)>,
    pub(super) output: HashMap<JobId, Vec<(Kind, Vec<u8>)>>,
    /// What came by standard input.
    pub(super) input: HashMap<JobId, Vec<u8>>,
    /// The sizes that were told, in order.
    pub(super) windows: Vec<Window>,
    pub(super) offers: Vec<JobId>,
    pub(super) released: Vec<JobId>,
    pub(super) script: Option<Script>,
    pub(super) acks: Vec<(JobId, u64)>,
    /// Cancelled before they came.
    pub(super) tombstones: HashMap<JobId, JobReport>,
    /// Bytes that an ended job printed and its host did not keep.
    pub(super) discarded: HashMap<JobId, u64>,
    /// Releases wait.
    pub(super) holds_releases: bool,
    /// How many came, answered or not.
    pub(super) releases_asked: usize,
    /// Times that standard input is let go of at once.
    pub(super) input_failures: u32,
    pub(super) high_water: u64,
}

/// One host's agent.
#[derive(Clone)]
pub(super) struct Agent {
    pub(super) key: Key,
    pub(super) host: HostId,
    pub(super) name: String,
    pub(super) incarnation: Arc<Mutex<String>>,
    pub(super) journal: Arc<Mutex<Journal>>,
}

impl Agent {
    /// Enrols a host and connects it.
    pub(super) async fn join(world: &World, name: &str, script: Script) -> (Self, Link) {
        let agent = Self::enrol(world, name, script).await;
        let link = agent.connect(world).await;
        (agent, link)
    }

    pub(super) async fn enrol(world: &World, name: &str, script: Script) -> Self {
        let key = Key::new();
        let token = world.join_token(1).await;
        let reply = world.enrol(&key, name, &token).await.expect("enrolled");
        Self {
            key,
            host: reply.host,
            name: reply.name,
            incarnation: Arc::new(Mutex::new("first".into())),
            journal: Arc::new(Mutex::new(Journal { script: Some(script), ..Journal::default() })),
        }
    }

    pub(super) async fn connect(&self, world: &World) -> Link {
        let (link, _) = world.link(Who::anonymous(), Some(self.key.0.clone()), Arc::new(self.clone()));
        hello(&link, None, Some(self.hello())).await.expect("hello");
        link
    }

    pub(super) fn hello(&self) -> AgentHello {
        AgentHello {
            incarnation: self.incarnation.lock().expect("lock").clone(),
            high_water: self.lock().high_water,
            boot_id: "boot".into(),
            version: "test".into(),
        }
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().expect("lock")
    }

    /// Puts a job into the journal that no hub of the test has sent.
    pub(super) fn knows(&self, offer: Offer, state: JobState, outcome: Option<Outcome>) {
        let report = JobReport { state, outcome, ..accepted(offer.job, offer.run) };
        self.lock().jobs.insert(offer.job, (offer, report));
    }

    /// Prints something in a running job.
    pub(super) fn print(&self, job: JobId, kind: Kind, text: &str) {
        let mut journal = self.lock();
        journal.output.entry(job).or_default().push((kind, text.as_bytes().to_vec()));
        let length = text.len() as u64;
        if let Some((_, report)) = journal.jobs.get_mut(&job) {
            match kind {
                Kind::Stderr => report.stderr_bytes += length,
                _ => report.stdout_bytes += length,
            }
        }
    }

    /// Ends a job and says so.
    pub(super) async fn end(&self, link: &Link, job: JobId, outcome: Outcome) -> Result<Done, Error> {
        let report = {
            let mut journal = self.lock();
            let (_, report) = journal.jobs.get_mut(&job).expect("job");
            report.state = JobState::Ended;
            report.outcome = Some(outcome);
            report.clone()
        };
        link.call::<JobReportOperation>(&report).await
    }

    fn offered(&self, offer: Offer, link: Link) -> Called {
        let mut journal = self.lock();
        journal.offers.push(offer.job);
        journal.high_water += 1;
        let script = journal.script.unwrap_or(Script::Run);
        match script {
            Script::Silence => return Called::later(std::future::pending()),
            Script::Busy => return Called::Now(Err(Error::limited("busy").with_retry_after_ms(10))),
            Script::Unclear => return Called::Now(Err(Error::indeterminate("the disk failed"))),
            Script::Later => {
                let agent = self.clone();
                return Called::later(async move {
                    while agent.lock().script == Some(Script::Later) {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    match agent.offered(offer, link) {
                        Called::Now(answer) => answer,
                        Called::Later(answer) => answer.await,
                        Called::NoSuchMethod => Err(Error::internal("a script that does not answer")),
                    }
                });
            }
            Script::Run | Script::Exit(_) => {}
        }
        let job = offer.job;
        assert!(!journal.released.contains(&job), "a job that was settled long ago is offered again");
        if let Some(report) = journal.tombstones.get(&job) {
            return Called::Now(Answer::of(report));
        }
        if let Some((_, known)) = journal.jobs.get(&job) {
            return Called::Now(Answer::of(known));
        }
        let report = accepted(offer.job, offer.run);
        journal.jobs.insert(job, (offer, report.clone()));
        drop(journal);
        let agent = self.clone();
        Called::later(async move {
            if let Script::Exit(code) = script {
                agent.print(job, Kind::Stdout, "out\n");
                agent.print(job, Kind::Stderr, "err\n");
                tokio::spawn(async move {
                    let _ = agent.end(&link, job, Outcome::Exited { code }).await;
                });
            }
            Answer::of(&report)
        })
    }

    fn output(&self, params: &OutputParams) -> Result<Answer, Error> {
        let agent = self.clone();
        let (job, from) = (params.job, params.from);
        if !agent.lock().jobs.contains_key(&job) {
            return Err(Error::not_found("no such job"));
        }
        Answer::send(params.stream, None, move |mut writer| {
            Box::pin(async move {
                let mut sent = from;
                loop {
                    let (pieces, ended) = {
                        let journal = agent.lock();
                        let ended = journal.jobs.get(&job).is_none_or(|(_, report)| report.outcome.is_some());
                        (journal.output.get(&job).cloned().unwrap_or_default(), ended)
                    };
                    let mut at = 0;
                    for (kind, bytes) in pieces {
                        let end = at + bytes.len() as u64;
                        if end > sent {
                            let skip = sent.saturating_sub(at) as usize;
                            let rest = Bytes::copy_from_slice(&bytes[skip..]);
                            if writer.send_bytes(kind, sent, rest).await.is_err() {
                                return;
                            }
                            sent = end;
                        }
                        at = end;
                    }
                    if ended {
                        let discarded = agent.lock().discarded.get(&job).copied().unwrap_or(0);
                        if discarded > 0 {
                            let _ = writer.gap(sent, sent + discarded, GapReason::Discarded).await;
                            sent += discarded;
                        }
                        let _ = writer.end(EndReason::Done, sent, None).await;
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            })
        })
    }
}

impl Agent {
    /// Takes standard input from where it holds it already.
    fn input(&self, request: &Request, params: &InputParams) -> Result<Answer, Error> {
        let (agent, job) = (self.clone(), params.job);
        let held = self.lock().input.get(&job).map_or(0, Vec::len) as u64;
        let credit = Some(request.link.first_credit(held));
        let opened = StreamOpened { cursor: Some(Cursor::new("host", held)), credit };
        Ok(Answer::Receive {
            reply: rpc::raw(&opened)?,
            stream: params.stream,
            from: held,
            body: Box::new(move |mut reader| {
                Box::pin(async move {
                    while let Some(StreamEvent::Bytes { offset, payload, .. }) = reader.next().await {
                        let mut journal = agent.lock();
                        if journal.input_failures > 0 {
                            journal.input_failures -= 1;
                            return;
                        }
                        let held = journal.input.entry(job).or_default();
                        assert!(offset <= held.len() as u64, "input was left out");
                        let known = held.len() - offset as usize;
                        held.extend_from_slice(&payload[known.min(payload.len())..]);
                    }
                })
            }),
        })
    }
}

/// What a host says of a job that it has just taken.
fn accepted(job: JobId, run: RunId) -> JobReport {
    JobReport {
        job,
        run,
        state: JobState::Accepted,
        outcome: None,
        evidence: vec![],
        started: None,
        ended: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        mark_bytes: 0,
        stdin_bytes: 0,
        high_water: 0,
    }
}

impl Handler for Agent {
    fn call(&self, request: Request) -> Called {
        let answer = match request.method.as_str() {
            "job.offer" => match request.params::<Offer>() {
                Ok(offer) => return self.offered(offer, request.link.clone()),
                Err(error) => Err(error),
            },
            "job.list" => {
                let journal = self.lock();
                let jobs = journal.jobs.values().map(|(_, report)| report.clone()).collect();
                Answer::of(&ListReply { jobs, next: None })
            }
            "job.spec" => request.params::<JobParams>().and_then(|params| {
                let journal = self.lock();
                let (offer, _) =
                    journal.jobs.get(&params.job).ok_or_else(|| Error::not_found("no such job"))?;
                Answer::of(offer)
            }),
            "job.output" => request.params::<OutputParams>().and_then(|params| self.output(&params)),
            "job.cancel" => request.params::<CancelParams>().and_then(|params| {
                let mut journal = self.lock();
                let outcome = Outcome::Cancelled { by: params.by.clone() };
                let report = if let Some((_, report)) = journal.jobs.get_mut(&params.job) {
                    if report.outcome.is_none() {
                        report.state = JobState::Ended;
                        report.outcome = Some(outcome);
                    }
                    report.clone()
                } else {
                    let state = JobState::Ended;
                    let begun = accepted(params.job, params.run);
                    let report = JobReport { state, outcome: Some(outcome), ..begun };
                    journal.tombstones.insert(params.job, report.clone());
                    report
                };
                Answer::of(&report)
            }),
            "job.release" => {
                let agent = self.clone();
                let params = request.params::<ReleaseParams>();
                self.lock().releases_asked += 1;
                return Called::later(async move {
                    while agent.lock().holds_releases {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    let mut journal = agent.lock();
                    for job in params?.jobs {
                        journal.jobs.remove(&job);
                        journal.tombstones.remove(&job);
                        journal.released.push(job);
                    }
                    Answer::of(&Done {})
                });
            }
            "job.ack" => request.params::<AckParams>().and_then(|params| {
                self.lock().acks.push((params.job, params.upto));
                Answer::of(&Done {})
            }),
            "job.input" => request.params::<InputParams>().and_then(|params| self.input(&request, &params)),
            "job.resize" => request.params::<ResizeParams>().and_then(|params| {
                self.lock().windows.push(params.window);
                Answer::of(&Done {})
            }),
            "agent.drain" => Answer::of(&Done {}),
            _ => return Called::NoSuchMethod,
        };
        Called::Now(answer)
    }
}

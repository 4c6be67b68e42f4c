//! Hub and hosts under a paused clock, with connections that are cut, slow, blocked in one direction or both, and doubled:
//! every job ends explained, is offered to one journal only, and is never started twice, in bounded time.
//!
//! A seed gives one schedule, in the clock's time; DC_SEED repeats it, DC_SCHEDULES runs more. Time moves only when this
//! test moves it, after what the hub asked of its disk is done; which of several tasks that are ready runs first is not
//! part of a seed.

mod cable;
mod host;
mod links;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datacentered_engine::kv::Expect;
use datacentered_engine::outbox::Mover;
use datacentered_link::Link;
use datacentered_link::clock::Clock;
use datacentered_proto::operations::{HostEnrol, RunCancel, RunCreate, RunShow, TokenCreate};
use datacentered_proto::ops::access::{TokenCreateParams, TokenKind};
use datacentered_proto::ops::host::{EnrolParams, Facts};
use datacentered_proto::ops::job::ExecSpec;
use datacentered_proto::ops::run::{CancelParams, CreateParams, OfflinePolicy, RunReply, ShowParams};
use datacentered_proto::{JobId, OperationKey, Outcome, RunId, Timestamp};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::hub::Hub;
use crate::sessions::Who;
use crate::store::Change;
use crate::store::records::HubRecord;
use cable::Cable;
use host::Host;
use links::{accept, sound};

/// Schedules of one test run.
const SCHEDULES: u64 = 60;

/// Events of one schedule.
const EVENTS: u64 = 24;

/// Schedules run beside each other: most of their time is the engine's.
const WORKERS: u64 = 4;

/// How long everything may take to come to its end once the network is well again, in the clock's time.
const BOUND: Duration = Duration::from_mins(3);

/// How far the clock moves at a time.
const STEP: Duration = Duration::from_millis(500);

/// A small generator: what matters is that a seed repeats it.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A host and what connects it. The hub may still see connections that the host has left.
struct Machine {
    host: Host,
    cables: Vec<Cable>,
    agent: JoinSet<()>,
}

/// What a schedule came by, so that schedules that try nothing are noticed.
#[derive(Debug, Default)]
struct Seen {
    outcomes: BTreeMap<&'static str, u64>,
    /// Jobs that the hub had to offer more than once: an offer was lost.
    offered_again: u64,
    /// Jobs whose end the host had to tell more than once: the hub's reply was lost.
    told_again: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.offered_again += other.offered_again;
        self.told_again += other.told_again;
        for (kind, count) in other.outcomes {
            *self.outcomes.entry(kind).or_default() += count;
        }
    }
}

struct Simulation {
    hub: Arc<Hub>,
    mover: Option<Mover>,
    machines: Vec<Machine>,
    admin: Link,
    runs: Vec<RunId>,
    seed: u64,
    _dir: tempfile::TempDir,
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("directory");
        let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        config.embedded.min_free_bytes = 0;
        let clock = Clock::following_tokio(Timestamp::from_millis(1_800_000_000_000), seed);
        let (hub, mover) = Hub::open(config, clock).await.expect("hub");
        let admin = sound(&hub, Who::local(0, 1), None).await;
        let token = TokenCreateParams {
            key: OperationKey::from_uuid(hub.clock.uuid()),
            kind: TokenKind::Join,
            name: "test".into(),
            role: None,
            ttl_ms: None,
            uses: Some(2),
            labels: BTreeMap::new(),
        };
        let token = admin.call::<TokenCreate>(&token).await.expect("token").token;
        let mut machines = Vec::new();
        for name in ["a", "b"] {
            let host = Host::new();
            let link = sound(&hub, Who::anonymous(), Some(host.key.0.clone())).await;
            let (name, labels, facts) = (name.into(), BTreeMap::new(), Facts::default());
            let params = EnrolParams { token: token.clone(), name, labels, facts };
            link.call::<HostEnrol>(&params).await.expect("enrolled");
            link.close("enrolled");
            machines.push(Machine { host, cables: Vec::new(), agent: JoinSet::new() });
        }
        Self { hub, mover: Some(mover), machines, admin, runs: Vec::new(), seed, _dir: dir }
    }

    /// Moves the clock, after what the hub asked of its disk is done: time must not run while threads work.
    async fn pass(&self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            for _ in 0..2 {
                let mut behind_all = Change::new(&self.hub.clock, "simulation", None);
                behind_all.check::<HubRecord>(&["self".into()], Expect::Exists);
                self.hub.store.commit(behind_all).await.expect("the hub's disk works");
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            tokio::time::advance(STEP.min(until - tokio::time::Instant::now())).await;
        }
    }

    /// The host dials anew. It leaves the connection it had, which the hub may not notice for long.
    fn dial(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        machine.agent.abort_all();
        let (cable, near, far) = Cable::lay();
        accept(&self.hub, Who::anonymous(), Some(machine.host.key.0.clone()), far);
        machine.agent.spawn(machine.host.clone().serve(near));
        machine.cables.push(cable);
    }

    /// A request of the administrator's, finished while time goes on.
    async fn request<T: Send + 'static>(
        &self,
        what: &str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let mut tasks = JoinSet::new();
        tasks.spawn(call);
        for _ in 0..BOUND.as_millis() / STEP.as_millis() {
            if let Some(done) = tasks.try_join_next() {
                return done.expect("no panic");
            }
            self.pass(STEP).await;
        }
        panic!("seed {}: {what} takes longer than {BOUND:?}", self.seed);
    }

    async fn create(&mut self, random: &mut Random) {
        let mut exec = ExecSpec::command(vec!["true".into()]);
        exec.timeout_ms = Some(2 * (1 + random.below(6000)));
        let offline = if random.below(4) == 0 { OfflinePolicy::Fail } else { OfflinePolicy::Queue };
        let params = CreateParams {
            key: RunId::from_uuid(self.hub.clock.uuid()),
            on: vec!["all".into()],
            exec,
            offline,
            expires_ms: 3_600_000,
            max_parallel: None,
        };
        let admin = self.admin.clone();
        self.runs.push(params.key);
        self.request("run.create", async move { admin.call::<RunCreate>(&params).await })
            .await
            .expect("a run");
    }

    async fn cancel(&self, run: RunId) {
        let params = CancelParams { key: OperationKey::from_uuid(self.hub.clock.uuid()), run, hosts: vec![] };
        let admin = self.admin.clone();
        let reply = self.request("run.cancel", async move { admin.call::<RunCancel>(&params).await }).await;
        reply.expect("cancelled, now or later");
    }

    async fn show(&self, run: RunId) -> RunReply {
        let admin = self.admin.clone();
        let params = ShowParams { run, limit: None, next: None };
        self.request("run.show", async move { admin.call::<RunShow>(&params).await }).await.expect("a run")
    }

    async fn event(&mut self, random: &mut Random) {
        let index = random.below(self.machines.len() as u64) as usize;
        let cables = &mut self.machines[index].cables;
        let newest = cables.len().checked_sub(1);
        match random.below(14) {
            0..=3 => self.create(random).await,
            4 | 5 => self.dial(index),
            6 => drop(newest.map(|at| cables.remove(at))),
            // An older connection of the same key ends, whatever the newer one does.
            7 if cables.len() > 1 => drop(cables.remove(0)),
            8 | 9 => {
                // Both ways, or only one: half-open.
                let (up, down) = [(true, true), (true, false), (false, true)][random.below(3) as usize];
                cables.last().iter().for_each(|cable| cable.block(up, down));
            }
            10 => cables.iter().for_each(|cable| cable.block(false, false)),
            11 => {
                let delay = Duration::from_millis(random.below(4000));
                cables.last().iter().for_each(|cable| cable.slow(delay));
            }
            12 => {
                // The hub's replies get lost: it hears, decides, and is not heard.
                if let Some(at) = newest {
                    cables[at].block(false, true);
                    self.pass(Duration::from_millis(random.below(3000))).await;
                    drop(self.machines[index].cables.remove(at));
                }
            }
            _ => match self.runs.len() as u64 {
                0 => {}
                runs => self.cancel(self.runs[random.below(runs) as usize]).await,
            },
        }
    }

    /// Everything is well again; all jobs must end now.
    async fn settle(&mut self) -> Vec<RunReply> {
        for index in 0..self.machines.len() {
            self.machines[index].cables.clear();
            self.dial(index);
        }
        for _ in 0..BOUND.as_millis() / STEP.as_millis() {
            self.pass(STEP).await;
            if self.hub.store.view(|view| view.active_runs.is_empty()) {
                break;
            }
        }
        let mut ended = Vec::new();
        for run in self.runs.clone() {
            ended.push(self.show(run).await);
        }
        ended
    }

    fn check(&self, runs: &[RunReply]) -> Seen {
        let seed = self.seed;
        let mut seen = Seen::default();
        for run in runs {
            for target in &run.targets {
                let Some(outcome) = &target.outcome else {
                    panic!("seed {seed}: {} on {} never ended: {target:#?}", run.run, target.host);
                };
                assert!(!target.evidence.is_empty(), "seed {seed}: no evidence for {target:?}");
                self.agrees(target.job, outcome);
                *seen.outcomes.entry(outcome.kind()).or_default() += 1;
                let again = target.evidence.iter().any(|evidence| evidence.fact == "offered_again");
                seen.offered_again += u64::from(again);
            }
        }
        for machine in &self.machines {
            let journal = machine.host.journal();
            assert!(journal.faults.is_empty(), "seed {seed}: {:#?}", journal.faults);
            let twice: Vec<_> = journal.starts.iter().filter(|(_, times)| **times > 1).collect();
            assert!(twice.is_empty(), "seed {seed}: started more than once: {twice:?}");
            seen.told_again += journal.tells.values().filter(|times| **times > 1).count() as u64;
        }
        seen
    }

    /// The hub says what the host knows: where a command was started, its end is the host's.
    fn agrees(&self, job: JobId, outcome: &Outcome) {
        let seed = self.seed;
        let mut started_on = 0;
        for machine in &self.machines {
            let journal = machine.host.journal();
            if journal.starts.contains_key(&job) {
                started_on += 1;
                assert_eq!(
                    journal.ends.get(&job),
                    Some(outcome),
                    "seed {seed}: {job} ended otherwise on its host"
                );
            }
        }
        assert!(started_on <= 1, "seed {seed}: {job} was started on two hosts");
        let ran = matches!(outcome, Outcome::Exited { .. });
        assert!(started_on == 1 || !ran, "seed {seed}: {job} is said to have run and never did");
        let known =
            matches!(outcome, Outcome::Exited { .. } | Outcome::Cancelled { .. } | Outcome::Offline { .. });
        assert!(known, "seed {seed}: {job} ended as {outcome}");
    }
}

async fn schedule(seed: u64) -> Seen {
    let mut random = Random(seed);
    let mut simulation = Simulation::new(seed).await;
    for index in 0..simulation.machines.len() {
        simulation.dial(index);
    }
    for _ in 0..EVENTS {
        simulation.event(&mut random).await;
        simulation.pass(Duration::from_millis(random.below(4000))).await;
    }
    simulation.create(&mut random).await;
    let runs = simulation.settle().await;
    let seen = simulation.check(&runs);
    let mover = simulation.mover.take().expect("running");
    // Going down waits for threads by the clock, which nobody moves any more.
    tokio::time::resume();
    simulation.hub.stop.cancel();
    mover.stop().await;
    simulation.hub.engine.shutdown().await;
    seen
}

/// Runs a schedule on a runtime of its own. While a blocking task is there, tokio does not move the clock by itself.
fn run(seed: u64) -> Seen {
    println!("DC_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("runtime").block_on(async {
        let (done, held) = std::sync::mpsc::sync_channel::<()>(0);
        let holding = tokio::task::spawn_blocking(move || {
            let _ = held.recv();
        });
        let seen = schedule(seed).await;
        drop(done);
        holding.await.expect("held");
        seen
    })
}

#[test]
fn partitions_delays_and_half_open_links() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = setting("DC_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = u64::from(now.map_or(1, |now| now.subsec_nanos()));
    let schedules = setting("DC_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(0);
    let work = || {
        let mut all = Seen::default();
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < schedules)
        {
            let seen = run(first + seed);
            all.add(seen);
        }
        all
    };
    let mut all = Seen::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            all.add(worker.join().expect("a schedule failed; its seed is in the message"));
        }
    });
    println!("{schedules} schedules: {all:?}");
    if schedules >= SCHEDULES {
        assert!(all.offered_again > 0, "no offer was ever lost: {all:?}");
        assert!(all.told_again > 0, "no reply of the hub was ever lost: {all:?}");
        for kind in ["exited", "cancelled", "offline"] {
            assert!(all.outcomes.contains_key(kind), "nothing ended as {kind}: {all:?}");
        }
    }
}

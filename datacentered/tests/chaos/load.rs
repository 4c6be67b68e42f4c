//! Clients that give the fleet work and watch it, while everything around them fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use datacentered_client::{Client, ClientConfig, Error, ItemEvent, OutputEvent};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{EventWatch, RunCancel, RunCreate, RunShow};
use datacentered_proto::ops::GapReason;
use datacentered_proto::ops::event::{Event, WatchParams};
use datacentered_proto::ops::run::{
    CancelParams, CreateParams, OfflinePolicy, RunReply, ShowParams, default_expires_ms,
};
use datacentered_proto::{Cursor, RunId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::random::Random;
use crate::work::Work;

/// Runs under way at a time.
const CLIENTS: u64 = 24;

/// How long a run may take before it counts as stuck. Faults come and go; none lasts longer than a few seconds.
const STUCK: Duration = Duration::from_mins(3);

/// What one reader of a job's output got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    /// Bytes that it was told are missing because the host had to discard them.
    pub(crate) discarded: u64,
    /// Bytes that it was told are missing for any other reason.
    pub(crate) lost: u64,
    /// What it was told of each stretch that is missing.
    pub(crate) gaps: Vec<(u64, u64, GapReason)>,
}

/// A run as its client saw it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) tag: String,
    pub(crate) work: Work,
    pub(crate) offline: OfflinePolicy,
    /// How it stood at the end; none where it never ended.
    pub(crate) shown: Option<RunReply>,
    /// What readers got who were there from the start, by host.
    pub(crate) live: BTreeMap<String, Read>,
    /// What went wrong for the client.
    pub(crate) complaints: Vec<String>,
}

/// Everything that is to be done, as a plan from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    pub(crate) runs: u64,
    pub(crate) hosts: u64,
    pub(crate) notes: PathBuf,
    pub(crate) hub: String,
}

impl Load {
    /// A client of the hub's local socket, which comes back whatever happens to the hub.
    pub(crate) async fn client(&self) -> Client {
        let mut tried = 0;
        loop {
            let config = ClientConfig::new(vec![self.hub.parse().expect("a URL")]);
            match Client::connect(config).await {
                Ok(client) => return client,
                Err(error) => {
                    tried += 1;
                    assert!(tried < 600, "no hub: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Does all of it.
    pub(crate) async fn run(self) -> Vec<Ran> {
        let next = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (load, next) = (self.clone(), next.clone());
            clients.spawn(async move {
                let client = load.client().await;
                let mut ran = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= load.runs {
                        client.close().await;
                        return ran;
                    }
                    ran.push(load.one(&client, index).await);
                }
            });
        }
        clients.join_all().await.into_iter().flatten().collect()
    }

    async fn one(&self, client: &Client, index: u64) -> Ran {
        let mut random = Random::new(self.seed, 1000 + index);
        let tag = format!("run {index}");
        let work = Work::choose(&mut random);
        let hosts: Vec<String> =
            (0..self.hosts).filter(|_| random.once_in(2)).map(|number| format!("host{number}")).collect();
        let on = if hosts.is_empty() { vec!["all".to_owned()] } else { hosts };
        let offline = match random.below(10) {
            0 => OfflinePolicy::Fail,
            1 => OfflinePolicy::Skip,
            _ => OfflinePolicy::Queue,
        };
        let max_parallel = random.once_in(5).then(|| 1 + random.below(3) as u32);
        let exec = work.exec(self.notes.to_str().expect("ASCII"), &tag);
        let key = client.clock().run_id();
        let params = CreateParams { key, on, exec, offline, expires_ms: default_expires_ms(), max_parallel };
        let mut ran = Ran { tag, work, offline, shown: None, live: BTreeMap::new(), complaints: Vec::new() };
        let whole = timeout(STUCK, follow(client, &params, &mut ran)).await;
        match whole {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ran.complaints.push(error.to_string()),
            Err(_) => ran.complaints.push(format!("run {key} is stuck")),
        }
        if ran.shown.is_none() {
            let params = ShowParams { run: key, limit: None, next: None };
            let shown = timeout(Duration::from_secs(10), client.call::<RunShow>(&params)).await;
            ran.shown = shown.ok().and_then(Result::ok);
        }
        ran
    }
}

async fn follow(client: &Client, params: &CreateParams, ran: &mut Ran) -> Result<(), Error> {
    let run = params.key;
    let created = client.call::<RunCreate>(params).await?;
    let mut readers = JoinSet::new();
    for target in created.targets {
        let client = client.clone();
        readers.spawn(async move { (target.host.clone(), read(&client, run, target.host).await) });
    }
    let mut beside = JoinSet::new();
    if let Some(input) = ran.work.input(&ran.tag) {
        let mut writer = client.input(run);
        beside.spawn(async move {
            for piece in input.chunks(5000) {
                if !writer.write(Bytes::copy_from_slice(piece)).await.unwrap_or(false) {
                    return;
                }
            }
            writer.finish().await.ok();
        });
    }
    if let Work::Cancel { after_ms } = ran.work {
        let client = client.clone();
        beside.spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            let key = client.clock().key();
            let params = CancelParams { key, run, hosts: Vec::new() };
            client.call::<RunCancel>(&params).await.ok();
        });
    }
    let mut watched = client.watch_run(run);
    while watched.next().await?.is_some() {}
    while let Some(read) = readers.join_next().await {
        let (host, read) = read.expect("a reader does not panic");
        ran.live.insert(host, read?);
    }
    ran.shown = Some(client.call::<RunShow>(&ShowParams { run, limit: None, next: None }).await?);
    Ok(())
}

/// Reads a job's output from its first byte to its end.
pub(crate) async fn read(client: &Client, run: RunId, host: String) -> Result<Read, Error> {
    let mut output = client.output(run, Some(host), 0);
    let mut read = Read::default();
    while let Some(event) = output.next().await? {
        if let OutputEvent::Gap { from, to, reason } = &event {
            read.gaps.push((*from, *to, *reason));
        }
        match event {
            OutputEvent::Bytes { kind: Kind::Stderr, bytes, .. } => read.err.extend_from_slice(&bytes),
            OutputEvent::Bytes { bytes, .. } => read.out.extend_from_slice(&bytes),
            OutputEvent::Gap { from, to, reason: GapReason::Discarded } => read.discarded += to - from,
            OutputEvent::Gap { from, to, .. } => read.lost += (to - from).max(1),
            OutputEvent::End { .. } => {}
        }
    }
    Ok(read)
}

/// Events as one watcher got them.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) events: Vec<(Cursor, Event)>,
    pub(crate) gaps: u64,
}

/// Watches events from the first one on, until it is told the cursor of the last.
pub(crate) async fn watch_events(client: Client, mut last: watch::Receiver<Option<Cursor>>) -> Watched {
    let mut events = client.items::<EventWatch>(|cursor, stream| WatchParams {
        from_start: cursor.is_none(),
        cursor,
        kinds: Vec::new(),
        stream,
    });
    let mut watched = Watched::default();
    loop {
        let is_last = |last: &Option<Cursor>| {
            last.is_some() && watched.events.last().map(|(cursor, _)| cursor) == last.as_ref()
        };
        if is_last(&last.borrow_and_update()) {
            return watched;
        }
        tokio::select! {
            event = events.next() => match event.expect("events can be watched") {
                Some(ItemEvent::Item { cursor, value }) => watched.events.push((cursor, value)),
                Some(ItemEvent::Gap) => watched.gaps += 1,
                None => return watched,
            },
            changed = last.changed() => if changed.is_err() { return watched },
        }
    }
}

/// Where the event log ends now: nothing comes behind it for a second.
pub(crate) async fn last_event(client: &Client) -> Option<Cursor> {
    let mut events = client.items::<EventWatch>(|cursor, stream| WatchParams {
        from_start: cursor.is_none(),
        cursor,
        kinds: Vec::new(),
        stream,
    });
    let mut last = None;
    while let Ok(event) = timeout(Duration::from_secs(1), events.next()).await {
        match event.expect("events can be watched") {
            Some(ItemEvent::Item { cursor, .. }) => last = Some(cursor),
            Some(ItemEvent::Gap) => {}
            None => break,
        }
    }
    last
}

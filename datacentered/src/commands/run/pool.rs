//! The output streams of a run on many hosts: few at a time, and every host gets its turn.
//!
//! A thousand hosts do not need a thousand streams. Only targets that have output, or may have some soon, get one of
//! [`STREAMS`] places; while others wait, a place is given up after a [`SLICE`], and the stream goes on later from
//! where it stood. What is known to have unread output comes before what might have some.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datacentered_client::{Client, Error, OutputEvent};
use datacentered_proto::ops::run::Target;
use datacentered_proto::{JobState, RunId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Streams that are open at a time; far below what a link allows.
const STREAMS: usize = 64;

/// How long a stream keeps its place while others wait.
const SLICE: Duration = Duration::from_millis(250);

/// Events that wait to be printed.
const QUEUE: usize = 64;

/// What a stream brought.
#[derive(Debug)]
pub(super) enum Event {
    /// Output, or its end.
    Output(usize, OutputEvent),
    /// The output cannot be read any more.
    Failed(usize, Error),
    /// It has given up its place, here.
    Paused(usize, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Outside,
    Waiting,
    Open,
    Done,
}

#[derive(Debug)]
struct Slot {
    host: String,
    place: Place,
    /// What has been read.
    position: u64,
    /// What is known to exist.
    known: u64,
    state: JobState,
}

impl Slot {
    fn has_unread(&self) -> bool {
        self.known > self.position || self.state == JobState::Ended
    }
}

/// The output of every target of one run.
#[derive(Debug)]
pub(super) struct Pool {
    client: Client,
    run: RunId,
    slots: Vec<Slot>,
    /// Targets with unread output.
    unread: VecDeque<usize>,
    /// Targets that run and may write at any time.
    running: VecDeque<usize>,
    /// How many wait, for the streams that hold a place.
    waiting: Arc<AtomicUsize>,
    left: usize,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    /// Dropped with the pool: no stream outlives it.
    streams: JoinSet<()>,
}

impl Pool {
    /// Nothing is open yet: tell how the targets stand with [`Self::update`].
    pub(super) fn new(client: &Client, run: RunId, targets: &[Target]) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let slot = |target: &Target| Slot {
            host: target.host_id.to_string(),
            place: Place::Outside,
            position: 0,
            known: 0,
            state: JobState::Queued,
        };
        Self {
            client: client.clone(),
            run,
            slots: targets.iter().map(slot).collect(),
            unread: VecDeque::new(),
            running: VecDeque::new(),
            waiting: Arc::default(),
            left: targets.len(),
            events,
            sender,
            streams: JoinSet::new(),
        }
    }

    /// Whether all output of all targets has been read.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// A target as it stands now.
    pub(super) fn update(&mut self, index: usize, target: &Target) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let had_unread = slot.has_unread();
        slot.known =
            slot.known.max(target.stdout_bytes.saturating_add(target.stderr_bytes)).max(target.stored_bytes);
        slot.state = slot.state.max(target.state);
        match slot.place {
            Place::Outside => self.enqueue(index),
            // It waits among those that might have output, and now it has.
            Place::Waiting if !had_unread && slot.has_unread() => {
                self.running.retain(|waiting| *waiting != index);
                slot.place = Place::Outside;
                self.enqueue(index);
            }
            Place::Waiting | Place::Open | Place::Done => {}
        }
        self.open_more();
    }

    fn enqueue(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.state == JobState::Ended && slot.known == 0 && slot.position == 0 {
            slot.place = Place::Done;
            self.left -= 1;
        } else if slot.has_unread() {
            slot.place = Place::Waiting;
            self.unread.push_back(index);
        } else if slot.state == JobState::Running {
            slot.place = Place::Waiting;
            self.running.push_back(index);
        }
    }

    fn open_more(&mut self) {
        while self.streams.try_join_next().is_some() {}
        while self.streams.len() < STREAMS {
            let Some(index) = self.unread.pop_front().or_else(|| self.running.pop_front()) else { break };
            let Some(slot) = self.slots.get_mut(index) else { continue };
            slot.place = Place::Open;
            self.streams.spawn(read(
                self.client.clone(),
                self.run,
                slot.host.clone(),
                index,
                slot.position,
                self.sender.clone(),
                Arc::clone(&self.waiting),
            ));
        }
        self.waiting.store(self.unread.len() + self.running.len(), Ordering::Relaxed);
    }

    /// The next thing that a stream brought; waits for ever while none is open. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let event = tokio::select! {
                // The pool holds a sender, so the channel never closes.
                Some(event) = self.events.recv() => event,
                // A stream that has ended makes room; its last event is in the channel before.
                Some(_) = self.streams.join_next() => {
                    self.open_more();
                    continue;
                }
                else => std::future::pending().await,
            };
            match &event {
                Event::Paused(index, position) => {
                    let (index, position) = (*index, *position);
                    if let Some(slot) = self.slots.get_mut(index) {
                        slot.position = position;
                        slot.place = Place::Outside;
                    }
                    self.enqueue(index);
                    self.open_more();
                }
                Event::Output(index, OutputEvent::End { .. }) | Event::Failed(index, _) => {
                    if let Some(slot) = self.slots.get_mut(*index)
                        && slot.place != Place::Done
                    {
                        slot.place = Place::Done;
                        self.left -= 1;
                    }
                }
                Event::Output(..) => {}
            }
            return event;
        }
    }
}

async fn read(
    client: Client,
    run: RunId,
    host: String,
    index: usize,
    from: u64,
    events: mpsc::Sender<Event>,
    waiting: Arc<AtomicUsize>,
) {
    let mut output = client.output(run, Some(host), from);
    let mut slice = Instant::now() + SLICE;
    loop {
        let event = match timeout_at(slice, output.next()).await {
            Ok(Ok(Some(event))) => Event::Output(index, event),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => Event::Failed(index, error),
            Err(_) => {
                slice = Instant::now() + SLICE;
                if waiting.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                Event::Paused(index, output.position())
            }
        };
        let over = !matches!(&event, Event::Output(_, OutputEvent::Bytes { .. } | OutputEvent::Gap { .. }));
        if events.send(event).await.is_err() || over {
            return;
        }
        // A stream that always has more never waits long enough for its slice to run out above.
        if Instant::now() >= slice && waiting.load(Ordering::Relaxed) > 0 {
            events.send(Event::Paused(index, output.position())).await.ok();
            return;
        }
    }
}

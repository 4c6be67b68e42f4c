//! The one thread that writes the journal: it takes all requests that wait, writes them, syncs once, answers all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use datacentered_proto::ops::job::Offer;
use datacentered_proto::{JobId, Timestamp};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::file::{JournalFile, Place};
use super::index::Index;
use super::record::{Entry, Record};
use super::{JournalError, random_incarnation, slots};

/// Requests that may wait for the disk.
pub const MAX_WAITING: usize = 1024;

/// The journal is rewritten when it is larger than this and more than half of it is no longer needed.
const COMPACT_ABOVE: u64 = 1 << 20;

/// Free slots below which more are made ahead of need.
const SLOTS_AHEAD: usize = 16;

/// Names of the files.
const JOURNAL: &str = "journal";
const SLOTS: &str = "slots";

enum Request {
    Accept { at: Timestamp, offer: Box<Offer>, reply: oneshot::Sender<Result<u32, JournalError>> },
    Append { record: Box<Record>, sync: bool, reply: oneshot::Sender<Result<(), JournalError>> },
    Read { job: JobId, reply: oneshot::Sender<Result<Option<Offer>, JournalError>> },
}

/// A journal, open for writing. Dropping it ends its thread, after what was asked for.
#[derive(Debug)]
pub struct Journal {
    incarnation: String,
    slots: PathBuf,
    high_water: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
    failed: CancellationToken,
    requests: Option<SyncSender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A journal with what it held.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// Jobs that were not released, by id.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// Opens the journal in a directory, or makes a new one with a random incarnation.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where [`Journal::set_aside`] has to be called first; the kernel's.
    pub fn open(dir: &Path, max_jobs: u32) -> Result<Opened, JournalError> {
        let path = dir.join(JOURNAL);
        let slots = dir.join(SLOTS);
        let mut index = Index::default();
        let file = if path.try_exists().map_err(JournalError::io("inspect", &path))? {
            JournalFile::open(&path, &mut |place, payload| index.replay(place, payload))?
        } else {
            JournalFile::create(&path, random_incarnation(&path)?, 0, 0, &mut std::iter::empty())?.0
        };
        let count = slots::reserve(&slots, index.next_slot().max(slots::SLOT_CHUNK).min(max_jobs.max(1)))
            .map_err(JournalError::io("extend", &slots))?;
        index.find_free(count.min(max_jobs));

        let high_water = Arc::new(AtomicU64::new(file.sequence()));
        let syncs = Arc::new(AtomicU64::new(0));
        let entries = index.jobs.values().map(|known| known.entry.clone()).collect();
        let incarnation = file.incarnation();
        let (requests, queue) = sync_channel(MAX_WAITING);
        let failed = CancellationToken::new();
        let writer = Writer {
            file,
            index,
            path,
            slots: slots.clone(),
            slot_count: count,
            max_jobs,
            high_water: Arc::clone(&high_water),
            syncs: Arc::clone(&syncs),
            failed: failed.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .stack_size(256 << 10)
            .spawn(move || writer.run(&queue))
            .map_err(JournalError::io("start the thread for", dir))?;
        let (requests, thread) = (Some(requests), Some(thread));
        let journal = Self { incarnation, slots, high_water, syncs, failed, requests, thread };
        Ok(Opened { journal, entries })
    }

    /// Sets a damaged journal and its slots aside, under names that end in `suffix`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_aside(dir: &Path, suffix: &str) -> Result<(), JournalError> {
        for name in [JOURNAL, SLOTS] {
            let from = dir.join(name);
            match std::fs::rename(&from, dir.join(format!("{name}.{suffix}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(JournalError::io("set aside", &from)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The random name of this journal; a new one knows nothing of what an older one promised.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// The number of the last record that is on disk.
    pub fn high_water(&self) -> u64 {
        self.high_water.load(Ordering::Acquire)
    }

    /// How often the disk was waited for on behalf of a request.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Cancelled when a write or a sync has failed: from then on nothing is taken, and only opening it again tells what is
    /// on disk.
    pub fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    /// The slots file.
    pub fn slots(&self) -> &Path {
        &self.slots
    }

    /// Reserves a slot and writes the offer; on disk when it returns.
    ///
    /// # Errors
    /// [`JournalError::DiskFull`] and [`JournalError::NoSlot`] with nothing written.
    pub async fn accept(&self, at: Timestamp, offer: Offer) -> Result<u32, JournalError> {
        let offer = Box::new(offer);
        self.ask(|reply| Request::Accept { at, offer, reply }).await
    }

    /// Writes a record; on disk when it returns, if `sync`.
    ///
    /// # Errors
    /// [`JournalError::DiskFull`] with nothing written.
    pub async fn append(&self, record: Record, sync: bool) -> Result<(), JournalError> {
        let record = Box::new(record);
        self.ask(|reply| Request::Append { record, sync, reply }).await
    }

    /// The offer of a job that was accepted and not released.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn offer(&self, job: JobId) -> Result<Option<Offer>, JournalError> {
        self.ask(|reply| Request::Read { job, reply }).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Request,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(JournalError::Failed)?;
        requests.try_send(request(reply)).map_err(|error| match error {
            TrySendError::Full(_) => JournalError::Busy,
            TrySendError::Disconnected(_) => JournalError::Failed,
        })?;
        answer.await.map_err(|_| JournalError::Failed)?
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // What was asked for is written before the files are opened again by a successor.
            let _ = thread.join();
        }
    }
}

type Answer = Box<dyn FnOnce(bool) + Send>;

struct Writer {
    file: JournalFile,
    index: Index,
    path: PathBuf,
    slots: PathBuf,
    slot_count: u32,
    max_jobs: u32,
    high_water: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
    failed: CancellationToken,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Request>) {
        while let Ok(first) = queue.recv() {
            let mut waiting = Vec::new();
            let mut sync = self.take(first, &mut waiting);
            while let Ok(next) = queue.try_recv() {
                sync |= self.take(next, &mut waiting);
            }
            if sync {
                self.sync();
            }
            for answer in waiting {
                answer(!self.failed.is_cancelled());
            }
            self.tidy();
        }
    }

    /// Writes one request; returns whether it wants to be on disk before it is answered.
    fn take(&mut self, request: Request, waiting: &mut Vec<Answer>) -> bool {
        match request {
            Request::Accept { at, offer, reply } => {
                let written = self.accept(at, *offer);
                finish(written, reply, waiting)
            }
            Request::Append { record, sync, reply } => {
                let written = self.write(&record, true);
                if sync {
                    return finish(written, reply, waiting);
                }
                let _ = reply.send(written);
                false
            }
            Request::Read { job, reply } => {
                let _ = reply.send(self.read(job));
                false
            }
        }
    }

    fn accept(&mut self, at: Timestamp, offer: Offer) -> Result<u32, JournalError> {
        if self.index.free.is_empty() {
            self.free_slots();
        }
        let slot = *self.index.free.first().ok_or(JournalError::NoSlot { limit: self.max_jobs })?;
        self.write(&Record::Accepted { at, slot, offer }, false)?;
        self.index.free.remove(&slot);
        Ok(slot)
    }

    fn write(&mut self, record: &Record, use_reserve: bool) -> Result<(), JournalError> {
        if self.failed.is_cancelled() {
            return Err(JournalError::Failed);
        }
        let payload = serde_json::to_vec(record)
            .map_err(|error| JournalError::io("encode for", &self.path)(error.into()))?;
        self.file.make_room(payload.len(), use_reserve)?;
        match self.file.append(&payload) {
            Ok(place) => {
                self.index.apply(record, place);
                Ok(())
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    fn sync(&mut self) {
        if self.failed.is_cancelled() {
            return;
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        match self.file.sync() {
            Ok(()) => self.synced(),
            // After a failed sync the kernel may have thrown the bytes away: only a fresh look at the disk tells.
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, error: &JournalError) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(%error, cause, "the journal has failed; nothing is taken until it is opened again");
        self.failed.cancel();
    }

    fn synced(&mut self) {
        self.high_water.store(self.file.sequence(), Ordering::Release);
        let freed = std::mem::take(&mut self.index.freeing);
        self.index.free.extend(freed);
    }

    /// Makes slots free: those of released jobs, and new ones.
    fn free_slots(&mut self) {
        if !self.index.freeing.is_empty() {
            self.sync();
        }
        if self.index.free.is_empty() {
            self.add_slots();
        }
    }

    fn add_slots(&mut self) {
        let wanted = (self.slot_count + slots::SLOT_CHUNK).min(self.max_jobs);
        if wanted > self.slot_count
            && let Ok(count) = slots::reserve(&self.slots, wanted)
        {
            let count = count.min(self.max_jobs);
            self.index.free.extend(self.slot_count..count);
            self.slot_count = count;
        }
    }

    fn read(&self, job: JobId) -> Result<Option<Offer>, JournalError> {
        let Some(place) = self.index.jobs.get(&job).and_then(|known| known.places.first()) else {
            return Ok(None);
        };
        let payload = self.file.read(*place)?;
        match serde_json::from_slice(&payload) {
            Ok(Record::Accepted { offer, .. }) => Ok(Some(offer)),
            _ => Ok(None),
        }
    }

    /// What can wait until everybody is answered.
    fn tidy(&mut self) {
        if self.failed.is_cancelled() {
            return;
        }
        if self.file.used() > COMPACT_ABOVE && self.index.live < self.file.used() / 2 {
            // A full disk: the old file is as good as before.
            let _ = self.compact();
        }
        if self.file.wants_space() {
            let _ = self.file.grow_ahead();
        }
        if self.index.free.len() < SLOTS_AHEAD {
            self.add_slots();
        }
    }

    fn compact(&mut self) -> Result<(), JournalError> {
        let jobs: Vec<(JobId, Place)> = self
            .index
            .jobs
            .iter()
            .flat_map(|(job, known)| known.places.iter().map(|place| (*job, *place)))
            .collect();
        let (incarnation, generation) = (self.file.incarnation_bytes(), self.file.generation() + 1);
        let sequence = self.file.sequence();
        let mut payloads = jobs.iter().map(|(_, place)| self.file.read(*place));
        let created = JournalFile::create(&self.path, incarnation, generation, sequence, &mut payloads);
        let (file, places) = created?;
        for known in self.index.jobs.values_mut() {
            known.places.clear();
        }
        self.index.live = 0;
        for ((job, _), place) in jobs.iter().zip(places) {
            if let Some(known) = self.index.jobs.get_mut(job) {
                known.places.push(place);
                self.index.live += place.size();
            }
        }
        self.file = file;
        self.synced();
        Ok(())
    }
}

/// Answers a failure at once, and a success when it is on disk.
fn finish<T: Send + 'static>(
    written: Result<T, JournalError>,
    reply: oneshot::Sender<Result<T, JournalError>>,
    waiting: &mut Vec<Answer>,
) -> bool {
    match written {
        Ok(value) => {
            waiting.push(Box::new(move |durable| {
                let _ = reply.send(if durable { Ok(value) } else { Err(JournalError::Failed) });
            }));
            true
        }
        Err(error) => {
            let _ = reply.send(Err(error));
            false
        }
    }
}

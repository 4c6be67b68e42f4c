//! The shim's side of a spool. It never fails: what cannot be written is counted and marked as a gap.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use datacentered_proto::frame::Kind;
use datacentered_proto::ops::job::WhenFull;

use super::record::{GAP_RECORD, Gap, SEGMENT_HEADER, SegmentHeader, encode_header};
use super::segments::{self, Totals};
use super::{MAX_RECORD, MIN_SEGMENT_BYTES, MIN_SPOOL_BYTES, SEGMENT_BYTES};

/// A growing gap is written out again after so many bytes or so long, so that readers see it grow.
const GAP_FLUSH_BYTES: u64 = 16 << 20;
const GAP_FLUSH_EVERY: Duration = Duration::from_millis(200);

/// How far a full spool may be exceeded by what was in the pipes when the process ended, in bytes.
const DRAIN_EXTRA: u64 = 1 << 20;

/// How much is kept, and what happens beyond.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most unacknowledged bytes on disk.
    pub spool_bytes: u64,
    /// Most bytes kept of the whole job.
    pub output_bytes: u64,
    /// What happens when the spool is full.
    pub when_full: WhenFull,
}

#[derive(Debug)]
struct Segment {
    start: u64,
    end: u64,
    kept: u64,
}

#[derive(Debug)]
struct OpenGap {
    gap: Gap,
    /// Where it stands in the current segment; not on disk yet where absent.
    position: Option<u64>,
    flushed_to: u64,
    flushed_at: Instant,
}

/// Writes a job's spool.
#[derive(Debug)]
pub struct SpoolWriter {
    dir: PathBuf,
    limits: Limits,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    file: Option<File>,
    position: u64,
    totals: Totals,
    kept: u64,
    acked: u64,
    gap: Option<OpenGap>,
    draining: bool,
    disk_failed: Option<String>,
}

impl SpoolWriter {
    /// A new spool in a directory that has none. Nothing is created before the first byte.
    pub fn new(dir: impl Into<PathBuf>, limits: Limits) -> Self {
        let spool_bytes = limits.spool_bytes.max(MIN_SPOOL_BYTES);
        Self {
            dir: dir.into(),
            limits: Limits { spool_bytes, ..limits },
            segment_bytes: (spool_bytes / 8).clamp(MIN_SEGMENT_BYTES, SEGMENT_BYTES),
            segments: VecDeque::new(),
            file: None,
            position: 0,
            totals: Totals::default(),
            kept: 0,
            acked: 0,
            gap: None,
            draining: false,
            disk_failed: None,
        }
    }

    /// How much the record holds, discarded bytes included.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The kernel's words where the disk would not take output.
    pub fn disk_failed(&self) -> Option<&str> {
        self.disk_failed.as_deref()
    }

    /// Whether the process must wait: the spool is full and waiting is what was asked for.
    pub fn must_wait(&self) -> bool {
        !self.draining
            && self.limits.when_full == WhenFull::Wait
            && self.kept < self.limits.output_bytes
            && self.unacked() >= self.limits.spool_bytes
    }

    /// From now on nothing waits: what is left in the pipes is kept even where the spool is full, within bounds.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Bytes on disk that nobody has acknowledged.
    pub fn unacked(&self) -> u64 {
        let kept: u64 = self.segments.iter().map(|segment| segment.kept).sum();
        let first = self.segments.front();
        let acked = first.map_or(0, |first| self.acked.saturating_sub(first.start).min(first.kept));
        kept - acked
    }

    /// Adds what was read from a stream, or a mark, which is kept whole or not at all.
    pub fn append(&mut self, kind: Kind, bytes: &[u8]) {
        for chunk in bytes.chunks(MAX_RECORD) {
            let room = self.room(chunk.len());
            let room = if kind == Kind::Mark && room < chunk.len() { 0 } else { room };
            let (keep, discard) = chunk.split_at(room);
            let kept = if keep.is_empty() { 0 } else { self.keep(kind, keep) };
            let lost = (keep.len() - kept + discard.len()) as u64;
            if lost > 0 {
                self.discard(kind, lost);
            }
        }
    }

    /// How many of so many bytes may be kept.
    fn room(&self, length: usize) -> usize {
        let capped = (length as u64).min(self.limits.output_bytes.saturating_sub(self.kept)) as usize;
        let limit = match (self.draining, self.limits.when_full) {
            (true, _) => self.limits.spool_bytes + DRAIN_EXTRA,
            (false, WhenFull::Discard) => self.limits.spool_bytes,
            // The caller asks `must_wait` before it reads.
            (false, WhenFull::Wait) => u64::MAX,
        };
        let full = self.unacked() + capped as u64 > limit;
        if full { 0 } else { capped }
    }

    /// Writes one record; returns how many bytes of it are on disk: all or none.
    fn keep(&mut self, kind: Kind, bytes: &[u8]) -> usize {
        match self.try_keep(kind, bytes) {
            Ok(()) => {
                let length = bytes.len() as u64;
                self.totals.count(kind, length);
                self.kept += length;
                if let Some(segment) = self.segments.back_mut() {
                    segment.end = self.totals.offset;
                    segment.kept += length;
                }
                bytes.len()
            }
            Err(error) => {
                self.disk_failed = Some(error.to_string());
                0
            }
        }
    }

    fn try_keep(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        self.close_gap()?;
        self.rotate()?;
        let header = encode_header(kind, bytes.len(), self.totals.offset);
        self.write(&[&header, bytes])
    }

    /// Appends to the current segment, whole or not at all.
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::Error::other("no segment is open")) };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(file, &slices, self.position));
        let failed = match written {
            Ok(written) if written == length => {
                self.position += length as u64;
                return Ok(());
            }
            // A short write to a file means that the disk or a limit is full.
            Ok(_) => io::Error::from_raw_os_error(libc::ENOSPC),
            Err(error) => error.into(),
        };
        let _ = file.set_len(self.position);
        Err(failed)
    }

    fn discard(&mut self, kind: Kind, length: u64) {
        let from = self.totals.offset;
        self.totals.count(kind, length);
        let open = self.gap.get_or_insert_with(|| OpenGap {
            gap: Gap::at(from),
            position: None,
            flushed_to: from,
            flushed_at: Instant::now(),
        });
        open.gap.count(kind, length);
        let due = open.position.is_none()
            || open.gap.to() - open.flushed_to >= GAP_FLUSH_BYTES
            || open.flushed_at.elapsed() >= GAP_FLUSH_EVERY;
        if due {
            // A disk too full even for this is told at the end, by the totals.
            let _ = self.flush_gap();
        }
    }

    /// Writes the open gap as it is now: at its place, or as a new record.
    fn flush_gap(&mut self) -> io::Result<()> {
        let Some(open) = &self.gap else { return Ok(()) };
        let (gap, position, unchanged) = (open.gap, open.position, open.flushed_to == open.gap.to());
        let position = match position {
            Some(_) if unchanged => return Ok(()),
            Some(position) => {
                let Some(file) = &self.file else { return Err(io::Error::other("no segment is open")) };
                file.write_all_at(&gap.encode(), position)?;
                position
            }
            None => {
                self.rotate_at(
                    gap.from,
                    Totals {
                        offset: gap.from,
                        stdout: self.totals.stdout - gap.stdout,
                        stderr: self.totals.stderr - gap.stderr,
                    },
                )?;
                self.write(&[&gap.encode()])?;
                self.position - GAP_RECORD as u64
            }
        };
        if let Some(segment) = self.segments.back_mut() {
            segment.end = gap.to();
        }
        if let Some(open) = &mut self.gap {
            open.position = Some(position);
            open.flushed_to = gap.to();
            open.flushed_at = Instant::now();
        }
        Ok(())
    }

    fn close_gap(&mut self) -> io::Result<()> {
        if self.gap.is_some() {
            self.flush_gap()?;
            self.gap = None;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.rotate_at(self.totals.offset, self.totals)
    }

    /// Begins a segment where none is open or the open one is full.
    fn rotate_at(&mut self, start: u64, before: Totals) -> io::Result<()> {
        if self.file.is_some() && self.position < self.segment_bytes {
            return Ok(());
        }
        let path = segments::path(&self.dir, start);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let header = SegmentHeader { start, stdout: before.stdout, stderr: before.stderr };
        if let Err(error) = file.write_all_at(&header.encode(), 0) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.file = Some(file);
        self.position = SEGMENT_HEADER as u64;
        self.segments.push_back(Segment { start, end: start, kept: 0 });
        self.forget_acked();
        Ok(())
    }

    /// The hub has everything below this offset: segments wholly below it are removed.
    pub fn ack(&mut self, upto: u64) {
        self.acked = self.acked.max(upto.min(self.totals.offset));
        self.forget_acked();
    }

    fn forget_acked(&mut self) {
        // The last segment is being written.
        while self.segments.len() > 1 && self.segments.front().is_some_and(|first| first.end <= self.acked) {
            if let Some(first) = self.segments.pop_front() {
                let _ = fs::remove_file(segments::path(&self.dir, first.start));
            }
        }
    }

    /// Writes what is not yet on disk; after this the totals are final.
    pub fn finish(&mut self) {
        if let Err(error) = self.close_gap() {
            self.disk_failed.get_or_insert(error.to_string());
        }
    }

    /// Makes everything durable; returns how many syncs that took.
    ///
    /// # Errors
    /// The kernel's; the output may then be lost with the power.
    pub fn sync(&self) -> io::Result<u32> {
        let mut syncs = 0;
        for segment in &self.segments {
            let last = self.segments.back().is_some_and(|back| back.start == segment.start);
            match (&self.file, last) {
                (Some(file), true) => file.sync_data()?,
                _ => File::open(segments::path(&self.dir, segment.start))?.sync_data()?,
            }
            syncs += 1;
        }
        Ok(syncs)
    }
}

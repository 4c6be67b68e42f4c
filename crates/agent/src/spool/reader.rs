//! Following a spool from any offset, while it is written and afterwards.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::GapReason;
use rustix::io::ReadWriteFlags;

use super::record::{Body, GAP_RECORD, Gap, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, decode_header};
use super::segments;

/// Bytes read from a segment at a time: what one reader costs in memory.
const WINDOW: usize = 64 << 10;

/// Largest piece handed out, in bytes.
pub const MAX_PIECE: usize = datacentered_proto::limits::BULK_CHUNK;

/// The next thing in a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Bytes of a stream, at most [`MAX_PIECE`] of them.
    Bytes {
        /// Which stream.
        kind: Kind,
        /// Where the first of them stands.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// These offsets are not there.
    Gap {
        /// First missing.
        from: u64,
        /// First present again.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// Nothing more is written yet.
    Pending,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    position: u64,
    /// Bytes of the file from `position` on that were read already.
    window: Bytes,
}

/// Reads one spool; several may read the same.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    /// Everything below was handed out or skipped.
    wanted: u64,
    /// Offset of the next record in the open segment, or of what is left of the current one.
    offset: u64,
    open: Option<Open>,
    /// What is left of the current record.
    current: Option<(Kind, usize)>,
    complete: bool,
}

impl SpoolReader {
    /// Reads the spool in a job's directory from an offset on.
    pub fn new(dir: impl Into<PathBuf>, from: u64) -> Self {
        Self { dir: dir.into(), wanted: from, offset: 0, open: None, current: None, complete: false }
    }

    /// Where it stands: everything below was handed out.
    #[expect(
        clippy::misnamed_getters,
        reason = "the field of that name is where the file is read, which may be behind"
    )]
    pub fn offset(&self) -> u64 {
        self.wanted
    }

    /// The next item. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// The kernel's on reading; a file that disappeared meanwhile is no error but a gap.
    pub async fn next(&mut self) -> io::Result<Item> {
        loop {
            if self.open.is_none() {
                match self.find_segment()? {
                    Found::Segment => {}
                    Found::Gap(item) => return Ok(item),
                    Found::Nothing => return Ok(Item::Pending),
                }
            }
            if let Some((kind, left)) = self.current {
                match self.piece(kind, left).await? {
                    Piece::Wanted(item) => return Ok(item),
                    Piece::Skipped => continue,
                    Piece::Missing => return Ok(Item::Pending),
                }
            }
            let Some(head) = self.peek(RECORD_HEADER).await? else {
                match self.next_segment()? {
                    Next::Readable => continue,
                    Next::Gap(item) => return Ok(item),
                    Next::Nothing => return Ok(Item::Pending),
                }
            };
            match decode_header(&head, self.offset) {
                Some(Body::Bytes { kind, length }) => {
                    if !self.is_whole(length)? {
                        self.forget_window();
                        return Ok(Item::Pending);
                    }
                    self.advance(RECORD_HEADER);
                    self.current = Some((kind, length));
                }
                Some(Body::Gap) => match self.gap().await? {
                    GapStep::Passed(Some(item)) | GapStep::Before(Some(item)) => return Ok(item),
                    GapStep::Passed(None) => {}
                    GapStep::Before(None) => return Ok(Item::Pending),
                },
                // A record that is being written, or the damaged end that a power cut left: both are the end for now.
                None => {
                    self.forget_window();
                    return Ok(Item::Pending);
                }
            }
        }
    }

    /// Hands out a part of the current record.
    async fn piece(&mut self, kind: Kind, left: usize) -> io::Result<Piece> {
        let available = self.peek_some(left.min(MAX_PIECE)).await?;
        if available.is_empty() {
            return Ok(Piece::Missing);
        }
        let length = available.len();
        let (begin, end) = (self.offset, self.offset + length as u64);
        self.advance(length);
        self.offset = end;
        self.current = (left > length).then_some((kind, left - length));
        if end <= self.wanted {
            return Ok(Piece::Skipped);
        }
        let skip = self.wanted.saturating_sub(begin) as usize;
        let item = Item::Bytes { kind, offset: begin + skip as u64, bytes: available.slice(skip..) };
        self.wanted = end;
        Ok(Piece::Wanted(item))
    }

    /// Whether the record that begins here, of so long a payload, is all there. One that is being written may still be
    /// taken back where the disk is full; after the end, what there is of it is genuine.
    fn is_whole(&self, length: usize) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(false) };
        let end = RECORD_HEADER + length;
        Ok(self.complete
            || open.window.len() >= end
            || open.file.metadata()?.len() >= open.position + end as u64)
    }

    /// Nothing more will be written: a last record that was cut short is handed out as far as it goes.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// Reads the gap record that begins here. It may still grow in place, so it is passed only when something follows.
    async fn gap(&mut self) -> io::Result<GapStep> {
        // Whether something follows must be asked before the gap is read: only then is what is read its final form.
        self.forget_window();
        let Some(before) = self.peek_gap().await? else { return Ok(GapStep::Before(None)) };
        let followed = self.peek(GAP_RECORD + RECORD_HEADER).await?.is_some()
            || segments::path(&self.dir, before.to()).exists();
        if !followed {
            return Ok(GapStep::Before(self.skip_to(before.to(), GapReason::Discarded)));
        }
        self.forget_window();
        let Some(gap) = self.peek_gap().await? else { return Ok(GapStep::Before(None)) };
        self.advance(GAP_RECORD);
        self.offset = gap.to();
        Ok(GapStep::Passed(self.skip_to(gap.to(), GapReason::Discarded)))
    }

    async fn peek_gap(&mut self) -> io::Result<Option<Gap>> {
        let record = self.peek(GAP_RECORD).await?;
        Ok(record.and_then(|record| Gap::decode(&record[RECORD_HEADER..], self.offset)))
    }

    /// Moves on to an offset; a gap where that skips something.
    pub fn skip_to(&mut self, to: u64, reason: GapReason) -> Option<Item> {
        (to > self.wanted).then(|| {
            let from = std::mem::replace(&mut self.wanted, to);
            Item::Gap { from, to, reason }
        })
    }

    fn find_segment(&mut self) -> io::Result<Found> {
        let starts = match segments::starts(&self.dir) {
            Ok(starts) => starts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let Some(first) = starts.first().copied() else { return Ok(Found::Nothing) };
        let start = starts.iter().copied().rfind(|start| *start <= self.wanted).unwrap_or(first);
        match File::open(segments::path(&self.dir, start)) {
            Ok(file) => {
                self.open = Some(Open { file: Arc::new(file), position: 0, window: Bytes::new() });
                self.offset = start;
                self.current = None;
            }
            // Acknowledged and removed in between: the next call finds another first one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(self.skip_to(start, GapReason::Retention).map_or(Found::Segment, Found::Gap))
    }

    /// Goes on to the segment that begins where this one ends, if there is one.
    fn next_segment(&mut self) -> io::Result<Next> {
        let Some(open) = &self.open else { return Ok(Next::Nothing) };
        if open.position == 0 {
            return Ok(Next::Nothing);
        }
        match File::open(segments::path(&self.dir, self.offset)) {
            Ok(file) if !same_file(&file, &open.file) => {
                self.open = Some(Open { file: Arc::new(file), position: 0, window: Bytes::new() });
                return Ok(Next::Readable);
            }
            Ok(_) => return Ok(Next::Nothing),
            Err(_) => {}
        }
        let starts = segments::starts(&self.dir).unwrap_or_default();
        let Some(later) = starts.iter().copied().find(|start| *start > self.offset) else {
            return Ok(Next::Nothing);
        };
        // A segment is begun when the one before is whole: what this one holds now is all that it ever will.
        if open.file.metadata()?.len() >= open.position + RECORD_HEADER as u64 {
            self.forget_window();
            return Ok(Next::Readable);
        }
        // What lies between was removed after an acknowledgement, with this one; else a power cut took it.
        let removed = starts.first().is_none_or(|first| *first > self.offset);
        self.wanted = self.wanted.max(self.offset);
        self.open = None;
        let reason = if removed { GapReason::Retention } else { GapReason::Lost };
        Ok(self.skip_to(later, reason).map_or(Next::Readable, Next::Gap))
    }

    /// The next `length` bytes of the segment, without passing them; `None` where they are not all there yet.
    async fn peek(&mut self, length: usize) -> io::Result<Option<Bytes>> {
        let bytes = self.peek_some(length).await?;
        Ok((bytes.len() == length).then_some(bytes))
    }

    /// As many as there are of the next `length` bytes. The segment's header is passed on the way.
    async fn peek_some(&mut self, length: usize) -> io::Result<Bytes> {
        let offset = self.offset;
        let Some(open) = &mut self.open else { return Ok(Bytes::new()) };
        if open.position == 0 {
            open.fill(SEGMENT_HEADER).await?;
            match SegmentHeader::decode(&open.window) {
                Some(header) if header.start == offset => open.advance(SEGMENT_HEADER),
                _ => {
                    open.window = Bytes::new();
                    return Ok(Bytes::new());
                }
            }
        }
        open.fill(length).await?;
        Ok(open.window.slice(..length.min(open.window.len())))
    }

    fn advance(&mut self, length: usize) {
        if let Some(open) = &mut self.open {
            open.advance(length);
        }
    }

    fn forget_window(&mut self) {
        if let Some(open) = &mut self.open {
            open.window = Bytes::new();
        }
    }
}

/// A part of a record.
enum Piece {
    /// To be handed out.
    Wanted(Item),
    /// Before what is wanted.
    Skipped,
    /// Not in the file: a record that was cut short.
    Missing,
}

/// Where a look at a gap left the reader.
enum GapStep {
    /// Behind it.
    Passed(Option<Item>),
    /// Still in front of it: it is the last record and may grow.
    Before(Option<Item>),
}

/// What follows the end of a segment.
enum Next {
    /// There is more to read.
    Readable,
    /// Offsets that are in no segment.
    Gap(Item),
    /// Nothing yet.
    Nothing,
}

enum Found {
    Segment,
    Gap(Item),
    Nothing,
}

impl Open {
    /// Makes the window hold at least `length` bytes, where the file has them.
    async fn fill(&mut self, length: usize) -> io::Result<()> {
        if self.window.len() < length {
            self.window = read_cached(&self.file, self.position).await?;
        }
        if self.window.len() < length {
            // What is cached may end before the file does.
            let end = self.position + self.window.len() as u64;
            if self.file.metadata()?.len() > end {
                self.window = read_blocking(&self.file, self.position).await?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, length: usize) {
        self.position += length as u64;
        self.window = if length < self.window.len() { self.window.slice(length..) } else { Bytes::new() };
    }
}

/// Reads what is in the page cache of the next window, at once; all of it off the runtime's thread where nothing is.
async fn read_cached(file: &Arc<File>, position: u64) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(WINDOW);
    let mut slices = [io::IoSliceMut::new(&mut buffer)];
    match rustix::io::preadv2(file, &mut slices, position, ReadWriteFlags::NOWAIT) {
        Ok(length) => Ok(trimmed(buffer, length)),
        // Interrupted, not cached, or not supported by this file system.
        Err(_) => read_blocking(file, position).await,
    }
}

async fn read_blocking(file: &Arc<File>, position: u64) -> io::Result<Bytes> {
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let mut buffer = BytesMut::zeroed(WINDOW);
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(&*file, &mut buffer[..], position))?;
        Ok(trimmed(buffer, length))
    });
    read.await.map_err(io::Error::other)?
}

/// What a reader holds while it waits for more should not cost a whole window.
fn trimmed(mut buffer: BytesMut, length: usize) -> Bytes {
    if length <= WINDOW / 4 {
        return Bytes::copy_from_slice(&buffer[..length]);
    }
    buffer.truncate(length);
    buffer.freeze()
}

fn same_file(left: &File, right: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (left.metadata(), right.metadata()) {
        (Ok(left), Ok(right)) => left.ino() == right.ino() && left.dev() == right.dev(),
        _ => false,
    }
}

//! The journal's file: one append-only run of records with checksums, inside space that was filled with zeros before,
//! so that a sync has no metadata to write.
//!
//! Little-endian. Header, 64 bytes: magic, 16 bytes incarnation, `u64` generation, `u64` high-water mark, `u32` crc.
//! Record, aligned to 8 bytes: `u32` length, `u32` crc, `u64` sequence, `u64` durable, payload. `durable` is the
//! position below which everything was known to be on disk when the record was written: an unreadable place below a
//! later record's `durable` is damage, any other is the torn end of writes that nobody was told about.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::JournalError;

/// Space is added in steps of this many bytes.
pub const CHUNK: u64 = 256 << 10;

/// Space that only small records may use, so that a refusal or a cancel can be written when the disk is full.
pub const RESERVE: u64 = 32 << 10;

/// Largest record, in bytes.
pub const MAX_RECORD: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"DCJRNL01";
const MAGIC_FAMILY: &[u8] = b"DCJRNL";
pub(super) const HEADER: u64 = 64;
const RECORD_HEADER: usize = 24;
/// How much is checksummed at most in the search for records behind an unreadable place.
const MAX_SEARCH: usize = 64 << 20;

/// A record's payload in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    position: u64,
    length: u32,
}

impl Place {
    /// Bytes the record takes in the file.
    pub fn size(self) -> u64 {
        size(self.length as usize)
    }
}

fn size(payload: usize) -> u64 {
    ((RECORD_HEADER + payload) as u64).next_multiple_of(8)
}

/// An open journal file.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    file: File,
    incarnation: [u8; 16],
    generation: u64,
    position: u64,
    durable: u64,
    allocated: u64,
    sequence: u64,
}

impl JournalFile {
    /// Makes a new journal in place of whatever is at `path`, durably.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(
        path: &Path,
        incarnation: [u8; 16],
        generation: u64,
        high_water: u64,
        payloads: &mut dyn Iterator<Item = Result<Vec<u8>, JournalError>>,
    ) -> Result<(Self, Vec<Place>), JournalError> {
        let temporary = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(JournalError::io("create", &temporary))?;
        let mut this = Self {
            path: path.to_path_buf(),
            file,
            incarnation,
            generation,
            position: HEADER,
            durable: 0,
            allocated: 0,
            sequence: high_water,
        };
        let written = this.fill(payloads, high_water);
        let renamed = written.and_then(|places| {
            fs::rename(&temporary, path).map_err(JournalError::io("rename", &temporary))?;
            sync_parent(path)?;
            Ok(places)
        });
        match renamed {
            Ok(places) => Ok((this, places)),
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        payloads: &mut dyn Iterator<Item = Result<Vec<u8>, JournalError>>,
        high_water: u64,
    ) -> Result<Vec<Place>, JournalError> {
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&self.incarnation);
        header.extend_from_slice(&self.generation.to_le_bytes());
        header.extend_from_slice(&high_water.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        header.resize(HEADER as usize, 0);
        self.grow(CHUNK)?;
        self.file.write_all_at(&header, 0).map_err(JournalError::io("write", &self.path))?;
        // Records copied by a compaction keep the mark where it was.
        let mut places = Vec::new();
        for payload in payloads {
            let payload = payload?;
            self.make_room(payload.len(), false)?;
            places.push(self.write(&payload, high_water)?);
        }
        self.sync()?;
        self.sequence = high_water;
        Ok(places)
    }

    /// Opens a journal and hands every readable record to `each`, in order. A torn end is cut.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where something that was on disk is no longer readable.
    pub fn open(path: &Path, each: &mut dyn FnMut(Place, &[u8])) -> Result<Self, JournalError> {
        let io = |action| JournalError::io(action, path);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io("open"))?;
        let allocated = file.metadata().map_err(io("inspect"))?.len();
        let damaged = |at| JournalError::Damaged { path: path.to_path_buf(), at };
        let mut header = [0u8; HEADER as usize];
        file.read_exact_at(&mut header, 0).map_err(|_| damaged(0))?;
        if header[..8] != MAGIC {
            let newer = header.starts_with(MAGIC_FAMILY) && header[6..8].iter().all(u8::is_ascii_digit);
            return Err(if newer { JournalError::Newer { path: path.to_path_buf() } } else { damaged(0) });
        }
        if crc32fast::hash(&header[..40]).to_le_bytes() != header[40..44] {
            return Err(damaged(0));
        }
        let mut incarnation = [0; 16];
        incarnation.copy_from_slice(&header[8..24]);
        let mut this = Self {
            path: path.to_path_buf(),
            file,
            incarnation,
            generation: u64_at(&header, 24),
            position: HEADER,
            durable: HEADER,
            allocated,
            sequence: u64_at(&header, 32),
        };
        while let Some((place, sequence, payload)) = this.read_record(this.position)? {
            each(place, &payload);
            this.position += place.size();
            this.sequence = this.sequence.max(sequence);
        }
        this.cut_tail()?;
        Ok(this)
    }

    /// Reads the record at a position, if a whole one is there.
    fn read_record(&self, position: u64) -> Result<Option<(Place, u64, Vec<u8>)>, JournalError> {
        let mut head = [0u8; RECORD_HEADER];
        if position + RECORD_HEADER as u64 > self.allocated {
            return Ok(None);
        }
        let io = || JournalError::io("read", &self.path);
        self.file.read_exact_at(&mut head, position).map_err(io())?;
        let length = u32_at(&head, 0) as usize;
        if length == 0 || length > MAX_RECORD || position + size(length) > self.allocated {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        self.file.read_exact_at(&mut payload, position + RECORD_HEADER as u64).map_err(io())?;
        if self.checksum(position, &head, &payload) != u32_at(&head, 4) {
            return Ok(None);
        }
        Ok(Some((Place { position, length: length as u32 }, u64_at(&head, 8), payload)))
    }

    /// Covers where the record stands and which file it belongs to, so that old bytes cannot pass for new ones.
    fn checksum(&self, position: u64, head: &[u8; RECORD_HEADER], payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.incarnation);
        hasher.update(&self.generation.to_le_bytes());
        hasher.update(&position.to_le_bytes());
        hasher.update(&head[..4]);
        hasher.update(&head[8..]);
        hasher.update(payload);
        hasher.finalize()
    }

    /// Looks behind the last readable record. Zeros are the unused space; anything else is a torn end, to be cut, unless
    /// a later record proves that it had been on disk.
    fn cut_tail(&mut self) -> Result<(), JournalError> {
        let io = || JournalError::io("read", &self.path);
        let mut rest = vec![0; usize::try_from(self.allocated.saturating_sub(self.position)).unwrap_or(0)];
        self.file.read_exact_at(&mut rest, self.position).map_err(io())?;
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let mut searched = 0;
        for offset in (8..rest.len()).step_by(8) {
            let Some(head) = rest.get(offset..offset + RECORD_HEADER) else { break };
            let length = u32_at(head, 0) as usize;
            let Some(payload) = rest.get(offset + RECORD_HEADER..offset + RECORD_HEADER + length) else {
                continue;
            };
            if length == 0 || length > MAX_RECORD || searched > MAX_SEARCH {
                continue;
            }
            searched += length;
            let mut fixed = [0; RECORD_HEADER];
            fixed.copy_from_slice(head);
            let position = self.position + offset as u64;
            let whole = self.checksum(position, &fixed, payload) == u32_at(head, 4);
            if whole && u64_at(head, 16) > self.position {
                return Err(JournalError::Damaged { path: self.path.clone(), at: self.position });
            }
        }
        let zeros = vec![0; rest.len()];
        self.file.write_all_at(&zeros, self.position).map_err(JournalError::io("cut", &self.path))?;
        self.file.sync_data().map_err(JournalError::io("sync", &self.path))
    }

    /// The incarnation's name.
    pub fn incarnation(&self) -> String {
        String::from_utf8_lossy(&self.incarnation).into_owned()
    }

    /// The incarnation's bytes, for a compaction.
    pub fn incarnation_bytes(&self) -> [u8; 16] {
        self.incarnation
    }

    /// How often it was compacted.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The last record's number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.position
    }

    /// Makes room for a payload. Small records may use the reserve.
    ///
    /// # Errors
    /// [`JournalError::DiskFull`] with nothing changed.
    pub fn make_room(&mut self, payload: usize, use_reserve: bool) -> Result<(), JournalError> {
        let needed = self.position + size(payload) + RECORD_HEADER as u64;
        if needed + RESERVE <= self.allocated {
            return Ok(());
        }
        match self.grow((needed + RESERVE).next_multiple_of(CHUNK)) {
            Err(_) if use_reserve && needed <= self.allocated => Ok(()),
            result => result,
        }
    }

    /// Whether space should be added before it is needed.
    pub fn wants_space(&self) -> bool {
        self.allocated.saturating_sub(self.position) < CHUNK / 2
    }

    /// Adds space up to a size, filled with zeros that are on disk.
    ///
    /// # Errors
    /// The kernel's; the file is then as it was.
    pub fn grow(&mut self, to: u64) -> Result<(), JournalError> {
        let zeros = vec![0u8; 64 << 10];
        let mut position = self.allocated;
        let mut write = || -> std::io::Result<()> {
            while position < to {
                let length = ((to - position) as usize).min(zeros.len());
                self.file.write_all_at(&zeros[..length], position)?;
                position += length as u64;
            }
            self.file.sync_all()
        };
        if let Err(error) = write() {
            let _ = self.file.set_len(self.allocated);
            return Err(JournalError::io("extend", &self.path)(error));
        }
        self.allocated = self.allocated.max(to);
        Ok(())
    }

    /// Adds space ahead of need.
    ///
    /// # Errors
    /// As [`Self::grow`].
    pub fn grow_ahead(&mut self) -> Result<(), JournalError> {
        self.grow((self.position + CHUNK).next_multiple_of(CHUNK))
    }

    /// Appends a record for which room was made; not synced.
    ///
    /// # Errors
    /// The kernel's; what is in the file then is unknown.
    pub fn append(&mut self, payload: &[u8]) -> Result<Place, JournalError> {
        let sequence = self.sequence + 1;
        let place = self.write(payload, sequence)?;
        self.sequence = sequence;
        Ok(place)
    }

    fn write(&mut self, payload: &[u8], sequence: u64) -> Result<Place, JournalError> {
        let position = self.position;
        let mut head = [0; RECORD_HEADER];
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&sequence.to_le_bytes());
        head[16..].copy_from_slice(&self.durable.to_le_bytes());
        let sum = self.checksum(position, &head, payload);
        head[4..8].copy_from_slice(&sum.to_le_bytes());
        let mut record = Vec::with_capacity(RECORD_HEADER + payload.len());
        record.extend_from_slice(&head);
        record.extend_from_slice(payload);
        self.file.write_all_at(&record, position).map_err(JournalError::io("write", &self.path))?;
        self.position += size(payload.len());
        Ok(Place { position, length: payload.len() as u32 })
    }

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// The kernel's; nobody knows then what is on disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(JournalError::io("sync", &self.path))?;
        self.durable = self.position;
        Ok(())
    }

    /// Reads a record's payload again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, JournalError> {
        let mut payload = vec![0; place.length as usize];
        self.file
            .read_exact_at(&mut payload, place.position + RECORD_HEADER as u64)
            .map_err(JournalError::io("read", &self.path))?;
        Ok(payload)
    }
}

/// Makes a rename durable.
fn sync_parent(path: &Path) -> Result<(), JournalError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(JournalError::io("sync", parent))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

//! The slots file: one preallocated record per open job, in which the shim writes how far it got.
//!
//! A slot is reserved when a job is accepted, so a full disk cannot lose an outcome. Its three areas are written once
//! each: `starting` (synced before the exec), `started` (a hint, not synced), `end` (synced). Each names the job and
//! carries a checksum, so what an earlier job left in a slot is told apart.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use datacentered_proto::outcome::MAX_EVIDENCE;
use datacentered_proto::{Evidence, JobId, Outcome, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Length of one slot, in bytes.
pub const SLOT_LEN: u64 = 4096;

/// How many slots are added at a time.
pub const SLOT_CHUNK: u32 = 64;

/// Largest detail of one piece of evidence in a slot, in bytes; longer ones are cut.
const MAX_DETAIL: usize = 400;

const MAGIC: [u8; 4] = *b"DCS1";
const HEADER: usize = 28;

/// A process, named so that the reuse of its number cannot confuse it with another within a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    /// Process id.
    pub pid: i32,
    /// When it was started, in clock ticks since boot.
    pub start_ticks: u64,
}

/// The shim is about to execute: from here on the job is never started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starting {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// In which boot.
    pub boot: String,
    /// The shim.
    pub shim: ProcessMark,
}

/// The program was executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// The main process; also the leader of its session.
    pub main: ProcessMark,
    /// Facts learnt on the way.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
}

/// How the job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// The outcome.
    pub outcome: Outcome,
    /// Bytes of standard output, discarded ones included.
    pub stdout_bytes: u64,
    /// Bytes of standard error, discarded ones included.
    pub stderr_bytes: u64,
    /// Bytes of a terminal's marks, discarded ones included.
    #[serde(default)]
    pub mark_bytes: u64,
    /// Bytes of standard input that the host held.
    #[serde(default)]
    pub stdin_bytes: u64,
    /// Facts since it was started.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
}

impl End {
    /// Where the output ends: both streams and the marks together.
    pub fn offset(&self) -> u64 {
        self.stdout_bytes.saturating_add(self.stderr_bytes).saturating_add(self.mark_bytes)
    }
}

/// All that a slot says about a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Present from before the exec.
    pub starting: Option<Starting>,
    /// Present where the program was executed.
    pub started: Option<Started>,
    /// Present when it has ended.
    pub end: Option<End>,
}

#[derive(Clone, Copy)]
enum Area {
    Starting,
    Started,
    End,
}

impl Area {
    fn range(self) -> (u64, usize) {
        match self {
            Self::Starting => (0, 512),
            Self::Started => (512, 1024),
            Self::End => (1536, 2560),
        }
    }
}

/// One job's slot.
#[derive(Debug)]
pub struct Slot {
    file: File,
    index: u32,
    job: JobId,
}

impl Slot {
    /// Opens a job's slot in the slots file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(path: &Path, index: u32, job: JobId) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { file, index, job })
    }

    /// What it says about the job; nothing where it holds an earlier job's record or none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self) -> io::Result<Contents> {
        Ok(Contents {
            starting: self.read_area(Area::Starting)?,
            started: self.read_area(Area::Started)?,
            end: self.read_area(Area::End)?,
        })
    }

    /// Writes that the job is being started; not synced.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_starting(&self, starting: &Starting) -> io::Result<()> {
        self.write_area(Area::Starting, starting)
    }

    /// Writes that the job was started; not synced.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_started(&self, started: &Started) -> io::Result<()> {
        self.write_area(Area::Started, started)
    }

    /// Writes how the job ended; not synced. Evidence that does not fit is cut.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_end(&self, end: &End) -> io::Result<()> {
        let mut end = end.clone();
        end.evidence = fit_evidence(end.evidence);
        loop {
            match self.write_area(Area::End, &end) {
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {}
                written => return written,
            }
            // Lose particulars before facts, and the oldest facts last.
            let longest =
                end.evidence.iter_mut().max_by_key(|entry| entry.detail.as_ref().map_or(0, String::len));
            match longest {
                Some(entry) if entry.detail.is_some() => entry.detail = None,
                Some(_) => drop(end.evidence.pop()),
                None => return Err(io::ErrorKind::FileTooLarge.into()),
            }
        }
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn base(&self, area: Area) -> (u64, usize) {
        let (offset, length) = area.range();
        (u64::from(self.index) * SLOT_LEN + offset, length)
    }

    fn write_area(&self, area: Area, value: &impl Serialize) -> io::Result<()> {
        let payload = serde_json::to_vec(value)?;
        let (position, length) = self.base(area);
        if HEADER + payload.len() > length {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut record = Vec::with_capacity(HEADER + payload.len());
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(self.job.uuid().as_bytes());
        record.extend_from_slice(&checksum(&record, &payload).to_le_bytes());
        record.extend_from_slice(&payload);
        self.file.write_all_at(&record, position)
    }

    fn read_area<T: DeserializeOwned>(&self, area: Area) -> io::Result<Option<T>> {
        let (position, length) = self.base(area);
        let mut record = vec![0; length];
        match self.file.read_exact_at(&mut record, position) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(decode(&record, self.job))
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

fn decode<T: DeserializeOwned>(record: &[u8], job: JobId) -> Option<T> {
    let (head, rest) = record.split_first_chunk::<HEADER>()?;
    let (covered, sum) = head.split_at(HEADER - 4);
    if covered[..4] != MAGIC || covered[8..] != job.uuid().as_bytes()[..] {
        return None;
    }
    let length = u32::from_le_bytes(covered[4..8].try_into().ok()?) as usize;
    let payload = rest.get(..length)?;
    if checksum(covered, payload).to_le_bytes() != *sum {
        return None;
    }
    serde_json::from_slice(payload).ok()
}

/// Cuts evidence to what one job may have.
pub fn fit_evidence(mut evidence: Vec<Evidence>) -> Vec<Evidence> {
    let over = evidence.len().saturating_sub(MAX_EVIDENCE);
    if over > 0 {
        evidence.truncate(MAX_EVIDENCE);
        if let Some(last) = evidence.last_mut() {
            last.detail = Some(format!("and {over} more"));
        }
    }
    for entry in &mut evidence {
        if let Some(detail) = &mut entry.detail
            && detail.len() > MAX_DETAIL
        {
            let end = detail.floor_char_boundary(MAX_DETAIL);
            detail.truncate(end);
            detail.push_str("...");
        }
    }
    evidence
}

/// Makes the slots file have at least so many slots, of zeros that are on disk, so that writing one needs no new space.
/// Returns how many it has.
///
/// # Errors
/// The kernel's; a full disk among them.
pub fn reserve(path: &Path, wanted: u32) -> io::Result<u32> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let have = (file.metadata()?.len() / SLOT_LEN) as u32;
    if have >= wanted {
        return Ok(have);
    }
    let wanted = wanted.next_multiple_of(SLOT_CHUNK);
    let zeros = vec![0u8; (SLOT_LEN * u64::from(SLOT_CHUNK)) as usize];
    let mut position = u64::from(have) * SLOT_LEN;
    let end = u64::from(wanted) * SLOT_LEN;
    let written = (|| {
        // Written, not only allocated: the first write into allocated space would need the file system's journal.
        while position < end {
            let length = ((end - position) as usize).min(zeros.len());
            file.write_all_at(&zeros[..length], position)?;
            position += length as u64;
        }
        file.sync_all()
    })();
    if let Err(error) = written {
        let _ = file.set_len(u64::from(have) * SLOT_LEN);
        return Err(error);
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ids::uuid_v7;
    use datacentered_proto::outcome::Witness;
    use proptest::prelude::*;

    fn job(n: u8) -> JobId {
        JobId::from_uuid(uuid_v7(1, [n; 10]))
    }

    fn end(evidence: Vec<Evidence>) -> End {
        End {
            at: Timestamp::EPOCH,
            outcome: Outcome::Exited { code: 3 },
            stdout_bytes: 1,
            stderr_bytes: 2,
            mark_bytes: 12,
            stdin_bytes: 0,
            evidence,
        }
    }

    #[test]
    fn a_slot_speaks_only_of_its_own_job() {
        let dir = tempfile::tempdir().expect("makes");
        let path = dir.path().join("slots");
        assert_eq!(reserve(&path, 3).expect("reserves"), SLOT_CHUNK);
        let slot = Slot::open(&path, 2, job(1)).expect("opens");
        assert_eq!(slot.read().expect("reads"), Contents::default());
        slot.write_end(&end(vec![])).expect("writes");
        assert_eq!(slot.read().expect("reads").end, Some(end(vec![])));
        let other = Slot::open(&path, 2, job(2)).expect("opens");
        assert_eq!(other.read().expect("reads"), Contents::default());
    }

    #[test]
    fn too_much_evidence_is_cut_and_the_outcome_stays() {
        let dir = tempfile::tempdir().expect("makes");
        let path = dir.path().join("slots");
        reserve(&path, 1).expect("reserves");
        let slot = Slot::open(&path, 0, job(1)).expect("opens");
        let entry = Evidence {
            at: Timestamp::EPOCH,
            witness: Witness::Shim,
            fact: "x".into(),
            detail: Some("\u{e4}\"".repeat(5000)),
        };
        slot.write_end(&end(vec![entry; 500])).expect("writes");
        let read = slot.read().expect("reads").end.expect("is there");
        assert_eq!(read.outcome, Outcome::Exited { code: 3 });
        assert!(!read.evidence.is_empty());
    }

    proptest! {
        #[test]
        fn damage_is_noticed(at in 0usize..120, flip in 1u8..) {
            let dir = tempfile::tempdir().expect("makes");
            let path = dir.path().join("slots");
            reserve(&path, 1).expect("reserves");
            let slot = Slot::open(&path, 0, job(1)).expect("opens");
            slot.write_end(&end(vec![])).expect("writes");
            let mut bytes = [0];
            let position = Area::End.range().0 + at as u64;
            slot.file.read_exact_at(&mut bytes, position).expect("reads");
            slot.file.write_all_at(&[bytes[0] ^ flip], position).expect("writes");
            prop_assert_eq!(slot.read().expect("reads").end, None);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = decode::<End>(&bytes, job(1));
        }
    }
}

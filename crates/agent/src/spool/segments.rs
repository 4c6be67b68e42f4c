//! The segment files of a spool: names, totals, removal of what is no longer needed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use datacentered_proto::frame::Kind;

use super::record::{Body, Gap, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, decode_header};

const PREFIX: &str = "spool.";

/// How much a spool holds record of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Behind the last byte.
    pub offset: u64,
    /// Bytes of standard output or of a terminal, discarded ones included.
    pub stdout: u64,
    /// Bytes of standard error, discarded ones included.
    pub stderr: u64,
}

impl Totals {
    /// Bytes of marks, discarded ones included: what is no stream's.
    pub fn marks(&self) -> u64 {
        self.offset.saturating_sub(self.stdout).saturating_sub(self.stderr)
    }

    /// Adds so many bytes of a kind.
    pub(super) fn count(&mut self, kind: Kind, length: u64) {
        self.offset += length;
        // What a header on the disk says went before is not believed further than it can be counted.
        match kind {
            Kind::Mark => {}
            Kind::Stderr => self.stderr = self.stderr.saturating_add(length),
            _ => self.stdout = self.stdout.saturating_add(length),
        }
    }
}

/// The file of the segment that begins at an offset.
pub(super) fn path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{start:016x}"))
}

/// The first offsets of all segments in a directory, ascending.
pub(super) fn starts(dir: &Path) -> io::Result<Vec<u64>> {
    let mut starts: Vec<u64> = fs::read_dir(dir)?
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let digits = name.to_str()?.strip_prefix(PREFIX)?;
            (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
        })
        .collect();
    starts.sort_unstable();
    Ok(starts)
}

/// Counts what a spool holds, from its last segment: for a shim that could not say so itself.
///
/// # Errors
/// Where the directory or the segment cannot be read.
pub fn measure(dir: &Path) -> io::Result<Totals> {
    let mut segments = starts(dir)?;
    // The last segment may have been created and not yet given its header.
    while let Some(start) = segments.pop() {
        let file = File::open(path(dir, start))?;
        let mut head = [0; SEGMENT_HEADER];
        let Some(header) = read_exactly(&file, &mut head, 0)?.then(|| SegmentHeader::decode(&head)).flatten()
        else {
            continue;
        };
        if header.start == start {
            return scan(&file, header);
        }
    }
    Ok(Totals::default())
}

fn scan(file: &File, header: SegmentHeader) -> io::Result<Totals> {
    let size = file.metadata()?.len();
    let mut totals = Totals { offset: header.start, stdout: header.stdout, stderr: header.stderr };
    let mut position = SEGMENT_HEADER as u64;
    let mut head = [0; RECORD_HEADER];
    while read_exactly(file, &mut head, position)? {
        let Some(body) = decode_header(&head, totals.offset) else { break };
        position += RECORD_HEADER as u64;
        match body {
            Body::Bytes { kind, length } => {
                // A shim that was killed while writing leaves the beginning of a record: those bytes are genuine.
                let length = (length as u64).min(size.saturating_sub(position));
                totals.count(kind, length);
            }
            Body::Gap => {
                let mut payload = [0; super::record::GAP_PAYLOAD];
                if !read_exactly(file, &mut payload, position)? {
                    break;
                }
                let Some(gap) = Gap::decode(&payload, totals.offset) else { break };
                totals = Totals {
                    offset: gap.to(),
                    stdout: totals.stdout.saturating_add(gap.stdout),
                    stderr: totals.stderr.saturating_add(gap.stderr),
                };
            }
        }
        position += body.len() as u64;
    }
    Ok(totals)
}

/// Removes segments that lie wholly below `upto`; the last one stays. For jobs that have ended: a running job's shim
/// does so itself.
///
/// # Errors
/// Where the directory cannot be read or a file not removed.
pub fn discard_acked(dir: &Path, upto: u64) -> io::Result<()> {
    let starts = starts(dir)?;
    for pair in starts.windows(2) {
        if pair[1] <= upto {
            fs::remove_file(path(dir, pair[0]))?;
        }
    }
    Ok(())
}

fn read_exactly(file: &File, buffer: &mut [u8], position: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, position) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

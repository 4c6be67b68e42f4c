//! The form of segments and records on disk (little-endian).
//!
//! Segment header, 64 bytes: magic, `u64` first offset, `u64` stdout bytes before, `u64` stderr bytes before, zeros.
//! Record header, 16 bytes: `u8` kind, `u8` version, `u16` zero, `u32` payload length, `u64` offset. A gap's payload is
//! `u64` end, `u64` stdout bytes and `u64` stderr bytes inside it; what these two leave are bytes of marks, in a gap as
//! before a segment.

use datacentered_proto::frame::Kind;

/// Length of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 64;
/// Length of a record's header.
pub(super) const RECORD_HEADER: usize = 16;
/// Length of a gap's payload.
pub(super) const GAP_PAYLOAD: usize = 24;
/// Length of a gap's record.
pub(super) const GAP_RECORD: usize = RECORD_HEADER + GAP_PAYLOAD;

const MAGIC: [u8; 8] = *b"DCSPOOL1";
const VERSION: u8 = 1;
const KIND_GAP: u8 = 16;

/// Where a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) start: u64,
    pub(super) stdout: u64,
    pub(super) stderr: u64,
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.start.to_le_bytes());
        out[16..24].copy_from_slice(&self.stdout.to_le_bytes());
        out[24..32].copy_from_slice(&self.stderr.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (start, rest) = rest.split_first_chunk()?;
        let (stdout, rest) = rest.split_first_chunk()?;
        let (stderr, _) = rest.split_first_chunk()?;
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        (*magic == MAGIC).then(|| Self {
            start: number(start),
            stdout: number(stdout),
            stderr: number(stderr),
        })
    }
}

/// What follows a record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes of a stream.
    Bytes { kind: Kind, length: usize },
    /// A gap's payload.
    Gap,
}

impl Body {
    /// Length on disk behind the header.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Bytes { length, .. } => length,
            Self::Gap => GAP_PAYLOAD,
        }
    }
}

pub(super) fn encode_header(kind: Kind, length: usize, offset: u64) -> [u8; RECORD_HEADER] {
    header(kind as u8, length, offset)
}

fn header(kind: u8, length: usize, offset: u64) -> [u8; RECORD_HEADER] {
    let mut out = [0; RECORD_HEADER];
    out[0] = kind;
    out[1] = VERSION;
    out[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    out[8..].copy_from_slice(&offset.to_le_bytes());
    out
}

/// Reads a record's header; `None` where these bytes are none for this offset (a damaged or unfinished tail).
pub(super) fn decode_header(bytes: &[u8], offset: u64) -> Option<Body> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let (at, _) = rest.split_first_chunk::<8>()?;
    let [kind, version, 0, 0, l0, l1, l2, l3] = *head else { return None };
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if version != VERSION || u64::from_le_bytes(*at) != offset {
        return None;
    }
    match kind {
        KIND_GAP if length == GAP_PAYLOAD => Some(Body::Gap),
        _ if length == 0 || length > super::MAX_RECORD => None,
        // No output is so long: a damaged name and header agree on it.
        _ if offset.checked_add(length as u64).is_none() => None,
        _ => match Kind::try_from(kind) {
            Ok(kind @ (Kind::Stdout | Kind::Stderr | Kind::Terminal | Kind::Mark)) => {
                Some(Body::Bytes { kind, length })
            }
            _ => None,
        },
    }
}

/// A stretch that was counted and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: u64,
    pub(super) stdout: u64,
    pub(super) stderr: u64,
    pub(super) marks: u64,
}

impl Gap {
    /// One that begins here and has nothing in it yet.
    pub(super) fn at(from: u64) -> Self {
        Self { from, stdout: 0, stderr: 0, marks: 0 }
    }

    pub(super) fn to(self) -> u64 {
        self.from + self.stdout + self.stderr + self.marks
    }

    /// Adds so many bytes of a kind.
    pub(super) fn count(&mut self, kind: Kind, length: u64) {
        *(match kind {
            Kind::Mark => &mut self.marks,
            Kind::Stderr => &mut self.stderr,
            _ => &mut self.stdout,
        }) += length;
    }

    pub(super) fn encode(self) -> [u8; GAP_RECORD] {
        let mut out = [0; GAP_RECORD];
        out[..RECORD_HEADER].copy_from_slice(&header(KIND_GAP, GAP_PAYLOAD, self.from));
        out[16..24].copy_from_slice(&self.to().to_le_bytes());
        out[24..32].copy_from_slice(&self.stdout.to_le_bytes());
        out[32..40].copy_from_slice(&self.stderr.to_le_bytes());
        out
    }

    /// Reads a gap's payload.
    pub(super) fn decode(payload: &[u8], from: u64) -> Option<Self> {
        let (to, rest) = payload.split_first_chunk()?;
        let (stdout, rest) = rest.split_first_chunk()?;
        let (stderr, _) = rest.split_first_chunk()?;
        let (to, stdout, stderr) =
            (u64::from_le_bytes(*to), u64::from_le_bytes(*stdout), u64::from_le_bytes(*stderr));
        let marks = to.checked_sub(from)?.checked_sub(stdout)?.checked_sub(stderr)?;
        (to > from).then_some(Self { from, stdout, stderr, marks })
    }
}

/// What decodes is encoded to the same bytes again.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some(header) = SegmentHeader::decode(bytes) {
        assert_eq!(header.encode()[..32], bytes[..32]);
    }
    let offset = bytes.get(8..16).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes);
    match decode_header(bytes, offset) {
        Some(Body::Bytes { kind, length }) => {
            assert_eq!(encode_header(kind, length, offset)[..], bytes[..RECORD_HEADER]);
        }
        Some(Body::Gap) => {
            if let Some(gap) = Gap::decode(&bytes[RECORD_HEADER..], offset) {
                assert_eq!(gap.encode()[..], bytes[..GAP_RECORD]);
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(kind in 0usize..4, length in 1usize..=1 << 20, offset: u64) {
            let kind = [Kind::Stdout, Kind::Stderr, Kind::Terminal, Kind::Mark][kind];
            let bytes = encode_header(kind, length, offset);
            prop_assert_eq!(decode_header(&bytes, offset), Some(Body::Bytes { kind, length }));
            prop_assert_eq!(decode_header(&bytes, offset.wrapping_add(1)), None);
        }

        #[test]
        fn gaps_round_trip(
            from in 0u64..1 << 40,
            stdout in 1u64..1 << 40,
            stderr in 0u64..1 << 40,
            marks in 0u64..1 << 40,
        ) {
            let gap = Gap { from, stdout, stderr, marks };
            let bytes = gap.encode();
            prop_assert_eq!(decode_header(&bytes, from), Some(Body::Gap));
            prop_assert_eq!(Gap::decode(&bytes[RECORD_HEADER..], from), Some(gap));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, offset: u64) {
            let _ = decode_header(&bytes, offset);
            let _ = Gap::decode(&bytes, offset);
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}

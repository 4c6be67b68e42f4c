//! Binary frames: the bytes of output, input, terminals and files.
//!
//! Layout (big-endian): `u8 version = 1, u8 kind, u16 zero, u32 stream, u64 offset`, then the payload.

use bytes::{BufMut, Bytes, BytesMut};

/// Length of the header before the payload, in bytes.
pub const HEADER_LEN: usize = 16;

/// The only version of the header there is.
pub const VERSION: u8 = 1;

/// What the bytes of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A process's standard output.
    Stdout = 1,
    /// A process's standard error.
    Stderr = 2,
    /// What goes to a process's standard input.
    Stdin = 3,
    /// A terminal's bytes.
    Terminal = 4,
    /// A file's bytes.
    File = 5,
    /// When a terminal's next bytes came and how large its window was: see [`crate::ops::terminal::Mark`].
    Mark = 6,
}

impl TryFrom<u8> for Kind {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Stdin,
            4 => Self::Terminal,
            5 => Self::File,
            6 => Self::Mark,
            other => return Err(FrameError::Kind(other)),
        })
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("binary frame of {0} bytes is shorter than its {HEADER_LEN}-byte header")]
    Short(usize),
    /// A version this build does not know.
    #[error("binary frame version {0} is not supported; this side speaks version {VERSION}")]
    Version(u8),
    /// A kind this build does not know.
    #[error("binary frame kind {0} is not known")]
    Kind(u8),
    /// The reserved field is not zero.
    #[error("binary frame has a non-zero reserved field")]
    Reserved,
}

/// One binary frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the bytes are.
    pub kind: Kind,
    /// The stream they belong to.
    pub stream: u32,
    /// Where the first payload byte stands in the stream's record (both output streams together; stdin has its own).
    pub offset: u64,
    /// The bytes.
    pub payload: Bytes,
}

impl Frame {
    /// The frame as one buffer.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN + self.payload.len());
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u16(0);
        out.put_u32(self.stream);
        out.put_u64(self.offset);
        out.put_slice(&self.payload);
        out.freeze()
    }

    /// Reads a frame; the payload shares the buffer.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Short(bytes.len()));
        };
        let [version, kind, r0, r1, s0, s1, s2, s3, o0, o1, o2, o3, o4, o5, o6, o7] = *header;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = Kind::try_from(kind)?;
        if (r0, r1) != (0, 0) {
            return Err(FrameError::Reserved);
        }
        Ok(Self {
            kind,
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            payload: bytes.slice(HEADER_LEN..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(kind in 1u8..=5, stream: u32, offset: u64, payload: Vec<u8>) {
            let frame = Frame { kind: Kind::try_from(kind).expect("known"), stream, offset, payload: payload.into() };
            prop_assert_eq!(Frame::decode(frame.encode()).expect("decodes"), frame);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = Frame::decode(bytes.into());
        }
    }

    #[test]
    fn header_layout_is_fixed() {
        let frame =
            Frame { kind: Kind::Stderr, stream: 0x0102_0304, offset: 5, payload: Bytes::from_static(b"x") };
        assert_eq!(&frame.encode()[..], &[1, 2, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5, b'x']);
    }
}

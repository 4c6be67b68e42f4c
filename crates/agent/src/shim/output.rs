//! The two pipes that a process writes to.

use std::io;
use std::os::fd::OwnedFd;

use datacentered_proto::frame::Kind;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::spool::SpoolWriter;

/// Bytes read from a pipe at a time.
pub(super) const CHUNK: usize = 64 << 10;

/// Size asked of the kernel for each pipe: fewer switches between the process and the shim.
const PIPE_SIZE: usize = 256 << 10;

/// The reading end of a process's output stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) kind: Kind,
    pub(super) pipe: Option<OwnedFd>,
}

impl Stream {
    /// A pipe: our end, and the process's.
    pub(super) fn new(kind: Kind) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // Refused where the user has many large pipes: then it stays as it is.
        let _ = fcntl_setpipe_size(&read, PIPE_SIZE);
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((Self { kind, pipe: Some(read) }, write))
    }

    /// A stream that is not used.
    pub(super) fn none(kind: Kind) -> Self {
        Self { kind, pipe: None }
    }

    /// Our end of a stream of another kind, which does not wait.
    pub(super) fn over(kind: Kind, end: OwnedFd) -> Self {
        Self { kind, pipe: Some(end) }
    }

    /// Moves what one read gives to the spool.
    pub(super) fn pump(&mut self, buffer: &mut [u8], spool: &mut SpoolWriter) {
        let length = self.read(buffer);
        spool.append(self.kind, &buffer[..length]);
    }

    /// One read; 0 where there is nothing now, or ever again.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        match rustix::io::read(pipe, buffer) {
            Ok(length @ 1..) => return length,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Its end; a terminal's is the error EIO.
            Ok(0) | Err(_) => self.pipe = None,
        }
        0
    }
}

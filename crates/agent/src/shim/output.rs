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

    /// Moves what one read gives to the spool; returns whether there was something.
    pub(super) fn pump(&mut self, buffer: &mut [u8], spool: &mut SpoolWriter) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(length) => {
                spool.append(self.kind, &buffer[..length]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => {
                self.pipe = None;
                false
            }
        }
    }
}

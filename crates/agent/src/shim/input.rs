//! Standard input: the agent appends to a file, the shim feeds from it.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::launch::files;

/// Bytes given to the process at a time.
const CHUNK: usize = 16 << 10;

/// Delivered input is given back to the file system in steps of this many bytes.
const PUNCH: u64 = 1 << 20;

/// Feeds a process's standard input.
#[derive(Debug)]
pub(super) struct Feeder {
    pipe: Option<OwnedFd>,
    file: Option<File>,
    length: u64,
    delivered: u64,
    punched: u64,
    step: u64,
    eof: bool,
}

impl Feeder {
    /// Feeds a pipe; none where standard input is `/dev/null`.
    pub(super) fn new(pipe: Option<OwnedFd>) -> Self {
        if let Some(pipe) = &pipe {
            // Set for our end only. A process that shares it would see it too, which it does not.
            let _ = rustix::io::ioctl_fionbio(pipe, true);
        }
        Self { pipe, file: None, length: 0, delivered: 0, punched: 0, step: PUNCH, eof: false }
    }

    /// Types into a terminal. What was typed may be a password: it is taken off the disk as soon as it is delivered.
    pub(super) fn typing(master: OwnedFd) -> Self {
        Self { step: 1, ..Self::new(Some(master)) }
    }

    /// Whether all was delivered that there will ever be.
    pub(super) fn is_at_end(&self) -> bool {
        self.eof && self.delivered >= self.length
    }

    /// The agent has written so much.
    pub(super) fn grown(&mut self, length: u64, eof: bool) {
        self.length = self.length.max(length);
        self.eof |= eof;
        self.close_at_end();
    }

    /// How much the process was given.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How much the host holds or has delivered.
    pub(super) fn held(&self) -> u64 {
        self.length
    }

    /// The pipe, where there is something to write to it.
    pub(super) fn wants(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref().filter(|_| self.delivered < self.length)
    }

    /// The pipe, to notice when nobody reads it any more.
    pub(super) fn close(&mut self) {
        self.pipe = None;
    }

    /// Writes as much as the pipe takes.
    pub(super) fn feed(&mut self) {
        if self.file.is_none() {
            self.file = OpenOptions::new().read(true).write(true).open(files::STDIN).ok();
        }
        let (Some(file), Some(pipe)) = (&self.file, &self.pipe) else { return };
        let mut buffer = [0u8; CHUNK];
        while self.delivered < self.length {
            let wanted = usize::try_from(self.length - self.delivered).unwrap_or(CHUNK).min(CHUNK);
            let Ok(read @ 1..) = file.read_at(&mut buffer[..wanted], self.delivered) else { return };
            match rustix::io::write(pipe, &buffer[..read]) {
                Ok(written) => self.delivered += written as u64,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody reads any more: as with any pipe, the rest is not delivered.
                Err(_) => {
                    self.pipe = None;
                    return;
                }
            }
        }
        self.punch();
        self.close_at_end();
    }

    fn close_at_end(&mut self) {
        if self.is_at_end() {
            self.pipe = None;
        }
    }

    /// Gives the space of what was delivered back, so that endless input does not fill the disk.
    fn punch(&mut self) {
        let upto = self.delivered / self.step * self.step;
        if let Some(file) = &self.file
            && upto > self.punched
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Some file systems cannot; then the file keeps its size.
            let _ = rustix::fs::fallocate(file, flags, self.punched, upto - self.punched);
            self.punched = upto;
        }
    }
}

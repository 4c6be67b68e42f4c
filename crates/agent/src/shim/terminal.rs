//! A job's pseudo-terminal: opening it, its window, and the marks that say when its output came.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use datacentered_proto::frame::Kind;
use datacentered_proto::ops::job::{TerminalSpec, Window};
use datacentered_proto::ops::terminal::Mark;
use rustix::fs::{Mode, OFlags, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::input::Feeder;
use super::machine::Machine;
use super::output::Stream;
use super::timer::boot_now;
use crate::spool::SpoolWriter;

/// What the shim knows of its job's terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    /// The process's end, open here too until the process has ended: otherwise the terminal would end whenever no
    /// program has it open for a moment.
    slave: Option<OwnedFd>,
    window: Window,
    /// Since when marks count.
    began: Option<Duration>,
    /// When the last mark was written; none where the next output needs one in any case.
    marked: Option<Duration>,
}

/// A new terminal with everything that belongs to it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) terminal: Terminal,
    pub(super) stdout: Stream,
    pub(super) feeder: Feeder,
    /// The process's standard input, output and error.
    pub(super) theirs: [OwnedFd; 3],
}

/// Opens a terminal; `owner` is who its device belongs to, where that is not the shim's own user.
pub(super) fn open(spec: &TerminalSpec, owner: Option<Uid>) -> io::Result<Opened> {
    // Never the shim's own controlling terminal: it leads a session without one.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = match ioctl_tiocgptpeer(&master, flags) {
        Ok(slave) => slave,
        // Kernels before 4.13.
        Err(_) => rustix::fs::open(ptsname(&master, Vec::new())?, OFlags::from(flags), Mode::empty())?,
    };
    if let Some(owner) = owner {
        // So that its programs can open it by name. Most never do: where this is not allowed it works all the same.
        let _ = rustix::fs::fchown(&slave, Some(owner), None);
    }
    let mut modes = tcgetattr(&slave)?;
    // Otherwise erasing a character takes only its last byte away.
    modes.input_modes |= InputModes::IUTF8;
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    tcsetwinsize(&slave, size(spec.window))?;
    rustix::io::ioctl_fionbio(&master, true)?;
    let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 0);
    let theirs = [copy(&slave)?, copy(&slave)?, copy(&slave)?];
    let feeder = Feeder::typing(copy(&master)?);
    let terminal = Terminal { slave: Some(slave), window: spec.window, began: None, marked: None };
    Ok(Opened { terminal, stdout: Stream::over(Kind::Terminal, master), feeder, theirs })
}

fn size(window: Window) -> Winsize {
    Winsize { ws_row: window.rows, ws_col: window.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// The program was executed: the record begins with a mark.
    pub(super) fn begin(&mut self, spool: &mut SpoolWriter) {
        if self.began.is_none() {
            self.mark(boot_now(), spool);
        }
    }

    /// The process has ended: what others do not hold open ends when it was read.
    pub(super) fn release(&mut self) {
        self.slave = None;
    }

    /// Moves what was printed to the spool, behind a mark where the last one is too old. The kernel gives at most 4 KiB
    /// at a time, so that several reads make one record.
    pub(super) fn pump(&mut self, output: &mut Stream, buffer: &mut [u8], spool: &mut SpoolWriter) {
        let mut length = 0;
        while length < buffer.len() {
            match output.read(&mut buffer[length..]) {
                0 => break,
                read => length += read,
            }
        }
        if length == 0 {
            return;
        }
        let now = boot_now();
        let every = Duration::from_millis(Mark::EVERY_MS);
        if self.marked.is_none_or(|at| now.saturating_sub(at) >= every) {
            self.mark(now, spool);
        }
        spool.append(output.kind, &buffer[..length]);
    }

    fn mark(&mut self, now: Duration, spool: &mut SpoolWriter) {
        let began = *self.began.get_or_insert(now);
        let at_ms = u64::try_from(now.saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
        spool.append(Kind::Mark, &Mark { at_ms, window: self.window }.encode());
        self.marked = Some(now);
    }

    fn resized(&mut self, window: Window, spool: &mut SpoolWriter) {
        self.window = window;
        if self.began.is_none() {
            // The first mark will say so.
        } else if spool.must_wait() {
            self.marked = None;
        } else {
            self.mark(boot_now(), spool);
        }
    }
}

impl Machine {
    /// Gives the terminal another window; false where there is none or it was hung up.
    pub(super) fn resize(&mut self, window: Window) -> bool {
        let (Some(terminal), Some(master)) = (&mut self.terminal, &self.stdout.pipe) else { return false };
        // The kernel tells the foreground program.
        if !window.is_valid() || tcsetwinsize(master, size(window)).is_err() {
            return false;
        }
        terminal.resized(window, &mut self.spool);
        true
    }

    /// Hangs the terminal up when all was typed that there will ever be.
    pub(super) fn hang_up_at_end(&mut self, buffer: &mut [u8]) {
        let Some(terminal) = &mut self.terminal else { return };
        if !self.feeder.is_at_end() || self.stdout.pipe.is_none() || self.exit.is_some() {
            return;
        }
        terminal.pump(&mut self.stdout, buffer, &mut self.spool);
        terminal.release();
        // The last of our ends: the kernel sends HUP to the session.
        self.stdout.pipe = None;
        self.note("hung_up", Some("its input ended".into()));
    }
}

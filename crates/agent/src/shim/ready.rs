//! What the shim waits for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::machine::Machine;

fn readable(fd: Option<&OwnedFd>) -> Option<(BorrowedFd<'_>, PollFlags)> {
    fd.map(|fd| (fd.as_fd(), PollFlags::IN))
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) child: bool,
    pub(super) timer: bool,
    pub(super) listener: bool,
    pub(super) agent: bool,
    pub(super) room: bool,
    pub(super) report: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) stdin: bool,
}

impl Machine {
    /// Waits until something is to be done.
    pub(super) fn wait(&self) -> io::Result<Ready> {
        let none = self.owned.signals.as_fd();
        let may_read = !self.spool.must_wait();
        let agent = self.agent.as_ref().map(|agent| {
            let room = if agent.is_waiting() { PollFlags::OUT } else { PollFlags::empty() };
            (agent.as_fd(), PollFlags::IN | room)
        });
        let wanted = [
            Some((self.owned.signals.as_fd(), PollFlags::IN)),
            Some((self.timer.as_fd(), PollFlags::IN)),
            Some((self.owned.listener.as_fd(), PollFlags::IN)),
            agent,
            readable(self.report.as_ref()),
            readable(self.stdout.pipe.as_ref().filter(|_| may_read)),
            readable(self.stderr.pipe.as_ref().filter(|_| may_read)),
            self.feeder.wants().map(|fd| (fd.as_fd(), PollFlags::OUT)),
        ];
        // A descriptor that is asked for nothing still reports errors, so those that are not wanted are left out.
        let mut polled: [PollFd<'_>; 8] =
            std::array::from_fn(|_| PollFd::from_borrowed_fd(none, PollFlags::empty()));
        let mut count = 0;
        let mut places = [usize::MAX; 8];
        for (index, entry) in wanted.into_iter().enumerate() {
            if let Some((fd, flags)) = entry {
                polled[count] = PollFd::from_borrowed_fd(fd, flags);
                places[index] = count;
                count += 1;
            }
        }
        match poll(&mut polled[..count], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events = |index: usize| polled.get(places[index]).map_or(PollFlags::empty(), PollFd::revents);
        let any = |index: usize| !events(index).is_empty();
        Ok(Ready {
            child: any(0),
            timer: any(1),
            listener: any(2),
            agent: events(3).intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
            room: events(3).contains(PollFlags::OUT),
            report: any(4),
            stdout: any(5),
            stderr: any(6),
            stdin: any(7),
        })
    }
}

//! Wakers that remember: which half of the socket became ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// Tells one half of a socket from the other, so that a task woken to write does not poll the read side again (each such
/// poll clears the read buffer and costs a system call).
pub(crate) struct Gate {
    fired: AtomicBool,
    task: AtomicWaker,
}

impl Gate {
    /// A gate that is open: the first poll is always due.
    pub(crate) fn open() -> Arc<Self> {
        Arc::new(Self { fired: AtomicBool::new(true), task: AtomicWaker::new() })
    }

    /// The task to wake.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Whether a poll is due; it counts as done now.
    pub(crate) fn take(&self) -> bool {
        self.fired.swap(false, Ordering::AcqRel)
    }

    /// Whether a poll is due.
    pub(crate) fn is_open(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// A poll is due again.
    pub(crate) fn set(&self) {
        self.fired.store(true, Ordering::Release);
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
        self.task.wake();
    }
}

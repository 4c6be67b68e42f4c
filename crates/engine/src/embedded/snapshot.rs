//! Stopping a writer between two groups, so that snapshots of both stores show one moment.

use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

/// How long a writer stands still at most; taking both snapshots takes far less.
const LONGEST: Duration = Duration::from_secs(10);

/// Asks a writer to hand out a snapshot and stand still until it is released.
pub(crate) struct Barrier {
    reached: oneshot::Sender<fjall::Snapshot>,
    release: mpsc::Receiver<()>,
}

/// Releases the writer when dropped.
pub(crate) struct Release(
    #[expect(dead_code, reason = "what counts is that it is dropped")] mpsc::SyncSender<()>,
);

impl Barrier {
    /// A barrier, where its snapshot arrives, and what releases it.
    pub(crate) fn new() -> (Self, oneshot::Receiver<fjall::Snapshot>, Release) {
        let (reached, snapshot) = oneshot::channel();
        let (sender, release) = mpsc::sync_channel(1);
        (Self { reached, release }, snapshot, Release(sender))
    }

    /// On the writer's thread: hands out the snapshot and waits.
    pub(crate) fn wait(self, snapshot: fjall::Snapshot) {
        if self.reached.send(snapshot).is_ok() {
            // Released by the other side's drop, which is an error here.
            let _ = self.release.recv_timeout(LONGEST);
        }
    }
}

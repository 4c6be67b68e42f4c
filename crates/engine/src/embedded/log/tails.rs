//! Who follows the end of which log.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::super::util::lock;
use crate::key::LogName;

/// The followed logs. A log that nobody follows is not in it, from the next sweep on.
#[derive(Default)]
pub(crate) struct Tails(Mutex<HashMap<LogName, watch::Sender<u64>>>);

impl Tails {
    /// Follows a log. The caller raises the value to the end it then reads.
    pub(crate) fn follow(&self, log: &LogName) -> watch::Receiver<u64> {
        lock(&self.0).entry(log.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Tells the followers of a log where it ends now.
    pub(crate) fn raise(&self, log: &LogName, end: u64) {
        let mut tails = lock(&self.0);
        if let Some(sender) = tails.get(log) {
            if sender.receiver_count() == 0 {
                tails.remove(log);
            } else {
                sender.send_if_modified(|now| {
                    let further = end > *now;
                    *now = end.max(*now);
                    further
                });
            }
        }
    }

    /// Tells the followers of a log that it is gone.
    pub(crate) fn remove(&self, log: &LogName) {
        lock(&self.0).remove(log);
    }

    /// Lets go of what nobody follows.
    pub(crate) fn sweep(&self) {
        lock(&self.0).retain(|_, sender| sender.receiver_count() > 0);
    }

    /// Tells all followers that nothing follows.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_and_lets_go() {
        let tails = Tails::default();
        let log = LogName::parse("a").expect("name");
        let mut receiver = tails.follow(&log);
        tails.raise(&log, 5);
        tails.raise(&log, 3);
        assert_eq!(*receiver.borrow_and_update(), 5);
        assert!(!receiver.has_changed().expect("open"));
        drop(receiver);
        tails.sweep();
        assert!(lock(&tails.0).is_empty());
        let receiver = tails.follow(&log);
        tails.remove(&log);
        assert!(receiver.has_changed().is_err());
    }
}

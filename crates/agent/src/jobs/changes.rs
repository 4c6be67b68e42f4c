//! Which jobs' reports have changed, one entry a job however often it changed.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datacentered_proto::JobId;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Inbox {
    // As long as there are jobs at most: a job is in it once.
    waiting: Mutex<(VecDeque<JobId>, HashSet<JobId>)>,
    arrived: Notify,
}

/// A subscription to changes. Jobs that changed before it was made are not in it: list those.
#[derive(Debug)]
pub struct Changes(Arc<Inbox>);

impl Changes {
    /// The next job whose state, outcome or evidence has changed; counts of bytes alone are no change. Its report may
    /// be gone by then, when it was released. Cancelling the future loses nothing.
    pub async fn next(&mut self) -> JobId {
        loop {
            {
                let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let (order, known) = &mut *waiting;
                if let Some(job) = order.pop_front() {
                    known.remove(&job);
                    return job;
                }
            }
            self.0.arrived.notified().await;
        }
    }
}

/// Tells all subscribers.
#[derive(Debug, Default)]
pub(super) struct Publisher(Mutex<Vec<Weak<Inbox>>>);

impl Publisher {
    pub(super) fn subscribe(&self) -> Changes {
        let inbox = Arc::new(Inbox::default());
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(&inbox));
        Changes(inbox)
    }

    pub(super) fn publish(&self, job: JobId) {
        let subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for inbox in subscribers.iter().filter_map(Weak::upgrade) {
            let mut waiting = inbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let (order, known) = &mut *waiting;
            if known.insert(job) {
                order.push_back(job);
            }
            drop(waiting);
            inbox.arrived.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ids::uuid_v7;

    #[tokio::test]
    async fn many_changes_of_one_job_are_one() {
        let publisher = Publisher::default();
        let mut changes = publisher.subscribe();
        let job = |n| JobId::from_uuid(uuid_v7(n, [0; 10]));
        for _ in 0..100 {
            publisher.publish(job(1));
            publisher.publish(job(2));
        }
        assert_eq!(changes.next().await, job(1));
        assert_eq!(changes.next().await, job(2));
        publisher.publish(job(1));
        assert_eq!(changes.next().await, job(1));
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(20), changes.next()).await;
        assert!(nothing.is_err());
    }
}

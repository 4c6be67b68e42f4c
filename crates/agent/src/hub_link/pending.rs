//! Which jobs the hub has yet to be told about: the newest state wins, nothing is forgotten before it is answered.
//!
//! Pure: knows no link and no clock. A job is in at most one place (waiting, delayed or in flight), so that its size is
//! bounded by the number of jobs that the host holds.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use datacentered_proto::JobId;
use tokio::time::Instant;

/// Jobs whose reports the hub has not answered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<JobId>,
    queued: HashSet<JobId>,
    delayed: BTreeSet<(Instant, JobId)>,
    delayed_until: HashMap<JobId, Instant>,
    // In flight, and whether the job has changed since it was sent.
    in_flight: HashMap<JobId, bool>,
}

impl Pending {
    /// A job changed; its newest state is to be told.
    pub(super) fn changed(&mut self, job: JobId) {
        if let Some(again) = self.in_flight.get_mut(&job) {
            *again = true;
            return;
        }
        // News are worth an attempt at once, also where an older state had to wait.
        if let Some(until) = self.delayed_until.remove(&job) {
            self.delayed.remove(&(until, job));
        }
        self.enqueue(job);
    }

    /// The next job to tell about, where fewer than `most` are in flight; it counts as in flight from here.
    pub(super) fn next(&mut self, now: Instant, most: usize) -> Option<JobId> {
        if self.in_flight.len() >= most {
            return None;
        }
        while let Some((_, job)) = self.delayed.first().copied().filter(|(until, _)| *until <= now) {
            self.delayed.pop_first();
            self.delayed_until.remove(&job);
            self.enqueue(job);
        }
        let job = self.queue.pop_front()?;
        self.queued.remove(&job);
        self.in_flight.insert(job, false);
        Some(job)
    }

    /// The hub answered; a change that came meanwhile is told next.
    pub(super) fn answered(&mut self, job: JobId) {
        if self.in_flight.remove(&job) == Some(true) {
            self.enqueue(job);
        }
    }

    /// The hub could not take it; it is told again at `at`.
    pub(super) fn failed(&mut self, job: JobId, at: Instant) {
        if self.in_flight.remove(&job).is_some() {
            self.delayed.insert((at, job));
            self.delayed_until.insert(job, at);
        }
    }

    /// The link is gone: what was in flight may not have arrived, and delays asked for by that hub end.
    pub(super) fn link_lost(&mut self) {
        let open: Vec<JobId> = self.in_flight.drain().map(|(job, _)| job).collect();
        let delayed: Vec<JobId> = std::mem::take(&mut self.delayed).into_iter().map(|(_, job)| job).collect();
        self.delayed_until.clear();
        for job in open.into_iter().chain(delayed) {
            self.enqueue(job);
        }
    }

    /// When the next delayed job comes up.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// How many jobs the hub has yet to be told about.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.delayed.len() + self.in_flight.len()
    }

    fn enqueue(&mut self, job: JobId) {
        if self.queued.insert(job) {
            self.queue.push_back(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn job(n: u8) -> JobId {
        format!("00000000-0000-7000-8000-0000000000{n:02x}").parse().expect("id")
    }

    #[test]
    fn changes_are_coalesced_and_told_again_where_they_came_in_flight() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        pending.changed(job(1));
        pending.changed(job(1));
        assert_eq!(pending.next(now, 8), Some(job(1)));
        assert_eq!(pending.next(now, 8), None);
        pending.changed(job(1));
        pending.changed(job(1));
        assert_eq!(
            pending.next(now, 8),
            None,
            "one job is never in flight twice: its states keep their order"
        );
        pending.answered(job(1));
        assert_eq!(pending.next(now, 8), Some(job(1)));
        pending.answered(job(1));
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn no_more_than_the_limit_is_in_flight() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        (0..5).for_each(|n| pending.changed(job(n)));
        assert_eq!((0..5).filter_map(|_| pending.next(now, 2)).count(), 2);
        pending.answered(job(0));
        assert_eq!(pending.next(now, 2), Some(job(2)));
    }

    #[test]
    fn a_refused_one_waits_and_a_lost_link_or_news_end_the_wait() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let later = now + Duration::from_secs(5);
        pending.changed(job(1));
        pending.next(now, 1);
        pending.failed(job(1), later);
        assert_eq!((pending.next(now, 1), pending.wake_at()), (None, Some(later)));
        assert_eq!(pending.next(later, 1), Some(job(1)));
        pending.failed(job(1), later + Duration::from_secs(5));
        pending.changed(job(1));
        assert_eq!(pending.next(later, 1), Some(job(1)), "news");
        pending.failed(job(1), later + Duration::from_secs(5));
        pending.link_lost();
        assert_eq!((pending.next(later, 1), pending.wake_at()), (Some(job(1)), None), "lost link");
        pending.link_lost();
        assert_eq!(pending.next(later, 1), Some(job(1)), "in flight at the loss");
    }

    proptest! {
        /// Whatever happens in whatever order: a job that changed is told after its last change.
        #[test]
        fn nothing_is_forgotten(steps in proptest::collection::vec((0u8..5, 0u8..4), 0..200)) {
            let (mut pending, start) = (Pending::default(), Instant::now());
            let mut owed: HashSet<JobId> = HashSet::new();
            let mut sent: Vec<JobId> = Vec::new();
            for (step, (action, n)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_millis(step as u64);
                match action {
                    0 => {
                        pending.changed(job(n));
                        owed.insert(job(n));
                    }
                    1 => sent.extend(pending.next(now, 3).inspect(|job| { owed.remove(job); })),
                    2 => if let Some(job) = sent.pop() {
                        pending.answered(job);
                    },
                    3 => if let Some(job) = sent.pop() {
                        owed.insert(job);
                        pending.failed(job, now + Duration::from_millis(3));
                    },
                    _ => {
                        owed.extend(sent.drain(..));
                        pending.link_lost();
                    }
                }
                prop_assert!(pending.len() <= 4);
            }
            owed.extend(sent.drain(..));
            pending.link_lost();
            let mut told = HashSet::new();
            while let Some(job) = pending.next(start, 100) {
                prop_assert!(told.insert(job));
            }
            prop_assert!(owed.is_subset(&told));
        }
    }
}

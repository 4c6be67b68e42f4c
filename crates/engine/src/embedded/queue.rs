//! The bounded way to a writer thread, and the thread's loop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::store::Failure;
use crate::error::{Error, Result};

/// Bytes per permit of a queue's byte budget.
const UNIT: usize = 1024;

/// How long an answer is still waited for after the engine failed.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A request in the queue. The permit is its share of the byte budget.
pub(crate) struct Queued<R> {
    request: R,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

/// Limits of a queue.
#[derive(Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    pub(crate) wait: Duration,
    pub(crate) group: usize,
    pub(crate) group_bytes: usize,
}

/// The sending side.
pub(crate) struct Queue<R> {
    sender: mpsc::Sender<Queued<R>>,
    budget: Arc<Semaphore>,
    wait: Duration,
    failure: Failure,
}

impl<R> Clone for Queue<R> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            budget: self.budget.clone(),
            wait: self.wait,
            failure: self.failure.clone(),
        }
    }
}

/// The side of background threads: it does not keep the writer alive.
pub(crate) struct WeakQueue<R>(mpsc::WeakSender<Queued<R>>);

impl<R> WeakQueue<R> {
    /// Hands over a request unless the queue is full or gone.
    pub(crate) fn try_send(&self, request: R) -> bool {
        self.0
            .upgrade()
            .is_some_and(|sender| sender.try_send(Queued { request, bytes: 0, permit: None }).is_ok())
    }
}

/// What runs on the writer thread.
pub(crate) trait Writer: Send + 'static {
    /// What it is asked.
    type Request: Send + 'static;

    /// Writes a group and answers it. Returns false to stop taking new requests.
    fn run(&mut self, group: Vec<Self::Request>) -> bool;

    /// Nothing follows.
    fn finish(&mut self);
}

impl<R: Send + 'static> Queue<R> {
    /// A queue and its receiving end.
    pub(crate) fn new(limits: QueueLimits, failure: Failure) -> (Self, mpsc::Receiver<Queued<R>>) {
        let (sender, receiver) = mpsc::channel(limits.requests);
        let budget = Arc::new(Semaphore::new(limits.bytes / UNIT));
        (Self { sender, budget, wait: limits.wait, failure }, receiver)
    }

    pub(crate) fn downgrade(&self) -> WeakQueue<R> {
        WeakQueue(self.sender.downgrade())
    }

    /// Hands over a request of about `bytes`, waiting for a place. Errors with [`Error::Limited`] when that takes too
    /// long.
    pub(crate) async fn send(&self, request: R, bytes: usize) -> Result<()> {
        self.failure.check()?;
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let fast = self.budget.clone().try_acquire_many_owned(units).ok();
        let permit = match fast {
            Some(permit) => permit,
            None => tokio::time::timeout(self.wait, self.budget.clone().acquire_many_owned(units))
                .await
                .map_err(|_| Error::Limited { what: "queue_bytes" })?
                .map_err(|_| Error::Closed)?,
        };
        let queued = Queued { request, bytes, permit: Some(permit) };
        match self.sender.try_send(queued) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::Closed),
            Err(mpsc::error::TrySendError::Full(queued)) => {
                self.sender.send_timeout(queued, self.wait).await.map_err(|e| match e {
                    mpsc::error::SendTimeoutError::Timeout(_) => Error::Limited { what: "queue_max" },
                    mpsc::error::SendTimeoutError::Closed(_) => Error::Closed,
                })
            }
        }
    }

    /// Hands over the request to stop, also after a failure and whatever is queued.
    pub(crate) async fn stop(&self, request: R) {
        // An error means that the writer is gone, or hangs and cannot be told.
        let _ = self.sender.send_timeout(Queued { request, bytes: 0, permit: None }, self.wait).await;
    }

    /// Hands over a request and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        bytes: usize,
        request: impl FnOnce(oneshot::Sender<Result<T>>) -> R,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply), bytes).await?;
        self.answer(answer).await
    }

    /// Waits for an answer; never for ever, as a writer whose store failed may hang inside it.
    async fn answer<T>(&self, mut answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let lost = || Err(Error::Indeterminate { why: "the writer stopped before it answered".into() });
        tokio::select! {
            biased;
            answered = &mut answer => answered.unwrap_or_else(|_| lost()),
            () = self.failure.token().cancelled() => {
                tokio::time::timeout(LAST_ANSWERS, answer).await.map_or_else(
                    |_| Err(Error::Indeterminate { why: "the engine failed meanwhile".into() }),
                    |answered| answered.unwrap_or_else(|_| lost()),
                )
            }
        }
    }
}

/// Notices a writer that panicked: nobody must wait for it.
struct PanicGuard(Failure);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set("a writer thread panicked");
        }
    }
}

/// Starts a writer thread. It ends when all queues are gone or the writer says so, after it has worked off what is
/// queued.
pub(crate) fn spawn_writer<W: Writer>(
    name: &str,
    mut receiver: mpsc::Receiver<Queued<W::Request>>,
    limits: QueueLimits,
    failure: Failure,
    mut writer: W,
) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _guard = PanicGuard(failure);
            while let Some(first) = receiver.blocking_recv() {
                let mut bytes = first.bytes;
                let mut permits = vec![first.permit];
                let mut group = vec![first.request];
                while group.len() < limits.group && bytes < limits.group_bytes {
                    let Ok(next) = receiver.try_recv() else { break };
                    bytes += next.bytes;
                    permits.push(next.permit);
                    group.push(next.request);
                }
                if !writer.run(group) {
                    receiver.close();
                }
                drop(permits);
            }
            writer.finish();
        })
        .map_err(|e| Error::io("starting a writer thread", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;
    enum Ask {
        Number(u64, oneshot::Sender<Result<u64>>),
        Hang(std::sync::mpsc::Receiver<()>),
        Stop,
        Panic,
    }

    impl Writer for Echo {
        type Request = Ask;
        fn run(&mut self, group: Vec<Ask>) -> bool {
            let mut go_on = true;
            for ask in group {
                match ask {
                    Ask::Number(n, reply) => drop(reply.send(Ok(n))),
                    Ask::Hang(until) => drop(until.recv()),
                    Ask::Stop => go_on = false,
                    Ask::Panic => panic!("on purpose"),
                }
            }
            go_on
        }
        fn finish(&mut self) {}
    }

    fn limits() -> QueueLimits {
        QueueLimits {
            requests: 2,
            bytes: 4096,
            wait: Duration::from_millis(20),
            group: 1,
            group_bytes: 1 << 20,
        }
    }

    fn start(failure: &Failure) -> (Queue<Ask>, std::thread::JoinHandle<()>) {
        let (queue, receiver) = Queue::new(limits(), failure.clone());
        let thread = spawn_writer("test", receiver, limits(), failure.clone(), Echo).expect("thread");
        (queue, thread)
    }

    #[tokio::test]
    async fn answers_and_is_bounded() {
        let failure = Failure::default();
        let (queue, thread) = start(&failure);
        assert_eq!(queue.ask(10, |reply| Ask::Number(7, reply)).await.expect("answer"), 7);
        let (release, until) = std::sync::mpsc::sync_channel(1);
        queue.send(Ask::Hang(until), 3000).await.expect("send");
        let number = |n| Ask::Number(n, oneshot::channel().0);
        assert!(matches!(queue.send(number(1), 3000).await, Err(Error::Limited { what: "queue_bytes" })));
        while queue.sender.capacity() < 2 {
            tokio::task::yield_now().await;
        }
        queue.send(number(1), 1).await.expect("queued");
        queue.send(number(2), 0).await.expect("queued");
        assert!(matches!(queue.send(number(3), 0).await, Err(Error::Limited { what: "queue_max" })));
        release.send(()).expect("release");
        queue.ask(0, |reply| Ask::Number(8, reply)).await.expect("goes on");
        queue.send(Ask::Stop, 0).await.expect("stop");
        thread.join().expect("joined");
        assert!(matches!(queue.send(number(1), 1).await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn a_panic_fails_the_engine_and_nobody_hangs() {
        let failure = Failure::default();
        let (queue, thread) = start(&failure);
        queue.send(Ask::Panic, 0).await.expect("send");
        let answer = queue.ask(0, |reply| Ask::Number(1, reply)).await;
        assert!(answer.is_err());
        assert!(thread.join().is_err());
        assert!(failure.token().is_cancelled());
        assert!(matches!(queue.send(Ask::Stop, 0).await, Err(Error::Unavailable { .. })));
    }
}

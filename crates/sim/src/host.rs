//! One simulated host: its link, made again whenever it is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datacentered_link::backoff::{Backoff, Policy};
use datacentered_link::clock::Clock;
use datacentered_link::{CloseReason, Link};
use datacentered_proto::Code;
use datacentered_proto::ops::session::AgentHello;
use rustls::ClientConfig;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::board::Board;
use crate::dial::{ConnectError, Connected, Dialler};
use crate::fault::Faults;
use crate::fleet::Script;
use crate::journal::Journal;
use crate::serve::Serve;
use crate::stats::{Stats, count, uncount};

/// Failures in a row up to which a lost link comes back when the hub said, as with agents.
const SLOT_AFTER: u32 = 3;

/// What all hosts of a fleet share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stats: Stats,
    pub(crate) board: Board,
    pub(crate) script: Script,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Every link is to break.
    pub(crate) cut: Notify,
    /// Hosts that have no link stay away.
    pub(crate) held: watch::Sender<bool>,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) faults: Faults,
    /// Its own: seeded, and wrong where that is its fault.
    pub(crate) clock: Clock,
    pub(crate) boot_id: String,
    /// The link that is up.
    pub(crate) link: watch::Sender<Option<Link>>,
    journal: Mutex<Journal>,
    /// When the hub, going down, wants to be dialled again, in milliseconds and one more; 0 where it said nothing.
    drain: AtomicU64,
}

impl Host {
    pub(crate) fn new(index: usize, faults: Faults, clock: Clock, shared: Arc<Shared>) -> Self {
        if let Some(ahead) = faults.skew {
            clock.step_wall(i64::try_from(ahead.as_millis()).unwrap_or(0));
        }
        let incarnation = format!("sim{:x}", clock.random());
        let boot_id = clock.uuid().to_string();
        Self {
            index,
            shared,
            faults,
            boot_id,
            link: watch::Sender::new(None),
            journal: Mutex::new(Journal::new(incarnation)),
            drain: AtomicU64::new(0),
            clock,
        }
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        // Plain maps: whole after any panic.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the host says of its journal; a liar's mark goes back at times.
    pub(crate) fn hello(&self) -> AgentHello {
        let journal = self.journal();
        let high_water = match journal.high_water() {
            mark if self.faults.lie => self.clock.random() % (mark + 1),
            mark => mark,
        };
        AgentHello {
            incarnation: journal.incarnation().to_owned(),
            high_water,
            boot_id: self.boot_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The hub goes down and said when to come back.
    pub(crate) fn drained(&self, after_ms: u64) {
        self.drain.store(after_ms.saturating_add(1), Ordering::Relaxed);
    }

    /// The link that is up, now or when it is; none at the end of the simulation.
    pub(crate) async fn up(&self) -> Option<Link> {
        let mut link = self.link.subscribe();
        tokio::select! {
            up = link.wait_for(|link| link.as_ref().is_some_and(|link| !link.is_closed())) => up.ok()?.clone(),
            () = self.shared.stop.cancelled() => None,
        }
    }

    /// Keeps the link up until the end of the simulation, or until the hub wants no more of this host.
    pub(crate) async fn run(self: Arc<Self>, dialler: Dialler, tls: Arc<ClientConfig>) {
        let shared = &self.shared;
        let mut backoff = Backoff::new(Policy::default());
        let mut lost_at = None;
        loop {
            let began = Instant::now();
            let connect =
                dialler.connect(tls.clone(), Arc::new(Serve(self.clone())), self.hello(), self.clock.wall());
            let connected = tokio::select! {
                connected = connect => connected,
                () = shared.stop.cancelled() => return,
            };
            match connected {
                Ok(connected) => {
                    shared.stats.connecting.add(began.elapsed());
                    if let Some(lost_at) = lost_at.take() {
                        shared.stats.away.add(Instant::now().duration_since(lost_at));
                    }
                    backoff.connected(self.clock.boot());
                    if backoff.failures() <= SLOT_AFTER {
                        backoff.set_slot(Duration::from_millis(connected.hello.reconnect_slot_ms));
                    }
                    if self.while_connected(connected).await {
                        return;
                    }
                    lost_at = Some(Instant::now());
                    let drain = self.drain.swap(0, Ordering::Relaxed);
                    if drain > 0 {
                        backoff.set_retry_after(Duration::from_millis(drain - 1));
                    }
                }
                Err(error) => {
                    if self.failed(&error, &mut backoff) {
                        return;
                    }
                }
            }
            let wait = backoff.next(self.clock.boot(), self.clock.random());
            tokio::select! {
                () = sleep(wait) => {}
                () = shared.stop.cancelled() => return,
            }
        }
    }

    /// Says whether the simulation has ended.
    async fn while_connected(self: &Arc<Self>, connected: Connected) -> bool {
        let Connected { link, mut driver, .. } = connected;
        let shared = &self.shared;
        let steady = self.faults.disconnect.is_none();
        count(&shared.stats.connects);
        count(&shared.stats.online);
        if steady {
            count(&shared.stats.steady_online);
        }
        self.link.send_replace(Some(link.clone()));
        let over = tokio::select! {
            reason = &mut driver => Some(reason.unwrap_or(CloseReason::Dropped)),
            () = self.lie_over(&link), if self.faults.lie => None,
            () = self.until_it_breaks(), if self.faults.disconnect.is_some() => None,
            () = shared.cut.notified() => None,
            () = shared.stop.cancelled() => {
                link.close("the simulation has ended");
                // This side wanted it to end.
                let _ = driver.await;
                self.link.send_replace(None);
                return true;
            }
        };
        // Without its driver the connection breaks off, as a cable that is pulled.
        if let Some(reason) = over {
            tracing::debug!(host = self.index, %reason, "a simulated host lost its link");
        }
        self.link.send_replace(None);
        uncount(&shared.stats.online);
        if steady {
            uncount(&shared.stats.steady_online);
        }
        count(&shared.stats.lost);
        false
    }

    async fn until_it_breaks(&self) {
        let every = self.faults.disconnect.unwrap_or_default();
        // Between a half and one and a half, so that hosts do not march in step.
        let ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
        sleep(Duration::from_millis(ms / 2 + self.clock.random() % ms)).await;
    }

    /// Takes note of a connection that was not made. Says whether the hub wants no more of this host.
    fn failed(&self, error: &ConnectError, backoff: &mut Backoff) -> bool {
        let stats = &self.shared.stats;
        tracing::debug!(host = self.index, %error, "a simulated host did not connect");
        match error {
            ConnectError::Unreachable(_) => count(&stats.unreachable),
            ConnectError::Refused(_) => count(&stats.refused),
            ConnectError::Hello(error) => {
                match error.code {
                    // The link was cut during the greeting: the hub went down.
                    Code::Unavailable | Code::Indeterminate => count(&stats.unreachable),
                    _ => count(&stats.refused),
                }
                if let Some(after) = error.retry_after_ms {
                    backoff.set_retry_after(Duration::from_millis(after));
                }
                return matches!(error.code, Code::Forbidden | Code::Unauthenticated);
            }
        }
        false
    }
}

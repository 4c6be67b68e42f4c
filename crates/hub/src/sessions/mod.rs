//! Sessions: one per connection (or HTTP request), and who it speaks for.

mod ops;
mod serve;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::session::Subject;
use datacentered_proto::{Error, HostId, SessionId, TokenId, UserId};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::access::Rights;
use crate::hub::Hub;
use crate::identity::HostKey;
use crate::store::{Changed, View};

pub use ops::register;
pub use serve::serve_link;

/// How often sessions are looked over for credentials that ended with time; revocations act at once.
const SWEEP: Duration = Duration::from_secs(2);

/// Refused or failed changes of one session that are written to the audit.
const AUDITED_REFUSALS: u32 = 100;

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Who is on the other end of the connection, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A network peer.
    Tcp(SocketAddr),
    /// A process on the hub's machine.
    Local {
        /// Its user.
        uid: u32,
        /// Its number.
        pid: u32,
    },
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Local { uid, pid } => write!(f, "local uid {uid} pid {pid}"),
        }
    }
}

/// What a session proved itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    None,
    /// A host's key, in the TLS handshake.
    HostKey,
    /// A token.
    Token(TokenId),
    /// Being the hub's user on the hub's machine.
    Local,
}

/// Who a session speaks for, and what that allows.
#[derive(Clone, Debug)]
pub struct Who {
    /// For people and programs.
    pub subject: Subject,
    /// What it may do; hosts and strangers have none.
    pub rights: Rights,
    /// What it proved itself with.
    pub credential: Credential,
    /// The account behind it.
    pub user: Option<UserId>,
}

impl Who {
    /// Nobody.
    pub fn anonymous() -> Self {
        Self { subject: Subject::Anonymous, rights: Rights::none(), credential: Credential::None, user: None }
    }

    /// A process of the hub's user on the hub's machine: admin.
    pub fn local(uid: u32, pid: u32) -> Self {
        Self {
            subject: Subject::Local { uid, pid },
            rights: Rights::of(Role::Admin),
            credential: Credential::Local,
            user: None,
        }
    }

    /// The name in records, events and the audit.
    pub fn name(&self) -> String {
        match &self.subject {
            Subject::Anonymous => "anonymous".into(),
            Subject::UnknownHost => "unknown host".into(),
            Subject::Host { name, .. } => format!("host:{name}"),
            Subject::User { name, .. } => name.clone(),
            Subject::Local { uid, .. } => format!("local:{uid}"),
        }
    }

    /// Whose idempotency keys these are: a caller never sees another's replies.
    pub fn caller(&self) -> String {
        match (&self.user, &self.credential, &self.subject) {
            (Some(user), _, _) => format!("user-{user}"),
            (None, Credential::Token(token), _) => format!("token-{token}"),
            (None, _, Subject::Host { id, .. }) => format!("host-{id}"),
            (None, _, Subject::Local { uid, .. }) => format!("local-{uid}"),
            _ => "anonymous".into(),
        }
    }

    /// The host that it is.
    pub fn host(&self) -> Option<HostId> {
        match &self.subject {
            Subject::Host { id, .. } => Some(*id),
            _ => None,
        }
    }

    fn still_stands(&self, view: &View, now: datacentered_proto::Timestamp) -> bool {
        match &self.credential {
            Credential::None | Credential::Local => true,
            Credential::HostKey => match &self.subject {
                Subject::Host { id, .. } => view.hosts.get(id).is_some_and(|host| host.revoked.is_none()),
                _ => true,
            },
            Credential::Token(id) => view.tokens.get(id).is_some_and(|token| {
                let account_stands = match (&token.user, &token.user_name) {
                    (Some(user), Some(name)) => {
                        view.users.get(name).is_some_and(|account| account.id == *user)
                    }
                    _ => true,
                };
                !token.revoked && token.expires > now && account_stands
            }),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The other end.
    pub peer: Peer,
    /// The key of the TLS client certificate, on the agents' side of the port.
    pub host_key: Option<HostKey>,
    /// Cancelled when what it proved itself with is no longer good: everything of it ends.
    pub cancel: CancellationToken,
    who: ArcSwap<Who>,
    refusals: AtomicU32,
}

impl Session {
    /// Opens a session and registers it.
    ///
    /// Errors: `limited` when there are too many.
    pub fn open(
        hub: &Arc<Hub>,
        peer: Peer,
        host_key: Option<HostKey>,
        initial: Who,
    ) -> Result<Arc<Self>, Error> {
        let session = Arc::new(Self {
            id: SessionId::from_uuid(hub.clock.uuid()),
            peer,
            host_key,
            cancel: hub.stop.child_token(),
            who: ArcSwap::from_pointee(initial),
            refusals: AtomicU32::new(0),
        });
        hub.sessions.register(&session)?;
        Ok(session)
    }

    /// Who it speaks for now.
    pub fn who(&self) -> Arc<Who> {
        self.who.load_full()
    }

    /// Counts a refusal; false once one more would only fill the audit.
    pub(crate) fn may_be_refused_again(&self) -> bool {
        self.refusals.fetch_add(1, Ordering::Relaxed) < AUDITED_REFUSALS
    }

    /// It has proved who it speaks for.
    pub fn set_who(&self, who: Who) {
        self.who.store(Arc::new(who));
    }
}

/// Every open session.
#[derive(Debug)]
pub struct Sessions {
    open: Mutex<HashMap<SessionId, Weak<Session>>>,
    limit: usize,
}

impl Sessions {
    /// Room for `limit` sessions.
    pub fn new(limit: usize) -> Self {
        Self { open: Mutex::new(HashMap::new()), limit }
    }

    fn register(&self, session: &Arc<Session>) -> Result<(), Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.limit {
            open.retain(|_, session| session.strong_count() > 0);
            if open.len() >= self.limit {
                return Err(Error::limited(format!(
                    "all {} sessions are taken (limits.sessions); close some or raise the limit",
                    self.limit
                ))
                .with_retry_after_ms(1000));
            }
        }
        open.insert(session.id, Arc::downgrade(session));
        Ok(())
    }

    fn all(&self) -> Vec<Arc<Session>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| session.strong_count() > 0);
        open.values().filter_map(Weak::upgrade).collect()
    }

    /// How many sessions speak for people and programs.
    pub fn clients(&self) -> usize {
        self.all()
            .iter()
            .filter(|session| matches!(session.who().subject, Subject::User { .. } | Subject::Local { .. }))
            .count()
    }
}

/// Ends sessions whose credential has ended: at once on revocation, within [`SWEEP`] by time.
pub async fn watch_credentials(hub: Arc<Hub>) {
    let mut changes = hub.store.changes();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = sweep.tick() => {}
            change = changes.recv() => match change {
                Ok(change) if matches!(change.what, Changed::Run(_) | Changed::Job(..)) => continue,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
        // Everything that has queued up meanwhile is covered by this one look.
        while changes.try_recv().is_ok() {}
        let now = hub.clock.wall();
        let sessions = hub.sessions.all();
        let ended: Vec<_> = hub.store.view(|view| {
            sessions.into_iter().filter(|session| !session.who().still_stands(view, now)).collect()
        });
        for session in ended {
            tracing::info!(session = %session.id, who = session.who().name(), "credential ended; closing");
            session.cancel.cancel();
        }
        // A fleet that comes back changes every host at once; one look covers them.
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

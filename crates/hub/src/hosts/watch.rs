//! `host.watch`: the hosts as they stand, then each change, resumable.

use std::collections::HashSet;
use std::sync::Arc;

use datacentered_engine::kv::WatchFrom;
use datacentered_engine::{Error as EngineError, Prefix};
use datacentered_proto::ops::host::{WatchItem, WatchParams};
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::{Cursor, Error, HostId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::selector::Selector;
use super::views::{host_view, parse_selectors, with_traits};
use crate::access::Scope;
use crate::dispatch::Ctx;
use crate::hub::Hub;
use crate::outlet::{self, Body, Outlet, ReaderGone};
use crate::store::records::{HostRecord, Keyed as _};
use crate::store::{Changed, ChangedAt, engine_error};

/// Opens the stream.
pub(super) async fn watch(ctx: Ctx, params: WatchParams) -> Result<(StreamOpened, Body), Error> {
    let selectors = parse_selectors(&ctx.hub, &params.on)?;
    let hub = ctx.hub.clone();
    // Subscribed before anything is looked at, so that nothing falls between.
    let changes = hub.store.changes();
    let since = match &params.cursor {
        None => None,
        Some(cursor) if cursor.epoch == hub.store.epoch() => Some(cursor.offset),
        Some(_) => return Ok(outlet::gone(hub.store.epoch().to_owned())),
    };
    let removed = match since {
        Some(since) => match removed_since(&hub, since).await? {
            Some(removed) => removed,
            None => return Ok(outlet::gone(hub.store.epoch().to_owned())),
        },
        None => Vec::new(),
    };
    let revision = hub.store.view(|view| view.revision);
    let opened = StreamOpened {
        cursor: Some(Cursor::new(hub.store.epoch(), since.unwrap_or(revision))),
        credit: None,
    };
    let body: Body = Box::new(move |mut outlet| {
        Box::pin(async move {
            let mut watcher = Watcher {
                hub,
                scope: ctx.scope.clone(),
                selectors,
                sent: HashSet::new(),
                resumed: since.is_some(),
                cursor: since.unwrap_or(0),
            };
            if let Ok(error) = watcher.follow(since, removed, changes, &mut outlet).await {
                outlet.end(EndReason::Failed, 0, Some(error)).await;
            }
        })
    });
    Ok((opened, body))
}

/// Hosts that left the registry after a revision: only the engine still knows, and it forgets in time.
async fn removed_since(hub: &Hub, since: u64) -> Result<Option<Vec<HostId>>, Error> {
    let prefix = Prefix::from_tokens([HostRecord::KIND]).map_err(engine_error)?;
    let watch = hub.engine.kv().watch(hub.store.bucket(), prefix, WatchFrom::After(since)).await;
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(EngineError::Gap { .. }) => return Ok(None),
        Err(error) => return Err(engine_error(error)),
    };
    let mut removed = Vec::new();
    loop {
        let batch = match watch.next().await {
            Ok(batch) => batch,
            Err(EngineError::Gap { .. }) => return Ok(None),
            Err(error) => return Err(engine_error(error)),
        };
        for change in batch.changes.iter().filter(|change| change.value.is_none()) {
            removed.extend(change.key.tokens().nth(1).and_then(|id| id.parse::<HostId>().ok()));
        }
        if batch.caught_up {
            return Ok(Some(removed));
        }
    }
}

struct Watcher {
    hub: Arc<Hub>,
    /// The hosts that the reader may see.
    scope: Scope,
    selectors: Vec<Selector>,
    sent: HashSet<HostId>,
    /// On a resumed stream the reader may hold hosts that this watcher has not sent.
    resumed: bool,
    /// Everything up to this revision has been sent.
    cursor: u64,
}

impl Watcher {
    /// `Err`: the reader has gone. `Ok`: why the stream ends.
    async fn follow(
        &mut self,
        since: Option<u64>,
        removed: Vec<HostId>,
        mut changes: Receiver<ChangedAt>,
        outlet: &mut Outlet,
    ) -> Result<Error, ReaderGone> {
        for id in removed {
            self.send(outlet, WatchItem::Removed { id, name: String::new() }).await?;
        }
        self.send_all(since, outlet).await?;
        self.send(outlet, WatchItem::CaughtUp).await?;
        loop {
            let change = tokio::select! {
                () = outlet.closed() => return Err(ReaderGone),
                change = changes.recv() => change,
            };
            match change {
                Ok(ChangedAt { revision, what }) => {
                    self.cursor = self.cursor.max(revision);
                    match what {
                        Changed::Host(id) => self.send_host(id, outlet).await?,
                        Changed::HostRemoved(id, name) => self.send_removed(id, name, outlet).await?,
                        _ => {}
                    }
                }
                // It fell behind: everything is sent as it stands, deletions by comparing with what was sent.
                Err(RecvError::Lagged(_)) => {
                    let gone: Vec<_> = self.hub.store.view(|view| {
                        self.sent.iter().filter(|id| !view.hosts.contains_key(id)).copied().collect()
                    });
                    for id in gone {
                        self.sent.remove(&id);
                        self.send(outlet, WatchItem::Removed { id, name: String::new() }).await?;
                    }
                    self.send_all(None, outlet).await?;
                }
                Err(RecvError::Closed) => return Ok(Error::unavailable("the hub is going down")),
            }
        }
    }

    async fn send_all(&mut self, since: Option<u64>, outlet: &mut Outlet) -> Result<(), ReaderGone> {
        let (revision, ids): (u64, Vec<HostId>) = self.hub.store.view(|view| {
            let newer = |id: &HostId| {
                let Some(since) = since else { return true };
                view.hosts.get(id).is_some_and(|host| host.revision > since)
                    || view.presence.get(id).is_some_and(|presence| presence.revision > since)
            };
            (view.revision, view.host_names.values().filter(|id| newer(id)).copied().collect())
        });
        for id in ids {
            self.send_host(id, outlet).await?;
        }
        // Only now: a reader that goes away in the middle must get the rest when it resumes.
        self.cursor = self.cursor.max(revision);
        Ok(())
    }

    async fn send_host(&mut self, id: HostId, outlet: &mut Outlet) -> Result<(), ReaderGone> {
        let found = self.hub.store.view(|view| {
            let record = view.hosts.get(&id)?;
            let visible = self.scope.allows(&self.hub, record);
            let chosen = self.selectors.is_empty()
                || with_traits(&self.hub, record, |traits| {
                    self.selectors.iter().any(|one| one.matches(traits))
                });
            Some((visible && chosen, host_view(&self.hub, view, record)))
        });
        match found {
            Some((true, host)) => {
                self.sent.insert(id);
                self.send(outlet, WatchItem::Host { host: Box::new(host) }).await
            }
            Some((false, host)) => self.send_removed(id, host.name, outlet).await,
            None => Ok(()),
        }
    }

    /// The host left the registry, the selection, or what the reader may see.
    async fn send_removed(
        &mut self,
        id: HostId,
        name: String,
        outlet: &mut Outlet,
    ) -> Result<(), ReaderGone> {
        let known = self.sent.remove(&id);
        if !known && !self.resumed {
            return Ok(());
        }
        // A reader that may not have seen the host learns nothing but an id that means nothing to it.
        let name = if known || !self.scope.is_limited() { name } else { String::new() };
        self.send(outlet, WatchItem::Removed { id, name }).await
    }

    async fn send(&self, outlet: &mut Outlet, item: WatchItem) -> Result<(), ReaderGone> {
        outlet.item(&Cursor::new(self.hub.store.epoch(), self.cursor), &item).await
    }
}

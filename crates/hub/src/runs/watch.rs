//! `run.watch`: every target as it stands, then each change, until all have ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datacentered_proto::ops::run::WatchParams;
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::{Cursor, Error, HostId, JobId, RunId};
use tokio::sync::broadcast::error::RecvError;

use super::views;
use crate::access::Scope;
use crate::dispatch::Ctx;
use crate::hub::Hub;
use crate::outlet::{self, Body, Outlet, ReaderGone};
use crate::store::records::TargetRef;
use crate::store::{Changed, ChangedAt};

pub(super) async fn watch(ctx: Ctx, params: WatchParams) -> Result<(StreamOpened, Body), Error> {
    let hub = ctx.hub.clone();
    views::find(&hub, &ctx.scope, params.run)?;
    let since = match &params.cursor {
        Some(cursor) if cursor.epoch == hub.store.epoch() => cursor.offset,
        Some(_) => return Ok(outlet::gone(hub.store.epoch().to_owned())),
        None => 0,
    };
    let opened = StreamOpened { cursor: Some(Cursor::new(hub.store.epoch(), since)), credit: None };
    let scope = ctx.scope.clone();
    let body: Body = Box::new(move |outlet| Box::pin(follow(hub, scope, params.run, since, outlet)));
    Ok((opened, body))
}

struct Watcher {
    hub: Arc<Hub>,
    /// The hosts whose targets the reader may see.
    scope: Scope,
    run: RunId,
    targets: Vec<TargetRef>,
    by_job: HashMap<JobId, usize>,
    by_host: HashMap<HostId, usize>,
    /// Everything up to this revision has been sent.
    cursor: u64,
}

async fn follow(hub: Arc<Hub>, scope: Scope, run: RunId, since: u64, mut outlet: Outlet) {
    let mut watcher = Watcher {
        hub,
        scope,
        run,
        targets: Vec::new(),
        by_job: HashMap::new(),
        by_host: HashMap::new(),
        cursor: since,
    };
    match watcher.follow(since, &mut outlet).await {
        Ok(None) => outlet.end(EndReason::Done, watcher.cursor, None).await,
        Ok(Some(error)) => outlet.end(EndReason::Failed, watcher.cursor, Some(error)).await,
        Err(ReaderGone) => {}
    }
}

impl Watcher {
    /// `Ok(None)`: all have ended and been sent.
    async fn follow(&mut self, since: u64, outlet: &mut Outlet) -> Result<Option<Error>, ReaderGone> {
        // Subscribed before anything is looked at, so that nothing falls between.
        let mut changes = self.hub.store.changes();
        let mut progress = self.hub.progress.changes();
        self.load();
        self.send_all(since, outlet).await?;
        loop {
            if self.over() {
                return Ok(None);
            }
            tokio::select! {
                () = outlet.closed() => return Err(ReaderGone),
                change = changes.recv() => match change {
                    Ok(ChangedAt { revision, what }) => {
                        self.cursor = self.cursor.max(revision);
                        match what {
                            Changed::Job(run, job) if run == self.run => self.send_job(job, outlet).await?,
                            Changed::Host(host) => self.send_host(host, outlet).await?,
                            Changed::Run(run) if run == self.run => self.load(),
                            _ => {}
                        }
                    }
                    Err(RecvError::Lagged(_)) => self.send_all(self.cursor, outlet).await?,
                    Err(RecvError::Closed) => return Ok(Some(Error::unavailable("the hub is going down"))),
                },
                change = progress.recv() => match change {
                    Ok((run, job)) if run == self.run => self.send_job(job, outlet).await?,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.send_all(self.cursor, outlet).await?,
                    Err(RecvError::Closed) => return Ok(Some(Error::unavailable("the hub is going down"))),
                },
            }
        }
    }

    fn load(&mut self) {
        let targets = self
            .hub
            .store
            .view(|view| view.runs.get(&self.run).and_then(|run| view.targets(run)))
            .unwrap_or_default();
        self.by_job = targets.iter().enumerate().map(|(index, target)| (target.job, index)).collect();
        self.by_host = targets.iter().enumerate().map(|(index, target)| (target.host, index)).collect();
        self.targets = targets;
    }

    /// Over when the run has ended, or is no longer kept.
    fn over(&self) -> bool {
        self.hub.store.view(|view| {
            let Some(run) = view.runs.get(&self.run) else { return true };
            // Nothing may be left unsent.
            run.ended.is_some() && self.jobs_sent(view)
        })
    }

    fn jobs_sent(&self, view: &crate::store::View) -> bool {
        let mut seen =
            self.targets.iter().filter(|target| self.scope.allows_id(&self.hub, view, target.host));
        seen.all(|target| view.jobs.get(&target.job).is_none_or(|job| job.revision <= self.cursor))
    }

    /// Targets that changed behind a revision, and all that have not ended: those may have moved without one.
    async fn send_all(&mut self, since: u64, outlet: &mut Outlet) -> Result<(), ReaderGone> {
        let (revision, chosen) = self.hub.store.view(|view| {
            let chosen: HashSet<usize> = (self.targets.iter().enumerate())
                .filter(|(_, target)| {
                    view.jobs.get(&target.job).is_none_or(|job| job.revision > since || job.outcome.is_none())
                })
                .map(|(index, _)| index)
                .collect();
            (view.revision, chosen)
        });
        for index in 0..self.targets.len() {
            if chosen.contains(&index) {
                self.send(index, outlet).await?;
            }
        }
        // Only now: a reader that goes away in the middle must get the rest when it resumes.
        self.cursor = self.cursor.max(revision);
        Ok(())
    }

    async fn send_job(&self, job: JobId, outlet: &mut Outlet) -> Result<(), ReaderGone> {
        match self.by_job.get(&job) {
            Some(index) => self.send(*index, outlet).await,
            None => Ok(()),
        }
    }

    /// Its link came or went: the mark `unknown` may have changed.
    async fn send_host(&self, host: HostId, outlet: &mut Outlet) -> Result<(), ReaderGone> {
        let Some(index) = self.by_host.get(&host) else { return Ok(()) };
        let ended = self.targets.get(*index).is_some_and(|target| {
            self.hub.store.view(|view| view.jobs.get(&target.job).is_some_and(|job| job.outcome.is_some()))
        });
        if ended { Ok(()) } else { self.send(*index, outlet).await }
    }

    async fn send(&self, index: usize, outlet: &mut Outlet) -> Result<(), ReaderGone> {
        let Some(target) = self.targets.get(index) else { return Ok(()) };
        let item = self.hub.store.view(|view| {
            let visible = self.scope.allows_id(&self.hub, view, target.host);
            visible.then(|| views::target_of(&self.hub, view, target))
        });
        let Some(item) = item else { return Ok(()) };
        outlet.item(&Cursor::new(self.hub.store.epoch(), self.cursor), &item).await
    }
}

//! The handle of a client.

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::Link;
use datacentered_link::clock::Clock;
use datacentered_link::url::HubUrl;
use datacentered_proto::operations::{RunWatch, StreamOperation};
use datacentered_proto::ops::StreamOpen;
use datacentered_proto::ops::run::WatchParams;
use datacentered_proto::ops::session::HelloReply;
use datacentered_proto::rpc::{self, Cause};
use datacentered_proto::{Cursor, Operation, RunId};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bytes_stream::ByteStream;
use crate::config::ClientConfig;
use crate::connect;
use crate::error::Error;
use crate::input::InputWriter;
use crate::items::{ItemStream, RawItemStream};
use crate::output::{OutputStream, TerminalStart};
use crate::retry::Retry;
use crate::supervisor::{self, State};

/// A connection to a hub that comes back by itself. Clones share it; it ends when the last of them is dropped, or with
/// [`Self::close`].
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    /// Dropping it stops the supervisor.
    _stop_on_drop: DropGuard,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// Connects: every configured hub is tried once, in order.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let connected = connect::connect_first(&config).await?;
        let up = State::Up { link: connected.link.clone(), hello: connected.hello.clone() };
        let (sender, state) = watch::channel(up);
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervisor::run(config.clone(), connected, sender, stop.clone()));
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                state,
                _stop_on_drop: stop.clone().drop_guard(),
                stop,
                supervisor: Mutex::new(Some(supervisor)),
            }),
        })
    }

    /// Ends the link in good order, for all clones, and waits until that is done.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        if let Some(supervisor) = self.inner.supervisor.lock().await.take() {
            // It ends with the token; a panic in it has been reported by then.
            supervisor.await.ok();
        }
    }

    /// What the hub said when the latest link was made; none while there is no link.
    pub fn hello(&self) -> Option<HelloReply> {
        match &*self.inner.state.borrow() {
            State::Up { hello, .. } => Some(hello.clone()),
            State::Down { .. } | State::Ended(_) => None,
        }
    }

    /// How the connection stands, for whoever shows it to a person. It does not keep the client alive.
    pub fn connection(&self) -> Connection {
        Connection { state: self.inner.state.clone(), patience: self.inner.config.reconnect_timeout }
    }

    /// Where the hub is, as configured.
    pub fn urls(&self) -> &[HubUrl] {
        &self.inner.config.urls
    }

    /// The source of time and of fresh keys.
    pub fn clock(&self) -> &Clock {
        &self.inner.config.clock
    }

    /// Calls an operation, again and again over new links where its answer was lost, until
    /// [`ClientConfig::reconnect_timeout`] has passed.
    ///
    /// That is safe because a change carries its key in `params`: the hub answers a repeat with the first reply.
    pub async fn call<O: Operation>(&self, params: &O::Params) -> Result<O::Reply, Error> {
        let name = O::SPEC.name;
        let params = rpc::raw(params).map_err(|error| Error::refused(name, error))?;
        let reply = self.call_raw(name, &params).await?;
        serde_json::from_str(reply.get()).map_err(|error| {
            let told = format!("the hub's reply is not understood ({error}); is it of another version?");
            Error::refused(name, datacentered_proto::Error::internal(told))
        })
    }

    /// As [`Self::call`], with everything unparsed. Parameters of a change must carry their key.
    pub async fn call_raw(&self, operation: &str, params: &RawValue) -> Result<Box<RawValue>, Error> {
        let mut retry = self.retry();
        loop {
            let link = self.link().await?;
            match link.call_raw(operation, params, Cause::default()).await {
                Ok(reply) => return Ok(reply),
                Err(error) => retry.wait(error).await.map_err(|error| Error::refused(operation, error))?,
            }
        }
    }

    /// Opens a stream of items. `make` gives the parameters for going on behind a cursor, or for the beginning.
    pub fn items<O: StreamOperation>(
        &self,
        make: impl Fn(Option<Cursor>, StreamOpen) -> O::Params + Send + Sync + 'static,
    ) -> ItemStream<O::Item> {
        ItemStream::new(RawItemStream::new(
            self.clone(),
            O::SPEC.name.to_owned(),
            None,
            Box::new(move |cursor, open| rpc::raw(&make(cursor, open))),
        ))
    }

    /// As [`Self::items`], with everything unparsed; `from` is where it begins.
    pub fn items_raw(
        &self,
        operation: &str,
        from: Option<Cursor>,
        make: impl Fn(Option<Cursor>, StreamOpen) -> datacentered_proto::Result<Box<RawValue>>
        + Send
        + Sync
        + 'static,
    ) -> RawItemStream {
        RawItemStream::new(self.clone(), operation.to_owned(), from, Box::new(make))
    }

    /// Every target of a run as it stands, then each change, until all have ended.
    pub fn watch_run(&self, run: RunId) -> ItemStream<datacentered_proto::ops::run::Target> {
        self.items::<RunWatch>(move |cursor, stream| WatchParams { run, cursor, stream })
    }

    /// One target's output from byte `from` on, exactly once each, across lost links and restarts of the hub.
    ///
    /// `host` is a name or id; it may be left out where the run has one target.
    pub fn output(&self, run: RunId, host: Option<String>, from: u64) -> OutputStream {
        OutputStream::target(self.clone(), run, host, from)
    }

    /// The standard input of a run's targets.
    pub fn input(&self, run: RunId) -> InputWriter {
        InputWriter::new(self.clone(), run, None)
    }

    /// What a terminal printed, exactly once each byte, across lost links and restarts of the hub. Between frames of kind
    /// `terminal` come marks that say when and how large the window was; several may come as one.
    pub fn terminal_output(&self, run: RunId, start: TerminalStart) -> OutputStream {
        OutputStream::terminal(self.clone(), run, start)
    }

    /// One writer at a terminal, beside others.
    pub fn terminal_input(&self, run: RunId) -> InputWriter {
        InputWriter::new(self.clone(), run, Some(self.clock().key()))
    }

    /// Opens a stream of bytes that cannot be resumed, such as a backup.
    pub async fn bytes<O: Operation>(
        &self,
        make: impl Fn(StreamOpen) -> O::Params,
    ) -> Result<ByteStream, Error> {
        let mut retry = self.retry();
        loop {
            let link = self.link().await?;
            match link.open::<O>(0, &make).await {
                Ok((_, reader)) => return Ok(ByteStream::new(O::SPEC.name, reader)),
                Err(error) => retry.wait(error).await.map_err(|error| Error::refused(O::SPEC.name, error))?,
            }
        }
    }

    /// A link that is up; waits while it is being made again.
    pub(crate) async fn link(&self) -> Result<Link, Error> {
        let mut state = self.inner.state.clone();
        loop {
            match &*state.borrow_and_update() {
                // The supervisor learns a moment later than the link itself that it has ended.
                State::Up { link, .. } if !link.is_closed() => return Ok(link.clone()),
                State::Ended(error) => return Err(error.clone()),
                State::Up { .. } | State::Down { .. } => {}
            }
            if state.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Attempts for something new.
    pub(crate) fn retry(&self) -> Retry {
        Retry::new(self.inner.config.clock.clone(), self.inner.config.reconnect_timeout)
    }
}

/// How the connection of a [`Client`] stands.
#[derive(Clone, Debug)]
pub struct Connection {
    state: watch::Receiver<State>,
    patience: Duration,
}

impl Connection {
    /// How long a lost link is tried again.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Waits until the link is lost; waits for ever when the client has ended.
    pub async fn lost(&mut self) {
        self.until(|state| matches!(state, State::Down { .. })).await;
    }

    /// Waits until there is a link again; waits for ever when the client has ended.
    pub async fn restored(&mut self) {
        self.until(|state| matches!(state, State::Up { .. })).await;
    }

    /// Why there is no link now; none while there is one.
    pub fn reason(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down { reason } => Some(reason.clone()),
            State::Up { .. } | State::Ended(_) => None,
        }
    }

    async fn until(&mut self, so: impl FnMut(&State) -> bool) {
        let ended = self.state.wait_for(so).await.is_err();
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

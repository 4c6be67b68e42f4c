//! Runs one connection: reads what is readable, writes what is ready, flushes once, keeps the heartbeat.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use datacentered_proto::Operation;
use datacentered_proto::limits::BULK_CHUNK;
use datacentered_proto::operations::LinkPing;
use datacentered_proto::ops::NoParams;
use datacentered_proto::rpc::{self, Cause};
use futures_util::future::BoxFuture;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::close::CloseReason;
use crate::dispatch::Dispatcher;
use crate::gate::Gate;
use crate::handler::Handler;
use crate::link::Link;
use crate::state::Control;

/// Messages handled before what they caused is written, in messages.
const READ_BATCH: usize = 256;

/// Written between two looks at the read side, in bytes.
const WRITE_BATCH: usize = 256 * 1024;

/// Rounds of reading and writing before others on the same thread get their turn.
const ROUNDS: usize = 8;

/// Discarded at most after the other side broke the protocol, so that it can still read why, in bytes.
const LINGER: usize = 1024 * 1024;

/// Longest reason in a close frame (RFC 6455: 125 bytes with the code).
const MAX_CLOSE_REASON: usize = 120;

/// A busy link is pinged too, after this many heartbeats, so that its round trip is known.
const BUSY_PING: u32 = 4;

/// Runs a connection until it has ended; resolves to why. Whoever holds it owns everything that runs for the link.
///
/// The link has ended as soon as [`Link::closed`] resolves; the driver then still takes leave of the other side and gives
/// handlers [`crate::Limits::drain_timeout_ms`] to finish. Dropping it ends the link at once.
#[must_use = "nothing moves on a link unless its driver is polled"]
pub struct Driver {
    run: BoxFuture<'static, CloseReason>,
}

impl Driver {
    pub(crate) fn new<S>(ws: WebSocketStream<S>, link: Link, handler: Arc<dyn Handler>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Connection {
            ws,
            read_gate: Gate::open(),
            write_gate: Gate::open(),
            blocked: false,
            unflushed: false,
            rest: Bytes::new(),
            timer: None,
            close_by: None,
            next_busy_ping: None,
            dispatcher: Dispatcher { link, handler, tasks: JoinSet::new() },
        };
        Self { run: Box::pin(connection.run()) }
    }
}

impl Future for Driver {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.run.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

struct Connection<S> {
    ws: WebSocketStream<S>,
    read_gate: Arc<Gate>,
    write_gate: Arc<Gate>,
    /// The socket takes no more for now.
    blocked: bool,
    unflushed: bool,
    /// What is still to be sent of a large message.
    rest: Bytes,
    timer: Option<Pin<Box<Sleep>>>,
    /// When a close in good order has to be done.
    close_by: Option<Instant>,
    next_busy_ping: Option<Instant>,
    dispatcher: Dispatcher,
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        // Does nothing where the link has ended already.
        self.dispatcher.link.shared().end(&CloseReason::Dropped);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(mut self) -> CloseReason {
        let reason = std::future::poll_fn(|cx| self.poll_open(cx)).await;
        let shared = self.dispatcher.link.shared().clone();
        shared.end(&reason);
        tracing::debug!(link = shared.id, %reason, "link ended");
        let _ = timeout(shared.limits.close_timeout(), self.take_leave(&reason)).await;
        let tasks = &mut self.dispatcher.tasks;
        let drained = async { while tasks.join_next().await.is_some() {} };
        if timeout(shared.limits.drain_timeout(), drained).await.is_err() {
            tracing::warn!(
                link = shared.id,
                left = tasks.len(),
                "handlers were stopped after their link had ended"
            );
            tasks.shutdown().await;
        }
        reason
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.read_gate.register(cx.waker());
        self.write_gate.register(cx.waker());
        while self.dispatcher.tasks.try_join_next().is_some() {}
        if let Err(reason) = self.heartbeat(cx) {
            return Poll::Ready(reason);
        }
        for _ in 0..ROUNDS {
            match self.read().and_then(|()| self.write()) {
                Err(reason) => return Poll::Ready(reason),
                Ok(()) => {
                    if self.is_drained() {
                        return Poll::Ready(self.dispatcher.link.shared().with(|state| state.why_not_open()));
                    }
                }
            }
            if self.can_sleep(cx.waker()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Handles every message that is readable, up to a batch.
    fn read(&mut self) -> Result<(), CloseReason> {
        if self.is_paused() || !self.read_gate.take() {
            return Ok(());
        }
        let waker = Waker::from(self.read_gate.clone());
        let mut cx = Context::from_waker(&waker);
        let mut heard = false;
        let result = loop_batch(READ_BATCH, || {
            match Pin::new(&mut self.ws).poll_next(&mut cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Ok(message))) => {
                    heard = true;
                    self.dispatcher.message(message)?;
                }
                Poll::Ready(Some(Err(error))) => return Err(CloseReason::from_websocket(error)),
                Poll::Ready(None) => {
                    return Err(CloseReason::Lost { detail: "the other side ended the connection".into() });
                }
            }
            Ok(!is_paused(&self.dispatcher.link))
        });
        if heard {
            self.dispatcher.link.shared().with(|state| state.last_heard = Instant::now());
        }
        match result? {
            Batch::Waiting if !self.is_paused() => {}
            Batch::Waiting | Batch::Full => self.read_gate.set(),
        }
        Ok(())
    }

    /// Writes what is ready and flushes once.
    fn write(&mut self) -> Result<(), CloseReason> {
        if self.blocked && !self.write_gate.take() {
            return Ok(());
        }
        self.blocked = false;
        let waker = Waker::from(self.write_gate.clone());
        let mut cx = Context::from_waker(&waker);
        let mut written = 0;
        while written < WRITE_BATCH {
            match Pin::new(&mut self.ws).poll_ready(&mut cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(CloseReason::from_websocket(error)),
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(());
                }
            }
            let Some(message) = self.next_message() else { break };
            written += message.len();
            self.unflushed = true;
            Pin::new(&mut self.ws).start_send(message).map_err(CloseReason::from_websocket)?;
        }
        if self.unflushed {
            match Pin::new(&mut self.ws).poll_flush(&mut cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(CloseReason::from_websocket(error)),
                Poll::Pending => self.blocked = true,
            }
        }
        Ok(())
    }

    /// The next message for the wire. A large one goes in fragments, because the buffers of both ends keep the size of the
    /// largest frame that ever went through them.
    fn next_message(&mut self) -> Option<Message> {
        let (first, mut payload) = if self.rest.is_empty() {
            match self.dispatcher.link.shared().next_message()? {
                Message::Text(text) if text.len() > BULK_CHUNK => (true, Bytes::from(text)),
                message => return Some(message),
            }
        } else {
            (false, std::mem::take(&mut self.rest))
        };
        self.rest = payload.split_off(payload.len().min(BULK_CHUNK));
        let opcode = OpCode::Data(if first { Data::Text } else { Data::Continue });
        Some(Message::Frame(Frame::message(payload, opcode, self.rest.is_empty())))
    }

    /// Whether so much waits for the other side that nothing more is read from it.
    fn is_paused(&self) -> bool {
        is_paused(&self.dispatcher.link)
    }

    fn is_drained(&self) -> bool {
        !self.unflushed
            && self.rest.is_empty()
            && self.dispatcher.link.shared().with(|state| state.closing.is_some() && state.control_is_empty())
    }

    fn can_sleep(&self, waker: &Waker) -> bool {
        let readable = self.read_gate.is_open() && !self.is_paused();
        let writable = self.blocked && self.write_gate.is_open();
        let sending = !self.rest.is_empty() && !self.blocked;
        !readable
            && !writable
            && !sending
            && self.dispatcher.link.shared().with(|state| state.park(waker, self.blocked))
    }

    /// Asks for a sign of life when there was none for a while, and gives up after longer.
    fn heartbeat(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let shared = self.dispatcher.link.shared().clone();
        let (beat, silence) = (shared.limits.heartbeat(), shared.limits.silence());
        loop {
            let now = Instant::now();
            let (heard, closing, pinging) =
                shared.with(|state| (state.last_heard, state.closing.is_some(), state.ping.is_some()));
            if closing {
                let by = *self.close_by.get_or_insert(now + shared.limits.close_timeout());
                if now >= by {
                    return Err(shared.with(|state| state.why_not_open()));
                }
            }
            let quiet = now.saturating_duration_since(heard);
            if quiet >= silence {
                return Err(CloseReason::Silent { silence: quiet });
            }
            let busy_ping = *self.next_busy_ping.get_or_insert(now + beat);
            if (quiet >= beat || now >= busy_ping) && !pinging {
                self.ping(now);
                self.next_busy_ping = Some(now + beat * BUSY_PING);
            }
            // The next moment at which one of the above can change.
            let next = if quiet < beat { heard + beat } else { heard + silence };
            let busy_ping = self.next_busy_ping.filter(|_| !pinging).unwrap_or(next);
            let next = [Some(next), Some(busy_ping.max(now + Duration::from_millis(1))), self.close_by]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(next);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if timer.deadline() != next {
                // A deadline that only moved further away is looked at again when it comes.
                if next < timer.deadline() || timer.is_elapsed() {
                    timer.as_mut().reset(next);
                }
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    fn ping(&mut self, now: Instant) {
        let shared = self.dispatcher.link.shared();
        let Ok(params) = rpc::raw(&NoParams {}) else { return };
        let id = shared.next_call_id();
        let text = rpc::request(id, LinkPing::SPEC.name, &params, &Cause::default());
        shared.with(|state| {
            state.ping = Some((id, now));
            state.push(Control::Text(text));
        });
    }

    /// Tells the other side why, waits for its answer, and closes the connection beneath.
    async fn take_leave(&mut self, reason: &CloseReason) {
        let told = match reason {
            CloseReason::Closed { reason } => reason.clone(),
            CloseReason::ClosedByPeer { .. } | CloseReason::Lost { .. } => String::new(),
            other => other.to_string(),
        };
        let tell = !matches!(reason, CloseReason::ClosedByPeer { .. } | CloseReason::Lost { .. });
        if tell {
            let frame = CloseFrame { code: reason.close_code(), reason: shortened(&told) };
            let sent = std::future::poll_fn(|cx| {
                match Pin::new(&mut self.ws).poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                }
                Poll::Ready(Pin::new(&mut self.ws).start_send(Message::Close(Some(frame.clone()))))
            })
            .await;
            if sent.is_err() {
                return;
            }
        }
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self.ws).poll_flush(cx)).await;
        // Until the other side has answered with its own close, or the socket has ended.
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut self.ws).poll_next(cx)).await {}
        if matches!(reason, CloseReason::TooLarge { .. } | CloseReason::Protocol { .. }) {
            self.linger().await;
        }
        let _ = std::future::poll_fn(|cx| Pin::new(self.ws.get_mut()).poll_shutdown(cx)).await;
    }

    /// Reads and forgets, because a connection closed with bytes unread is reset and the other side never sees why.
    async fn linger(&mut self) {
        let mut buffer = [0; 1024];
        let mut left = LINGER;
        while left > 0 {
            let mut read = ReadBuf::new(&mut buffer);
            let socket = self.ws.get_mut();
            let done = std::future::poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut read)).await;
            let len = read.filled().len();
            if done.is_err() || len == 0 {
                return;
            }
            left = left.saturating_sub(len);
        }
    }
}

enum Batch {
    /// There is nothing more for now.
    Waiting,
    /// There may be more.
    Full,
}

/// Repeats `step` until it has nothing more or the batch is full.
fn loop_batch(
    size: usize,
    mut step: impl FnMut() -> Result<bool, CloseReason>,
) -> Result<Batch, CloseReason> {
    for _ in 0..size {
        if !step()? {
            return Ok(Batch::Waiting);
        }
    }
    Ok(Batch::Full)
}

fn is_paused(link: &Link) -> bool {
    let shared = link.shared();
    shared.with(|state| state.control_load().0) >= shared.limits.control_queue
}

fn shortened(text: &str) -> Utf8Bytes {
    let mut end = text.len().min(MAX_CLOSE_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Utf8Bytes::from(&text[..end])
}

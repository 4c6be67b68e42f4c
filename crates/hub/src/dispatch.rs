//! From the name of an operation to its handler: authorisation, idempotency, audit, one way for every carrier.

mod changing;
mod table;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datacentered_link::{Answer, BoxFuture, Called, Handler, Link, Request};
use datacentered_proto::operations::{Effect, OperationSpec, find};
use datacentered_proto::ops::{NoParams, StreamOpen};
use datacentered_proto::rpc::{self, Cause, unknown_operation};
use datacentered_proto::{Error, Served as ServedBy};
use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::access::{Scope, authorize};
use crate::hub::Hub;
use crate::outlet::Outlet;
use crate::sessions::{Session, Who};

pub use changing::{ChangeCtx, expired_replies, params_hash};
pub use table::{Table, build};

/// What every handler gets.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// The hub.
    pub hub: Arc<Hub>,
    /// The connection.
    pub session: Arc<Session>,
    /// Who called, as of the call.
    pub who: Arc<Who>,
    /// On which hosts the caller may do this. Asked about each host, at the moment that it is touched or shown.
    pub scope: Scope,
    /// Where the call came from.
    pub cause: Cause,
    /// The operation.
    pub spec: &'static OperationSpec,
    /// The link it came over; HTTP has none.
    pub link: Option<Link>,
    /// The parameters as they came.
    pub raw_params: Arc<RawValue>,
}

/// How a call is answered.
pub enum Served {
    /// With a reply.
    Reply(Box<RawValue>),
    /// With a stream that the hub writes.
    Stream {
        /// The opening reply.
        opened: Box<RawValue>,
        /// The caller's half of the opening.
        open: StreamOpen,
        /// Items or bytes.
        effect: Effect,
        /// Writes the stream.
        run: StreamBody,
    },
    /// With a stream that the caller writes; needs a link.
    Upload {
        /// The opening reply.
        opened: Box<RawValue>,
        /// The caller's half of the opening.
        open: StreamOpen,
        /// The first offset that the caller will send.
        from: u64,
        /// Reads the stream.
        run: UploadBody,
    },
}

/// Writes a stream.
pub type StreamBody = Box<dyn FnOnce(Outlet) -> BoxFuture<'static, ()> + Send>;

/// Reads a stream.
pub type UploadBody = Box<dyn FnOnce(datacentered_link::StreamReader) -> BoxFuture<'static, ()> + Send>;

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reply(_) => "Reply",
            Self::Stream { .. } => "Stream",
            Self::Upload { .. } => "Upload",
        })
    }
}

/// Calls an operation for a session.
pub async fn call(
    hub: &Arc<Hub>,
    session: &Arc<Session>,
    method: &str,
    params: Option<&RawValue>,
    cause: Cause,
    link: Option<Link>,
) -> Result<Served, Error> {
    let started = hub.clock.boot();
    let spec =
        find(method).filter(|spec| spec.served == ServedBy::Hub).ok_or_else(|| unknown_operation(method))?;
    let who = session.who();
    let raw_params: Arc<RawValue> = match params {
        Some(params) => params.to_owned().into(),
        None => rpc::raw(&NoParams {})?.into(),
    };
    let scope = authorize(hub, &who, spec);
    let (scope, refused) = match scope {
        Ok(scope) => (scope, None),
        Err(error) => (Scope::default(), Some(error)),
    };
    let ctx = Ctx { hub: hub.clone(), session: session.clone(), who, scope, cause, spec, link, raw_params };
    let result = match refused {
        None => {
            let work = AssertUnwindSafe(hub.table.call(ctx, params)).catch_unwind();
            work.await.unwrap_or_else(|_| {
                tracing::error!(operation = method, "an operation panicked; please report this");
                Err(Error::internal(format!("'{method}' failed inside the hub; its log has more")))
            })
        }
        Some(error) => {
            changing::audit_refusal(&ctx, &error).await;
            Err(error)
        }
    };
    let outcome = result.as_ref().err().map(|error| error.code);
    hub.metrics.call(spec.name, outcome, hub.clock.boot().saturating_sub(started));
    result
}

/// The hub's end of a link.
#[derive(Debug)]
pub struct LinkHandler {
    hub: Arc<Hub>,
    session: Arc<Session>,
    greeted: Arc<AtomicBool>,
}

impl LinkHandler {
    /// Answers the calls of one session.
    pub fn new(hub: Arc<Hub>, session: Arc<Session>) -> Self {
        Self { hub, session, greeted: Arc::default() }
    }
}

impl Handler for LinkHandler {
    fn call(&self, request: Request) -> Called {
        let hub = self.hub.clone();
        let session = self.session.clone();
        let greeted = self.greeted.clone();
        Called::Later(Box::pin(async move {
            let hello = request.method == "session.hello";
            let known =
                if hello { greeted.swap(true, Ordering::AcqRel) } else { greeted.load(Ordering::Acquire) };
            if hello == known {
                return Err(if hello {
                    Error::conflict("session.hello was already called on this link")
                } else {
                    Error::unauthenticated("call session.hello first")
                });
            }
            let Request { method, params, cause, link } = request;
            let served = if find(&method).is_some_and(|spec| spec.effect == Effect::Change) {
                to_the_end(&hub, &session, method, params, cause, link).await
            } else {
                call(&hub, &session, &method, params.as_deref(), cause, Some(link)).await
            };
            if hello && served.is_err() {
                greeted.store(false, Ordering::Release);
            }
            let served = served?;
            Ok(match served {
                Served::Reply(reply) => Answer::Reply(reply),
                Served::Stream { opened, open, run, .. } => {
                    require_stream(open)?;
                    Answer::Send {
                        reply: opened,
                        stream: open,
                        body: Box::new(|writer| run(Outlet::Link(writer))),
                    }
                }
                Served::Upload { opened, open, from, run } => {
                    require_stream(open)?;
                    Answer::Receive { reply: opened, stream: open, from, body: run }
                }
            })
        }))
    }
}

/// What has begun to change something is not dropped with the link that asked for it.
async fn to_the_end(
    hub: &Arc<Hub>,
    session: &Arc<Session>,
    method: String,
    params: Option<Box<RawValue>>,
    cause: Cause,
    link: Link,
) -> Result<Served, Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (task_hub, session) = (hub.clone(), session.clone());
    hub.tasks.spawn("change", async move {
        let served = call(&task_hub, &session, &method, params.as_deref(), cause, Some(link)).await;
        // Nobody waits any more where the link is gone.
        let _ = sender.send(served);
    });
    receiver
        .await
        .unwrap_or_else(|_| Err(Error::indeterminate("the hub is going down; repeat with the same key")))
}

fn require_stream(open: StreamOpen) -> Result<(), Error> {
    if open.id == 0 {
        return Err(Error::invalid(
            "this operation opens a stream: give its number and credit as {\"stream\":{\"id\":1,\"credit\":262144}}",
        ));
    }
    Ok(())
}

/// The member `stream` of a streaming operation's parameters.
#[derive(Deserialize)]
struct StreamMember {
    #[serde(default)]
    stream: StreamOpen,
}

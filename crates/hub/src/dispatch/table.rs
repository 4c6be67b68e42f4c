//! The handlers, by operation. A test fails while one that the hub serves has none.

use std::collections::HashMap;
use std::sync::Arc;

use datacentered_link::{BoxFuture, StreamReader};
use datacentered_proto::operations::{Effect, OPERATIONS, Operation};
use datacentered_proto::ops::StreamOpened;
use datacentered_proto::rpc;
use datacentered_proto::{Error, Served as ServedBy};
use serde_json::Value;
use serde_json::value::RawValue;

use super::changing::{self, ChangeCtx};
use super::{Ctx, Served, StreamMember};
use crate::hub::Hub;
use crate::outlet::Outlet;

type HandlerFn =
    Box<dyn Fn(Ctx, Option<&RawValue>) -> BoxFuture<'static, Result<Served, Error>> + Send + Sync>;

/// Puts back into a remembered reply what is not stored.
pub(super) type Replay = fn(&Arc<Hub>, Value) -> Result<Value, Error>;

/// Every handler.
#[derive(Default)]
pub struct Table {
    handlers: HashMap<&'static str, HandlerFn>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

fn failed(error: Error) -> BoxFuture<'static, Result<Served, Error>> {
    Box::pin(std::future::ready(Err(error)))
}

impl Table {
    fn add<O: Operation>(&mut self, effects: &[Effect], handler: HandlerFn) {
        debug_assert!(effects.contains(&O::SPEC.effect), "{} registered with another effect", O::SPEC.name);
        let before = self.handlers.insert(O::SPEC.name, handler);
        debug_assert!(before.is_none(), "{} registered twice", O::SPEC.name);
    }

    /// An operation that reads.
    pub fn read<O, H, F>(&mut self, handler: H)
    where
        O: Operation,
        H: Fn(Ctx, O::Params) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O::Reply, Error>> + Send + 'static,
    {
        self.add::<O>(
            &[Effect::Read],
            Box::new(move |ctx, params| match rpc::params::<O::Params>(params) {
                Ok(params) => {
                    let work = handler(ctx, params);
                    Box::pin(async move { Ok(Served::Reply(rpc::raw(&work.await?)?)) })
                }
                Err(error) => failed(error),
            }),
        );
    }

    /// An operation that changes something: its key, repeats and audit are handled around it.
    pub fn change<O, H, F>(&mut self, handler: H)
    where
        O: Operation,
        H: Fn(ChangeCtx, O::Params) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O::Reply, Error>> + Send + 'static,
    {
        self.change_replayed::<O, _, _>(handler, |_, reply| Ok(reply));
    }

    /// A changing operation whose stored reply is not the whole reply: `replay` puts back what is not stored.
    pub fn change_replayed<O, H, F>(&mut self, handler: H, replay: Replay)
    where
        O: Operation,
        H: Fn(ChangeCtx, O::Params) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O::Reply, Error>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add::<O>(
            &[Effect::Change],
            Box::new(move |ctx, params| {
                let typed = match rpc::params::<O::Params>(params) {
                    Ok(typed) => typed,
                    Err(error) => return failed(error),
                };
                let handler = handler.clone();
                Box::pin(async move {
                    let work = move |ctx| {
                        let reply = handler(ctx, typed);
                        async move { rpc::raw(&reply.await?) }
                    };
                    changing::once(ctx, work, replay).await.map(Served::Reply)
                })
            }),
        );
    }

    /// A changing operation that remembers its repeats in its own record.
    pub fn change_self_keyed<O, H, F>(&mut self, handler: H)
    where
        O: Operation,
        H: Fn(Ctx, O::Params) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O::Reply, Error>> + Send + 'static,
    {
        self.add::<O>(
            &[Effect::Change],
            Box::new(move |ctx, params| match rpc::params::<O::Params>(params) {
                Ok(params) => {
                    let work = handler(ctx, params);
                    Box::pin(async move { Ok(Served::Reply(rpc::raw(&work.await?)?)) })
                }
                Err(error) => failed(error),
            }),
        );
    }

    /// An operation that opens a stream which the hub writes. The handler checks and answers the opening, and returns
    /// what writes the stream.
    pub fn stream<O, H, F, B, BF>(&mut self, handler: H)
    where
        O: Operation<Reply = StreamOpened>,
        H: Fn(Ctx, O::Params) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(StreamOpened, B), Error>> + Send + 'static,
        B: FnOnce(Outlet) -> BF + Send + 'static,
        BF: Future<Output = ()> + Send + 'static,
    {
        self.add::<O>(
            &[Effect::Items, Effect::Bytes],
            Box::new(move |ctx, params| {
                let parsed = rpc::params::<StreamMember>(params)
                    .and_then(|member| Ok((member.stream, rpc::params::<O::Params>(params)?)));
                let (mut open, params) = match parsed {
                    Ok(parsed) => parsed,
                    Err(error) => return failed(error),
                };
                let cancel = ctx.session.cancel.clone();
                let work = handler(ctx, params);
                Box::pin(async move {
                    let (opened, body) = work.await?;
                    // A stream whose caller learns only now where it begins waits for credit from there.
                    open.credit = opened.credit.map_or(open.credit, |most| open.credit.min(most));
                    Ok(Served::Stream {
                        opened: rpc::raw(&opened)?,
                        open,
                        effect: O::SPEC.effect,
                        run: Box::new(move |outlet| {
                            Box::pin(async move {
                                // The permission to read is the session's; with it the stream ends.
                                tokio::select! {
                                    () = body(outlet) => {}
                                    () = cancel.cancelled() => {}
                                }
                            })
                        }),
                    })
                })
            }),
        );
    }

    /// An operation that opens a stream which the caller writes. The handler also returns the first offset it expects.
    pub fn upload<O, H, F, B, BF>(&mut self, handler: H)
    where
        O: Operation<Reply = StreamOpened>,
        H: Fn(Ctx, O::Params) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(StreamOpened, u64, B), Error>> + Send + 'static,
        B: FnOnce(StreamReader) -> BF + Send + 'static,
        BF: Future<Output = ()> + Send + 'static,
    {
        self.add::<O>(
            &[Effect::Upload],
            Box::new(move |ctx, params| {
                let parsed = rpc::params::<StreamMember>(params)
                    .and_then(|member| Ok((member.stream, rpc::params::<O::Params>(params)?)));
                let (open, params) = match parsed {
                    Ok(parsed) => parsed,
                    Err(error) => return failed(error),
                };
                let cancel = ctx.session.cancel.clone();
                let work = handler(ctx, params);
                Box::pin(async move {
                    let (opened, from, body) = work.await?;
                    Ok(Served::Upload {
                        opened: rpc::raw(&opened)?,
                        open,
                        from,
                        run: Box::new(move |reader| {
                            Box::pin(async move {
                                tokio::select! {
                                    () = body(reader) => {}
                                    () = cancel.cancelled() => {}
                                }
                            })
                        }),
                    })
                })
            }),
        );
    }

    /// Calls the handler of `ctx.spec`.
    pub fn call(&self, ctx: Ctx, params: Option<&RawValue>) -> BoxFuture<'static, Result<Served, Error>> {
        match self.handlers.get(ctx.spec.name) {
            Some(handler) => handler(ctx, params),
            None => failed(rpc::unknown_operation(ctx.spec.name)),
        }
    }

    /// Operations of the hub that nothing answers.
    pub fn missing(&self) -> Vec<&'static str> {
        let served = OPERATIONS.iter().filter(|spec| spec.served == ServedBy::Hub);
        served.map(|spec| spec.name).filter(|name| !self.handlers.contains_key(name)).collect()
    }
}

/// The hub's whole table.
pub fn build() -> Table {
    let mut table = Table::default();
    crate::sessions::register(&mut table);
    crate::access::register(&mut table);
    crate::audit::register(&mut table);
    crate::hosts::register(&mut table);
    crate::runs::register(&mut table);
    crate::terminals::register(&mut table);
    crate::jobs::register(&mut table);
    crate::files::register(&mut table);
    crate::events::register(&mut table);
    crate::status::register(&mut table);
    crate::backup::register(&mut table);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_hub_has_a_handler() {
        assert_eq!(build().missing(), Vec::<&str>::new());
    }
}

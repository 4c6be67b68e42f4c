//! One connection: calls in both directions, streams with credit, reconnect.
//!
//! Both ends are peers. Text frames are JSON-RPC 2.0, binary frames carry bytes; what they mean is in
//! `datacentered-proto`. This crate knows no operation but `link.ping`, no account and no host.
//!
//! - [`Link`] is the handle: calls, streams, closing. [`Driver`] is the future that runs the connection; its owner decides
//!   where and for how long.
//! - [`Handler`] answers what the other side calls.
//! - [`StreamReader`] and [`StreamWriter`] are the two ends of a stream.
//! - [`dial`] and [`upgrade`] make the WebSocket, on the side that dials and on the side that is dialled.
//!
//! Architecture invariant: every queue has a limit with a name in [`Limits`]; a reader that stops taking costs at most its
//! stream's window and delays nobody else.
//!
//! Architecture invariant: this crate starts no task that outlives the [`Driver`].

pub mod backoff;
pub mod clock;
mod close;
pub mod dial;
mod dispatch;
mod driver;
mod gate;
mod handler;
mod limits;
mod link;
mod numbers;
mod proxies;
mod proxy;
mod receive;
mod scheduler;
mod send;
pub mod socket;
mod state;
pub mod tls;
pub mod upgrade;
pub mod url;

pub use close::CloseReason;
pub use driver::Driver;
pub use futures_util::future::BoxFuture;
pub use handler::{Answer, Called, Handler, ReceiveBody, Request, SendBody};
pub use limits::{Limits, REFUSE_FACTOR, SILENCE_FACTOR, websocket_config};
pub use link::{Link, Side};
pub use proxies::{Proxies, ProxySetting, VariableError};
pub use proxy::{Proxy, ProxyError};
pub use receive::{StreamEvent, StreamReader};
pub use send::{SendError, StreamWriter};
pub use state::{Counters, Quality};

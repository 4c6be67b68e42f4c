//! What crosses the wire between hub, agents and clients: operations, errors, cursors, streams.
//!
//! This crate knows no I/O and no clock. Every operation is defined once, in [`operations`]; from that one table come the
//! WebSocket call, the HTTP route, the OpenAPI document, the permission table and the generated docs.
//!
//! # How to add an operation
//! 1. Add its parameter and reply types to the noun's module under `ops/`, with doc comments (they become the schema's text).
//! 2. Add one line to the `operations!` table in `operations.rs`: name, who serves it, effect, permission.
//! 3. Write the handler in the serving crate and register it in its `register` function: the hub's in the noun's module (as
//!    `hub/src/hosts/ops.rs` does), the agent's in `agent/src/serve/`. A test fails while a table entry has no handler.
//! 4. What it stores or shows: the record in `hub/src/store/records.rs` (new fields are optional: older records are read),
//!    its view (`views.rs` of the noun), its event; input from outside is checked before it is used.
//! 5. Run `make docs` to refresh `docs/operations.json` and `docs/openapi.json`; a test fails while they are stale.
//! 6. `datacentered call` can use it already; a command of its own goes into `datacentered/src/args/` and `commands/`, and
//!    the snapshot of the help follows.

pub mod bytestring;
pub mod cursor;
pub mod error;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod openapi;
pub mod operations;
pub mod ops;
pub mod outcome;
pub mod rpc;
pub mod time;

pub use bytestring::ByteString;
pub use cursor::Cursor;
pub use error::{Code, Error, Result};
pub use ids::{AuditId, HostId, JobId, OperationKey, RunId, SessionId, TokenId, UserId};
pub use operations::{Effect, Operation, OperationSpec, Permission, Served, StreamOperation};
pub use outcome::{Evidence, JobState, Outcome};
pub use time::Timestamp;

/// Version of the protocol spoken by this build. It rises when an older peer could misunderstand a newer one;
/// additions that an older peer can ignore are named capabilities instead (see [`CAPABILITIES`]).
pub const PROTOCOL: u32 = 1;

/// The oldest protocol version this build still talks to (a newer hub works with an agent one release older).
pub const PROTOCOL_OLDEST: u32 = 1;

/// Named additions to the protocol that this build understands, told to the peer in `session.hello`.
pub const CAPABILITIES: &[&str] = &["exec", "stdin", "script", "limits", "files"];

/// The ALPN name of the agents' side of the port: mutual TLS with the hub's own identity.
pub const ALPN_AGENT: &str = "datacentered/1";

/// The port that one hub serves everything on, unless configured otherwise.
pub const DEFAULT_PORT: u16 = 7272;

/// The HTTP path of the WebSocket.
pub const LINK_PATH: &str = "/api/v1/link";

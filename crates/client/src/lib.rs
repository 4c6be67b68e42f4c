//! The client library: typed calls, and streams that resume.
//!
//! A [`Client`] holds one link to the hub. The first connection fails at once; a link that was up is made again with
//! backoff for as long as [`ClientConfig::reconnect_timeout`] says, and whoever uses the client does not notice:
//!
//! - [`Client::call`] repeats a call that was lost. That is safe: reads change nothing, and every change carries a key by
//!   which the hub knows a repeat.
//! - [`Client::items`], [`Client::watch_run`] and [`Client::output`] go on behind the last thing they gave out, by its
//!   cursor: nothing twice, nothing silently missing.
//! - [`Client::read_file`] and [`Client::write_file`] go on where they stood, also when the host itself was away.
//! - [`Client::input`] keeps what the hub may not have yet, and sends it again where the hub says it left off.
//! - [`Client::terminal_output`] and [`Client::terminal_input`] are the same for a terminal, which several clients share.
//!
//! ```no_run
//! # async fn example() -> Result<(), datacentered_client::Error> {
//! use datacentered_client::{Client, ClientConfig};
//! use datacentered_proto::operations::HostList;
//!
//! let hub = "unix:/var/lib/datacentered/hub.sock".parse().expect("a hub's URL");
//! let client = Client::connect(ClientConfig::new(vec![hub])).await?;
//! for host in client.call::<HostList>(&Default::default()).await?.hosts {
//!     println!("{} {}", host.name, host.online);
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Architecture invariant: this crate prints nothing, reads no files and no environment, and knows no command line.
//!
//! Architecture invariant: the one task that it starts belongs to the [`Client`] and ends with it.

mod bytes_stream;
mod client;
mod config;
mod connect;
mod error;
mod files;
mod input;
mod items;
mod output;
mod retry;
mod supervisor;

pub use bytes_stream::ByteStream;
pub use client::{Client, Connection};
pub use config::{ClientConfig, Secret, Trust};
pub use connect::probe_fingerprint;
pub use datacentered_link::Limits;
pub use datacentered_link::clock::Clock;
pub use datacentered_link::tls::{Fingerprint, InvalidFingerprint};
pub use datacentered_link::url::{HubUrl, UrlError};
pub use error::{Attempt, Error};
pub use files::{FileReader, FileWriter, Sent};
pub use input::InputWriter;
pub use items::{ItemEvent, ItemStream, RawItemStream};
pub use output::{OutputEvent, OutputStream, TerminalStart};

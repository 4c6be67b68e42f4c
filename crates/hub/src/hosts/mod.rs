//! Hosts: the registry, who is online, and selectors.

mod enrol;
mod live;
mod ops;
mod presence;
pub mod selector;
mod text;
mod views;
mod watch;

pub use live::{Live, LiveHosts};
pub use ops::register;
pub use presence::{attach, detach, mark_all_offline, reconnect_slot_ms, say_goodbye};
pub(crate) use views::parse_selectors;
pub use views::{host_view, resolve, with_traits};

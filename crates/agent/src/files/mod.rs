//! Files below a root: found without leaving it, read, written beside their place, and put there in one step.
//!
//! The agent and the client program share this: what a copy does on a host and on the machine of the client is the same
//! code. Nothing here is asynchronous; callers run it on threads that may block.
//!
//! Architecture invariant: below a root nothing is opened by a path that could leave it, and no symbolic link is followed
//! ([`beneath`]). What is half-written never has the name of its place ([`part`]).

mod attributes;
pub mod beneath;
mod fault;
pub mod hash;
mod list;
pub mod part;
mod path;
mod place;
mod read;

pub use fault::{fault, io};
pub use list::list;
pub use part::Part;
pub use path::{Relative, root_path};
pub use place::{Held, Placer};
pub use read::{Source, stat};

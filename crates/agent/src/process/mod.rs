//! Child processes: who they run as, what they are started with, how they are started, and the tree they grow into.

pub mod child;
pub mod failure;
pub mod identity;
pub mod plan;
pub mod tree;

pub use failure::Failure;
pub use identity::Identity;
pub use plan::Plan;

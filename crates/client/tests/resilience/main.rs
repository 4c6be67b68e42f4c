//! The client against a hub that loses connections on purpose.

mod calls;
mod connecting;
mod fake_hub;
mod input;
mod items;
mod output;

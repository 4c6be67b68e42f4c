//! Every decoder of bytes from outside, as a fuzz target: bytes from the wire, from files that may be damaged, from what
//! people and other programs write.
//!
//! A target takes any bytes. It panics where the decoder does, or where a property does not hold: what decodes is encoded
//! to an equal value, a short input makes no large allocation (checked by the test). `tests/corpus.rs` runs all of them
//! over `corpus/TARGET/` and random mutations of it; `fuzz/` at the top offers the same functions to cargo-fuzz.
//!
//! To add one: write the function, name it in [`TARGETS`], put samples into `corpus/NAME/` (`examples/corpus.rs` makes
//! most of them), and add `fuzz/fuzz_targets/NAME.rs`. A test fails while one of these is missing.

mod agent;
mod engine;
mod hub;
mod link;
mod proto;
mod support;

pub use support::{field, with_checksum};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("proto_frame", proto::frame),
    ("proto_message", proto::message),
    ("proto_texts", proto::texts),
    ("proto_values", proto::values),
    ("proto_operation", proto::operation),
    ("link_url", link::url),
    ("link_fingerprint", link::fingerprint),
    ("link_upgrade", link::upgrade),
    ("link_websocket", link::websocket),
    ("agent_journal", agent::journal),
    ("agent_slot", agent::slot),
    ("agent_spool_record", agent::spool_record),
    ("agent_spool", agent::spool),
    ("agent_shim_wire", agent::shim_wire),
    ("agent_join_token", agent::join_token),
    ("agent_config", agent::config),
    ("agent_enrolment", agent::enrolment),
    ("agent_kernel", agent::kernel),
    ("hub_record", hub::record),
    ("hub_selector", hub::selector),
    ("hub_config", hub::config),
    ("hub_request", hub::request),
    ("hub_body", hub::body),
    ("hub_host_key", hub::host_key),
    ("engine_names", engine::names),
    ("engine_record", engine::record),
    ("engine_layout", engine::layout),
    ("engine_backup", engine::backup),
];

/// The target of that name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}

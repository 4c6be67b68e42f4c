//! What a hub reads: its own records, selectors, settings, and what requests bring.

use std::collections::BTreeMap;

use bytes::Bytes;
use datacentered_engine::record::{Record, Stored};
use datacentered_engine::{Change, Key};
use datacentered_hub::config::Config;
use datacentered_hub::hosts::selector::{HostTraits, Selector};
use datacentered_hub::store::View;
use datacentered_hub::store::records as stored;
use datacentered_hub::store::records::Keyed;
use datacentered_hub::{HubOptions, fuzzing};
use datacentered_proto::ops::host::Facts;
use hyper::Method;

use crate::link::headers;
use crate::support::{directory, fields, halves, text};

/// A stored record of a kind: what decodes is encoded to an equal record.
fn reads_back<R: Keyed + Stored + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(record) = Record::<R>::decode(bytes) else { return };
    let again = Record::<R>::decode(&record.encode().expect("what was read can be written"));
    assert_eq!(again.expect("what was written can be read"), record);
    // Whether or not there is a key for such a record, asking is safe.
    let _ = record.value.key();
}

/// Changes of the hub's bucket as its view takes them at a start: fields, each a key, a zero byte and a record.
pub(crate) fn record(bytes: &[u8]) {
    let mut view = View::default();
    let mut changed = Vec::new();
    for (number, change) in fields(bytes).into_iter().enumerate() {
        let (key, value) = halves(change);
        reads_back::<stored::HostRecord>(value);
        reads_back::<stored::HostNameRecord>(value);
        reads_back::<stored::BurntKeyRecord>(value);
        reads_back::<stored::JournalRecord>(value);
        reads_back::<stored::PresenceRecord>(value);
        reads_back::<stored::UserRecord>(value);
        reads_back::<stored::TokenRecord>(value);
        reads_back::<stored::RunRecord>(value);
        reads_back::<stored::RunTargetsRecord>(value);
        reads_back::<stored::JobRecord>(value);
        reads_back::<stored::DedupeRecord>(value);
        reads_back::<stored::SetupRecord>(value);
        reads_back::<stored::HubRecord>(value);
        let Some(key) = text(key).and_then(|key| Key::parse(key).ok()) else { continue };
        let value = (!value.is_empty()).then(|| Bytes::copy_from_slice(value));
        let change = Change { key, revision: number as u64 + 1, value };
        if view.apply(&change, &mut changed).is_err() {
            break;
        }
    }
}

/// Selectors. One that is taken can be asked about any host.
pub(crate) fn selector(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(selector) = Selector::parse(text) else { return };
    let labels = BTreeMap::from([("role".to_owned(), "kvm".to_owned())]);
    let facts = Facts::default();
    for (name, online) in [("web-1", true), ("a.very-long.name.of-a-host", false), ("", true)] {
        selector.matches(&HostTraits { name, labels: &labels, facts: &facts, online });
    }
    // A literal name alone is for that host and no other.
    if let Some(name) = selector.literal() {
        assert_eq!(selector.literals().collect::<Vec<_>>(), [name]);
        let is = |name| selector.matches(&HostTraits { name, labels: &labels, facts: &facts, online: true });
        assert!(is(name) && !is("another-host-that-nobody-has"));
    }
}

/// `hub.toml`. What is taken has addresses to listen on and limits.
pub(crate) fn config(bytes: &[u8]) {
    let dir = directory();
    std::fs::write(dir.path().join("hub.toml"), bytes).expect("written");
    let options = HubOptions { data_dir: dir.path().to_owned(), ..HubOptions::default() };
    let Ok(config) = Config::load_with(&options, |_| None) else { return };
    config.listen_address().expect("checked");
    config.plain_address().expect("checked");
    assert!(config.limits.accepts_per_second > 0);
}

/// The headers of a request: the first byte is the method, then names and values, zero bytes between them.
pub(crate) fn request(bytes: &[u8]) {
    let Some((method, rest)) = bytes.split_first() else { return };
    let method = [Method::GET, Method::POST, Method::HEAD, Method::DELETE][usize::from(method % 4)].clone();
    fuzzing::request(&method, &headers(rest));
    if let Some(text) = text(rest) {
        fuzzing::join_secret(text);
    }
}

/// The body of a request.
pub(crate) fn body(bytes: &[u8]) {
    fuzzing::body(bytes);
}

/// Certificates and public keys of hosts.
pub(crate) fn host_key(bytes: &[u8]) {
    fuzzing::host_key(bytes);
}

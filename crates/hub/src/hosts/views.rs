//! Hosts as callers see them, and which ones a selection means.

use std::collections::BTreeMap;

use datacentered_proto::ops::host::Host;
use datacentered_proto::{Error, HostId};

use super::selector::{HostTraits, InvalidSelector, MAX_SELECTORS, Selector};
use crate::access::Scope;
use crate::hub::Hub;
use crate::store::View;
use crate::store::records::HostRecord;

/// A host with its presence and link.
pub fn host_view(hub: &Hub, view: &View, record: &HostRecord) -> Host {
    let presence = view.presence.get(&record.id);
    let link = hub.live.quality(record.id);
    let online = link.is_some();
    Host {
        id: record.id,
        name: record.name.clone(),
        labels: record.labels.clone(),
        online,
        since: presence.map(|presence| presence.since),
        last_seen: if online { Some(hub.clock.wall()) } else { presence.map(|presence| presence.last_seen) },
        reason: if online { None } else { presence.and_then(|presence| presence.reason.clone()) },
        revoked: record.revoked.is_some(),
        enrolled: record.enrolled,
        key_fingerprint: record.key_fingerprint.clone(),
        facts: record.facts.clone(),
        link,
    }
}

/// Looks at a host the way selectors do.
pub fn with_traits<T>(hub: &Hub, record: &HostRecord, look: impl FnOnce(&HostTraits<'_>) -> T) -> T {
    look(&HostTraits {
        name: &record.name,
        labels: &record.labels,
        facts: &record.facts,
        online: hub.live.is_online(record.id),
    })
}

/// Reads selectors; none stands for every host.
///
/// Errors: `invalid` for one that is malformed, or that names a fact which does not exist.
pub(crate) fn parse_selectors(hub: &Hub, texts: &[String]) -> Result<Vec<Selector>, Error> {
    if texts.len() > MAX_SELECTORS {
        return Err(Error::limited(format!("at most {MAX_SELECTORS} selectors in one request")));
    }
    let is_label =
        |key: &str| hub.store.view(|view| view.hosts.values().any(|host| host.labels.contains_key(key)));
    let read = |text: &String| {
        let selector = Selector::parse(text)?;
        selector.check(is_label)?;
        Ok(selector)
    };
    let invalid = |error: InvalidSelector| Error::invalid(error.to_string());
    texts.iter().map(|text| read(text).map_err(invalid)).collect()
}

/// The hosts in `scope` that any of the selectors matches, by name. Revoked hosts are never meant.
///
/// Errors: `invalid` for a malformed selector, `not_found` for a literal name that does not exist, `forbidden` for one
/// outside the scope; patterns choose among what is inside.
pub fn resolve(hub: &Hub, scope: &Scope, texts: &[String]) -> Result<BTreeMap<String, HostId>, Error> {
    let selectors = parse_selectors(hub, texts)?;
    hub.store.view(|view| {
        for name in selectors.iter().flat_map(Selector::literals) {
            let host = view.host_names.get(name).and_then(|id| view.hosts.get(id));
            if let Some(host) = host {
                scope.require(hub, host)?;
            }
            if host.is_some_and(|host| host.revoked.is_some()) {
                return Err(Error::conflict(format!(
                    "the key of host '{name}' is revoked: nothing runs there any more until it is enrolled anew"
                )));
            }
            if host.is_none() {
                return Err(Error::not_found(format!(
                    "there is no host '{name}'; 'datacentered host list' shows them all"
                )));
            }
        }
        // One literally named host, the commonest case, costs nothing however large the fleet is.
        if let [selector] = selectors.as_slice()
            && let Some((name, id)) = selector.literal().and_then(|name| view.host_names.get_key_value(name))
        {
            return Ok(BTreeMap::from([(name.clone(), *id)]));
        }
        let chosen = view.host_names.iter().filter(|(_, id)| {
            view.hosts.get(id).is_some_and(|host| {
                host.revoked.is_none()
                    && scope.allows(hub, host)
                    && with_traits(hub, host, |traits| {
                        selectors.iter().any(|selector| selector.matches(traits))
                    })
            })
        });
        Ok(chosen.map(|(name, id)| (name.clone(), *id)).collect())
    })
}

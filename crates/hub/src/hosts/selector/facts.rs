//! The facts that selectors know: everything that `host show -o json` shows, under short names and under those.

use datacentered_proto::ops::host::Facts;

use super::HostTraits;

/// What a fact is, and so with what it can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text; ordered as version numbers are.
    Text,
    /// A number, with units of 1024's powers.
    Number,
    /// Addresses; also matched by networks.
    Address,
}

/// A host's value of a fact. Of several, as of several disks, each counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Values {
    /// Texts or addresses.
    Texts(Vec<String>),
    /// Numbers.
    Numbers(Vec<u64>),
}

/// Every fact: its name, its other names, what it is.
const FACTS: &[(&str, &[&str], Kind)] = &[
    ("name", &[], Kind::Text),
    ("online", &[], Kind::Text),
    ("hostname", &[], Kind::Text),
    ("os", &["os.id", "os_id"], Kind::Text),
    ("os.version", &["os_version"], Kind::Text),
    ("os.name", &["os_name"], Kind::Text),
    ("kernel", &[], Kind::Text),
    ("arch", &[], Kind::Text),
    ("cpu.model", &["cpu_model"], Kind::Text),
    ("cpus", &["cpu.count"], Kind::Number),
    ("memory", &["memory.total", "memory_bytes"], Kind::Number),
    ("swap", &["swap.total", "swap_bytes"], Kind::Number),
    ("disks.count", &[], Kind::Number),
    ("disks.mount", &[], Kind::Text),
    ("disks.device", &[], Kind::Text),
    ("disks.fs", &[], Kind::Text),
    ("disks.total", &["disks.total_bytes"], Kind::Number),
    ("disks.free", &["disks.free_bytes"], Kind::Number),
    ("addresses", &["address", "addresses.address"], Kind::Address),
    ("addresses.count", &[], Kind::Number),
    ("addresses.interface", &["interface"], Kind::Text),
    ("virtualisation", &["virt"], Kind::Text),
    ("agent.version", &["agent_version"], Kind::Text),
    ("boot.id", &["boot_id"], Kind::Text),
    ("booted", &[], Kind::Text),
    ("policy.file", &[], Kind::Text),
    ("policy.rules", &[], Kind::Number),
    ("policy.default", &[], Kind::Text),
    ("policy.error", &[], Kind::Text),
];

/// The name that a key means among facts, and what it is.
pub(super) fn known(key: &str) -> Option<(&'static str, Kind)> {
    FACTS
        .iter()
        .find(|(name, others, _)| *name == key || others.contains(&key))
        .map(|(name, _, kind)| (*name, *kind))
}

/// Whether a key that is no fact looks like one: it begins as facts do, or is a slip of the finger away.
pub(super) fn near(key: &str) -> Vec<&'static str> {
    let all =
        || FACTS.iter().flat_map(|(name, others, _)| std::iter::once(*name).chain(others.iter().copied()));
    let family = |name: &str| name.split(['.', '_']).next().unwrap_or_default().to_owned();
    let mine = family(key);
    let same_family = |name: &&str| key.contains(['.', '_']) && name.contains('.') && family(name) == mine;
    let close = |name: &&str| key.len() >= 4 && distance(key, name) <= if key.len() >= 6 { 2 } else { 1 };
    let mut found: Vec<&str> = all().filter(close).chain(all().filter(same_family)).collect();
    let mut seen = std::collections::HashSet::new();
    found.retain(|name| seen.insert(*name));
    found
}

/// How many letters have to be changed, added or taken away.
fn distance(a: &str, b: &str) -> usize {
    // No fact's name is longer than 32 bytes, so that a long key is far from each.
    if a.len() > 40 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, to) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(0);
            let left = row.get(j).copied().unwrap_or(0);
            let changed = diagonal + usize::from(from != *to);
            diagonal = above;
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = changed.min(above + 1).min(left + 1);
            }
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// A host's value of a fact; none where the host has not said.
pub(super) fn values(name: &str, host: &HostTraits<'_>) -> Option<Values> {
    let facts: &Facts = host.facts;
    let text = |text: &str| (!text.is_empty()).then(|| Values::Texts(vec![text.to_owned()]));
    let number = |number: u64| Some(Values::Numbers(vec![number]));
    // No machine has none of these: it has not said.
    let stated = |number: u64| (number > 0).then(|| Values::Numbers(vec![number]));
    let texts = |texts: Vec<String>| (!texts.is_empty()).then_some(Values::Texts(texts));
    let numbers = |numbers: Vec<u64>| (!numbers.is_empty()).then_some(Values::Numbers(numbers));
    let disks = &facts.disks;
    match name {
        "name" => text(host.name),
        "online" => text(if host.online { "true" } else { "false" }),
        "hostname" => text(&facts.hostname),
        "os" => text(&facts.os_id),
        "os.version" => text(&facts.os_version),
        "os.name" => text(&facts.os_name),
        "kernel" => text(&facts.kernel),
        "arch" => text(&facts.arch),
        "cpu.model" => text(&facts.cpu_model),
        "cpus" => stated(facts.cpus.into()),
        "memory" => stated(facts.memory_bytes),
        "swap" => number(facts.swap_bytes),
        "disks.count" => number(disks.len() as u64),
        "disks.mount" => texts(disks.iter().map(|disk| disk.mount.clone()).collect()),
        "disks.device" => texts(disks.iter().map(|disk| disk.device.clone()).collect()),
        "disks.fs" => texts(disks.iter().map(|disk| disk.fs.clone()).collect()),
        "disks.total" => numbers(disks.iter().map(|disk| disk.total_bytes).collect()),
        "disks.free" => numbers(disks.iter().map(|disk| disk.free_bytes).collect()),
        "addresses" => texts(facts.addresses.iter().map(|one| one.address.clone()).collect()),
        "addresses.count" => number(facts.addresses.len() as u64),
        "addresses.interface" => texts(facts.addresses.iter().map(|one| one.interface.clone()).collect()),
        "virtualisation" => text(&facts.virtualisation),
        "agent.version" => text(&facts.agent_version),
        "boot.id" => text(&facts.boot_id),
        "booted" => facts.booted.and_then(|booted| text(&booted.to_string())),
        "policy.file" => text(&facts.policy.file),
        "policy.rules" => number(facts.policy.rules.into()),
        "policy.default" => text(&facts.policy.default),
        "policy.error" => text(&facts.policy.error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ops::host::{Address, Disk, PolicyFacts};
    use std::collections::BTreeMap;

    fn full() -> Facts {
        let some = || "x".to_owned();
        Facts {
            hostname: some(),
            os_id: some(),
            os_version: some(),
            os_name: some(),
            kernel: some(),
            arch: some(),
            cpu_model: some(),
            cpus: 1,
            memory_bytes: 1,
            swap_bytes: 1,
            disks: vec![Disk { mount: some(), device: some(), fs: some(), total_bytes: 1, free_bytes: 1 }],
            addresses: vec![Address { interface: some(), address: some() }],
            virtualisation: some(),
            agent_version: some(),
            boot_id: some(),
            booted: Some(datacentered_proto::Timestamp::from_millis(0)),
            policy: PolicyFacts { file: some(), rules: 1, default: some(), error: some() },
        }
    }

    /// Everything that a program sees of a host under `facts` is there for selectors, by that name.
    #[test]
    fn whatever_is_shown_can_be_selected_by() {
        let facts = full();
        let labels = BTreeMap::new();
        let host = HostTraits { name: "h", labels: &labels, facts: &facts, online: true };
        let mut names = Vec::new();
        let shown = serde_json::to_value(&facts).expect("json");
        for (name, value) in shown.as_object().expect("an object") {
            let list = value.as_array().and_then(|list| list.first());
            match list.unwrap_or(value).as_object() {
                Some(members) => names.extend(members.keys().map(|member| format!("{name}.{member}"))),
                None => names.push(name.clone()),
            }
        }
        for name in names.iter().map(String::as_str).chain(FACTS.iter().map(|(name, ..)| *name)) {
            let (known, _) = known(name).unwrap_or_else(|| panic!("{name} is not known"));
            assert!(values(known, &host).is_some(), "{name} has no value");
        }
    }

    #[test]
    fn names_near_by() {
        assert_eq!(near("kernal"), ["kernel"]);
        assert!(near("os.versoin").starts_with(&["os.version"]));
        assert!(near("memory.free").contains(&"memory.total"));
        assert!(near("cpu.sockets").contains(&"cpu.model"));
        for label in ["role", "region", "team", "rack", "tier", "env", "x", "example.com/role"] {
            assert!(near(label).is_empty(), "{label}: {:?}", near(label));
        }
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("ab", "ab")), (3, 2, 0));
    }
}

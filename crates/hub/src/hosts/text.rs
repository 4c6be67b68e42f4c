//! Texts from hosts are hostile: bounded, without control characters, before anything else sees them.

use datacentered_proto::Error;
use datacentered_proto::limits::{MAX_LABEL_VALUE, MAX_LABELS, MAX_NAME};
use datacentered_proto::ops::host::Facts;
use std::collections::BTreeMap;

/// Longest text of a fact, in bytes.
const MAX_FACT: usize = 256;

/// Most file systems kept of one host.
const MAX_DISKS: usize = 64;

/// Most addresses kept of one host.
const MAX_ADDRESSES: usize = 128;

fn clean(text: &mut String, max: usize) {
    if text.chars().any(char::is_control) {
        text.retain(|c| !c.is_control());
    }
    if text.len() > max {
        let mut end = max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

/// Caps and cleans everything that a host says about itself.
pub(super) fn clean_facts(mut facts: Facts) -> Facts {
    let texts = [
        &mut facts.hostname,
        &mut facts.os_id,
        &mut facts.os_version,
        &mut facts.os_name,
        &mut facts.kernel,
        &mut facts.arch,
        &mut facts.cpu_model,
        &mut facts.virtualisation,
        &mut facts.agent_version,
        &mut facts.boot_id,
        &mut facts.policy.file,
        &mut facts.policy.default,
        &mut facts.policy.error,
    ];
    for text in texts {
        clean(text, MAX_FACT);
    }
    facts.disks.truncate(MAX_DISKS);
    for disk in &mut facts.disks {
        for text in [&mut disk.mount, &mut disk.device, &mut disk.fs] {
            clean(text, MAX_FACT);
        }
    }
    facts.addresses.truncate(MAX_ADDRESSES);
    for address in &mut facts.addresses {
        for text in [&mut address.interface, &mut address.address] {
            clean(text, MAX_FACT);
        }
    }
    facts
}

/// A name as a host would like it, made to fit: never empty.
pub(super) fn fitting_name(wanted: &str) -> String {
    let name: String = wanted
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(MAX_FITTED)
        .collect();
    let name = name.trim_matches(|c| c == '-' || c == '.');
    if name.is_empty() || name == "all" { "host".into() } else { name.into() }
}

/// Longest name taken over from a host: leaves room for a number behind it.
const MAX_FITTED: usize = 200;

/// Checks a name that a person gives.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts_well || name.len() > MAX_FITTED || !name.chars().all(plain) || name == "all" {
        return Err(Error::invalid(format!(
            "a host's name is 1 to {MAX_FITTED} of A-Z a-z 0-9 - _ . beginning with a letter or digit, and not 'all'"
        )));
    }
    Ok(())
}

/// Checks labels that a person or token gives.
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > MAX_LABELS {
        return Err(Error::limited(format!("a host has at most {MAX_LABELS} labels")));
    }
    for (key, value) in labels {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.is_empty() || key.len() > MAX_NAME || !key.chars().all(plain) {
            return Err(Error::invalid(format!(
                "the label '{}' must be 1 to {MAX_NAME} of A-Z a-z 0-9 - _ . /",
                key.escape_debug()
            )));
        }
        if value.len() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "the value of label '{key}' must be at most {MAX_LABEL_VALUE} bytes without control characters"
            )));
        }
    }
    Ok(())
}

/// Labels that a host asks for itself: those that do not fit are left out.
pub(super) fn fitting_labels(wanted: BTreeMap<String, String>) -> BTreeMap<String, String> {
    wanted
        .into_iter()
        .filter(|(key, value)| check_labels(&BTreeMap::from([(key.clone(), value.clone())])).is_ok())
        .take(MAX_LABELS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_facts_become_harmless() {
        let facts = Facts {
            hostname: "a\u{1b}[31mb\n".into(),
            os_name: "é".repeat(1000),
            disks: vec![datacentered_proto::ops::host::Disk::default(); 500],
            ..Facts::default()
        };
        let facts = clean_facts(facts);
        assert_eq!(facts.hostname, "a[31mb");
        assert!(facts.os_name.len() <= MAX_FACT);
        assert_eq!(facts.disks.len(), MAX_DISKS);
    }

    #[test]
    fn names_are_made_to_fit_or_refused() {
        assert_eq!(fitting_name("web 1/ä"), "web-1");
        assert_eq!(fitting_name("\n"), "host");
        assert_eq!(fitting_name("all"), "host");
        assert!(check_name("web-1.example").is_ok());
        for bad in ["", "-a", "a b", "all", "a\n", &"x".repeat(300)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}

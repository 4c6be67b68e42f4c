//! `host ...`.

use std::collections::BTreeMap;

use datacentered_client::{Client, ItemEvent};
use datacentered_proto::operations::{
    HostLabel, HostList, HostRemove, HostRename, HostRevoke, HostShow, HostWatch,
};
use datacentered_proto::ops::host as wire;
use datacentered_proto::{Timestamp, limits};

use super::watch;
use crate::args::Global;
use crate::args::host::Host;
use crate::connect;
use crate::failure::{Failure, Result};
use crate::text::clean::clean;
use crate::text::pairs::LabelChange;
use crate::text::{ago, size};
use crate::ui::{self, Ui, table};

/// `host ...`.
pub(crate) async fn run(ui: Ui, global: &Global, command: Host) -> Result<()> {
    let client = connect::connect(global).await?;
    let result = act(ui, &client, command).await;
    connect::finish(client, result).await
}

async fn act(ui: Ui, client: &Client, command: Host) -> Result<()> {
    let key = client.clock().key();
    match command {
        Host::List { selectors } => list(ui, client, selectors).await,
        Host::Show { host } => {
            let host = client.call::<HostShow>(&wire::HostParams { host }).await?;
            ui.reply(&host, || details(&host, connect::now()))
        }
        Host::Label { host, changes } => {
            let mut params = wire::LabelParams { key, host, set: BTreeMap::new(), remove: Vec::new() };
            for change in changes {
                match change {
                    LabelChange::Set(name, value) => {
                        params.set.insert(name, value);
                    }
                    LabelChange::Remove(name) => params.remove.push(name),
                }
            }
            let host = client.call::<HostLabel>(&params).await?;
            ui.reply(&host, || format!("{}: {}", clean(&host.name), labels(&host)))
        }
        Host::Rename { host, name } => {
            let renamed =
                client.call::<HostRename>(&wire::RenameParams { key, host: host.clone(), name }).await?;
            ui.reply(&renamed, || format!("{} is {} now", clean(&host), clean(&renamed.name)))
        }
        Host::Revoke { host } => {
            let host = client.call::<HostRevoke>(&wire::ChangeParams { key, host }).await?;
            ui.reply(&host, || format!("{} is revoked", clean(&host.name)))
        }
        Host::Remove { host } => {
            let done = client.call::<HostRemove>(&wire::ChangeParams { key, host: host.clone() }).await?;
            ui.reply(&done, || format!("{} is removed", clean(&host)))
        }
        Host::Watch { selectors } => {
            let mut stream = client.items::<HostWatch>(move |cursor, stream| wire::WatchParams {
                on: selectors.clone(),
                cursor,
                stream,
            });
            let json = ui.json();
            watch::print(ui, client, &mut stream, |event| {
                let ItemEvent::Item { value, .. } = event else { return Ok(None) };
                if json {
                    return ui::encode_line(&value).map(Some);
                }
                Ok(change(&value, connect::now()))
            })
            .await
        }
    }
}

async fn list(ui: Ui, client: &Client, on: Vec<String>) -> Result<()> {
    let selected = !on.is_empty();
    let mut hosts = Vec::new();
    let mut next = None;
    loop {
        let params = wire::ListParams { on: on.clone(), limit: Some(limits::MAX_PAGE), next };
        let mut page = client.call::<HostList>(&params).await?;
        hosts.append(&mut page.hosts);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if ui.json() {
        ui.document(&hosts)?;
    } else if !hosts.is_empty() {
        let now = connect::now();
        ui.line(&overview(ui, &hosts, now))?;
    }
    if hosts.is_empty() && selected {
        return Err(Failure::usage("no host matches").hint("'datacentered host list' shows all of them"));
    }
    if hosts.is_empty() {
        ui.advice("no hosts yet: datacentered token create --join");
    }
    Ok(())
}

fn overview(ui: Ui, hosts: &[wire::Host], now: Timestamp) -> String {
    let rows = hosts.iter().map(|host| {
        [
            clean(&host.name),
            state(host),
            host.since.map(|since| ago::human(since, now)).unwrap_or_default(),
            ui.cell(system(&host.facts), 28),
            if host.facts.cpus == 0 { String::new() } else { host.facts.cpus.to_string() },
            if host.facts.memory_bytes == 0 { String::new() } else { size::human(host.facts.memory_bytes) },
            labels(host),
        ]
    });
    table::table(["NAME", "STATE", "SINCE", "SYSTEM", "CPUS", "MEMORY", "LABELS"], rows)
}

fn state(host: &wire::Host) -> String {
    match (host.revoked, host.online, &host.reason) {
        (true, ..) => "revoked".to_owned(),
        (false, true, _) => "online".to_owned(),
        (false, false, Some(reason)) => format!("offline ({})", clean(reason)),
        (false, false, None) => "offline".to_owned(),
    }
}

fn system(facts: &wire::Facts) -> &str {
    if facts.os_name.is_empty() { &facts.os_id } else { &facts.os_name }
}

fn labels(host: &wire::Host) -> String {
    host.labels.iter().map(|(key, value)| clean(&format!("{key}={value}"))).collect::<Vec<_>>().join(" ")
}

fn details(host: &wire::Host, now: Timestamp) -> String {
    let facts = &host.facts;
    let when = |moment: Option<Timestamp>| moment.map(|moment| ago::human(moment, now)).unwrap_or_default();
    let amount = |bytes: u64| if bytes == 0 { String::new() } else { size::human(bytes) };
    let joined = |parts: Vec<String>| parts.join(", ");
    let disks = facts.disks.iter().map(|disk| {
        clean(&format!(
            "{} {} free of {}",
            disk.mount,
            size::human(disk.free_bytes),
            size::human(disk.total_bytes)
        ))
    });
    let addresses =
        facts.addresses.iter().map(|address| clean(&format!("{} ({})", address.address, address.interface)));
    table::fields([
        ("name", clean(&host.name)),
        ("id", host.id.to_string()),
        ("state", state(host)),
        ("since", when(host.since)),
        ("last seen", when(host.last_seen)),
        ("labels", labels(host)),
        ("enrolled", when(Some(host.enrolled))),
        ("hostname", clean(&facts.hostname)),
        ("system", clean(system(facts))),
        ("kernel", clean(&format!("{} {}", facts.kernel, facts.arch))),
        ("virtualised", clean(&facts.virtualisation)),
        (
            "processors",
            if facts.cpus == 0 {
                String::new()
            } else {
                clean(&format!("{} ({})", facts.cpus, facts.cpu_model))
            },
        ),
        ("memory", amount(facts.memory_bytes)),
        ("swap", amount(facts.swap_bytes)),
        ("disks", joined(disks.collect())),
        ("addresses", joined(addresses.collect())),
        ("booted", when(facts.booted)),
        ("agent", clean(&facts.agent_version)),
        ("policy", policy(&facts.policy)),
        ("policy error", clean(&facts.policy.error)),
        ("link", host.link.as_ref().map(link).unwrap_or_default()),
        ("key", clean(&host.key_fingerprint)),
    ])
}

fn policy(policy: &wire::PolicyFacts) -> String {
    if policy.is_none() {
        return String::new();
    }
    let rules = if policy.rules == 1 { "rule" } else { "rules" };
    clean(&format!("{} ({} {rules}, default {})", policy.file, policy.rules, policy.default))
}

fn link(link: &wire::LinkQuality) -> String {
    let round_trip = match link.rtt_us {
        // Not measured yet.
        0 => "unknown".to_owned(),
        micros => format!("{:.1} ms", micros as f64 / 1000.0),
    };
    clean(&format!(
        "from {}, round trip {round_trip}, clock {:+} ms, lost {} times",
        link.peer, link.clock_skew_ms, link.losses
    ))
}

fn change(item: &wire::WatchItem, now: Timestamp) -> Option<String> {
    match item {
        wire::WatchItem::Host { host } => {
            let since =
                host.since.map(|since| format!(" since {}", ago::human(since, now))).unwrap_or_default();
            Some(
                format!("{}  {}{since}  {}", clean(&host.name), state(host), labels(host))
                    .trim_end()
                    .to_owned(),
            )
        }
        wire::WatchItem::Removed { name, .. } => Some(format!("{}  removed", clean(name))),
        wire::WatchItem::CaughtUp => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use datacentered_proto::HostId;

    fn host(name: &str, online: bool) -> wire::Host {
        let id: HostId = "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f".parse().expect("id");
        wire::Host {
            id,
            name: name.into(),
            labels: [("role".to_owned(), "web".to_owned())].into(),
            online,
            since: Some(Timestamp::from_millis(1_700_000_000_000)),
            last_seen: None,
            reason: (!online).then(|| "link_lost".to_owned()),
            revoked: false,
            enrolled: Timestamp::from_millis(1_690_000_000_000),
            key_fingerprint: "ab".repeat(32),
            facts: wire::Facts {
                hostname: name.into(),
                os_name: "Debian GNU/Linux 12 (bookworm)".into(),
                kernel: "6.1.0-18-amd64".into(),
                arch: "x86_64".into(),
                cpus: 8,
                cpu_model: "EPYC".into(),
                memory_bytes: 16 << 30,
                ..wire::Facts::default()
            },
            link: online.then(|| wire::LinkQuality {
                rtt_us: 850,
                clock_skew_ms: -3,
                peer: "192.0.2.7:40112".into(),
                losses: 2,
            }),
        }
    }

    #[test]
    fn the_table_and_the_details() {
        let now = Timestamp::from_millis(1_700_000_200_000);
        let ui = Ui { format: Format::Table, out_terminal: true, err_terminal: false };
        let hosts = [host("web1", true), host("db1", false)];
        insta::assert_snapshot!("host_table", overview(ui, &hosts, now));
        let file = overview(Ui { out_terminal: false, ..ui }, &hosts, now);
        assert!(file.contains("Debian GNU/Linux 12 (bookworm)"), "{file}");
        insta::assert_snapshot!("host_details", details(&host("web1", true), now));
    }

    #[test]
    fn a_round_trip_that_was_not_measured_is_unknown() {
        let mut host = host("web1", true);
        host.link.as_mut().expect("a link").rtt_us = 0;
        assert!(details(&host, Timestamp::EPOCH).contains("round trip unknown"));
    }

    #[test]
    fn a_name_cannot_paint_the_terminal() {
        let ui = Ui { format: Format::Table, out_terminal: false, err_terminal: false };
        let text = overview(ui, &[host("a\x1b]0;owned\x07", true)], Timestamp::EPOCH);
        assert!(!text.contains(['\x1b', '\x07']));
    }
}

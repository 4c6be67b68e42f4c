//! `audit ...`.

use std::time::Duration;

use datacentered_client::Client;
use datacentered_proto::Timestamp;
use datacentered_proto::limits::MAX_PAGE;
use datacentered_proto::operations::AuditList;
use datacentered_proto::ops::audit as wire;

use crate::args::Global;
use crate::args::access::Audit;
use crate::connect;
use crate::failure::Result;
use crate::text::ago;
use crate::text::clean::clean;
use crate::ui::{Ui, table};

/// How often `--follow` looks for new entries.
const POLL: Duration = Duration::from_secs(1);

/// `audit ...`.
pub(crate) async fn run(ui: Ui, global: &Global, command: Audit) -> Result<()> {
    let Audit::List { limit, follow } = command;
    let client = connect::connect(global).await?;
    let result = list(ui, &client, limit, follow).await;
    connect::finish(client, result).await
}

async fn list(ui: Ui, client: &Client, limit: u32, follow: bool) -> Result<()> {
    let params = wire::ListParams { limit: Some(limit.min(MAX_PAGE)), cursor: None };
    let mut page = client.call::<AuditList>(&params).await?;
    if !follow {
        if ui.json() {
            return ui.document(&page.entries);
        }
        if page.entries.is_empty() {
            return Ok(());
        }
        return ui.line(&entries(ui, &page.entries, connect::now()));
    }
    loop {
        for entry in &page.entries {
            if ui.json() { ui.object(entry)? } else { ui.line(&line(entry))? }
        }
        if page.entries.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                // Following has no end of its own: Ctrl-C is how it ends well.
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
        let params = wire::ListParams { limit: Some(MAX_PAGE), cursor: Some(page.cursor) };
        page = client.call::<AuditList>(&params).await?;
    }
}

fn entries(ui: Ui, entries: &[wire::AuditEntry], now: Timestamp) -> String {
    let rows = entries.iter().map(|entry| {
        [
            ago::human(entry.at, now),
            clean(&entry.by),
            clean(&entry.from),
            clean(&entry.operation),
            ui.cell(&entry.object, 40),
            ui.cell(&entry.hosts.join(" "), 30),
            outcome(entry),
        ]
    });
    table::table(["WHEN", "BY", "FROM", "OPERATION", "OBJECT", "HOSTS", "OUTCOME"], rows)
}

fn line(entry: &wire::AuditEntry) -> String {
    clean(&format!(
        "{} {} ({}) {} {} {}: {}",
        entry.at,
        entry.by,
        entry.from,
        entry.operation,
        entry.object,
        entry.hosts.join(" "),
        outcome(entry)
    ))
}

fn outcome(entry: &wire::AuditEntry) -> String {
    let told = entry.outcome.as_deref().map(clean);
    match (entry.phase, entry.code) {
        (wire::Phase::Intent, _) => "begun".to_owned(),
        (wire::Phase::Refused, Some(code)) => format!("refused ({code})"),
        (wire::Phase::Refused, None) => "refused".to_owned(),
        (wire::Phase::Outcome, Some(code)) => told.unwrap_or_else(|| code.to_string()),
        (wire::Phase::Outcome, None) => told.unwrap_or_else(|| "ok".to_owned()),
    }
}

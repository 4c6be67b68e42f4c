//! `terminal list`.

use datacentered_client::Client;
use datacentered_proto::operations::TerminalList;
use datacentered_proto::ops::terminal::{ListParams, Terminal};
use datacentered_proto::{Timestamp, limits};

use crate::connect;
use crate::failure::Result;
use crate::text::clean::clean;
use crate::text::{ago, outcome, short_id, size};
use crate::ui::{Ui, table};

pub(super) async fn list(
    ui: Ui,
    client: &Client,
    limit: u32,
    host: Option<String>,
    active: bool,
) -> Result<()> {
    let mut listed: Vec<Terminal> = Vec::new();
    let mut next = None;
    loop {
        let left = limit.saturating_sub(u32::try_from(listed.len()).unwrap_or(u32::MAX));
        let params = ListParams { limit: Some(left.min(limits::MAX_PAGE)), next, host: host.clone(), active };
        let mut reply = client.call::<TerminalList>(&params).await?;
        listed.append(&mut reply.terminals);
        next = reply.next;
        if next.is_none() || listed.len() >= limit as usize {
            break;
        }
    }
    if ui.json() {
        return ui.document(&listed);
    }
    if listed.is_empty() {
        ui.advice(if active {
            "no terminal is open: datacentered shell HOST opens one"
        } else {
            "no terminals yet: datacentered shell HOST opens one"
        });
        return Ok(());
    }
    ui.line(&text(ui, &listed, connect::now()))
}

fn text(ui: Ui, terminals: &[Terminal], now: Timestamp) -> String {
    let rows = terminals.iter().map(|terminal| {
        let summary = &terminal.summary;
        [
            short_id::shorten(summary.run),
            ui.cell(&terminal.host, 30),
            ui.cell(&summary.command, 40),
            clean(&summary.by),
            ago::human(summary.created, now),
            match &terminal.outcome {
                Some(outcome) => outcome::explain(outcome, now),
                None => "open".to_owned(),
            },
            terminal.watchers.to_string(),
            terminal.writers.to_string(),
            size::human(terminal.recorded_bytes),
        ]
    });
    table::table(["TERMINAL", "HOST", "COMMAND", "BY", "OPENED", "STATE", "WATCH", "TYPE", "RECORDED"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use datacentered_proto::ops::run::{Counts, OfflinePolicy, RunSummary};
    use datacentered_proto::{Outcome, RunId, ids::uuid_v7};

    #[test]
    fn a_table_of_terminals() {
        let ui = Ui { format: Format::Table, out_terminal: false, err_terminal: false };
        let terminal = |made: u64, outcome: Option<Outcome>| Terminal {
            summary: RunSummary {
                run: RunId::from_uuid(uuid_v7(made, [7; 10])),
                by: "ann".into(),
                created: Timestamp::EPOCH,
                ended: None,
                on: vec!["web1".into()],
                command: "<login shell>".into(),
                stdin: true,
                offline: OfflinePolicy::Fail,
                counts: Counts::default(),
            },
            host: "web1".into(),
            watchers: 2,
            writers: 1,
            recorded_bytes: 4096,
            outcome,
        };
        let listed = [terminal(2, None), terminal(1, Some(Outcome::Exited { code: 3 }))];
        insta::assert_snapshot!(text(ui, &listed, Timestamp::EPOCH.plus_millis(90_000)));
    }
}

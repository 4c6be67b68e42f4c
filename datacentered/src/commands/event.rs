//! `event ...`.

use datacentered_client::{Client, ItemEvent};
use datacentered_proto::operations::EventWatch;
use datacentered_proto::ops::event as wire;
use serde_json::json;

use super::watch;
use crate::args::Global;
use crate::args::client::{Event, From};
use crate::connect;
use crate::failure::Result;
use crate::text::clean::clean;
use crate::ui::{self, Ui};

/// `event ...`.
pub(crate) async fn run(ui: Ui, global: &Global, command: Event) -> Result<()> {
    let Event::Watch { from, kinds } = command;
    let client = connect::connect(global).await?;
    let result = follow(ui, &client, from, kinds).await;
    connect::finish(client, result).await
}

async fn follow(ui: Ui, client: &Client, from: Option<From>, kinds: Vec<String>) -> Result<()> {
    let mut stream = client.items::<EventWatch>(move |cursor, stream| {
        let cursor = cursor.or_else(|| match &from {
            Some(From::Cursor(cursor)) => Some(cursor.clone()),
            Some(From::Start) | None => None,
        });
        wire::WatchParams { from_start: from == Some(From::Start), cursor, kinds: kinds.clone(), stream }
    });
    let json = ui.json();
    watch::print(ui, client, &mut stream, |event| {
        let ItemEvent::Item { cursor, value } = event else { return Ok(None) };
        if json {
            let line = json!({"cursor": cursor, "at": value.at, "kind": value.kind, "about": value.about,
                              "detail": value.detail});
            return ui::encode_line(&line).map(Some);
        }
        Ok(Some(line(&value)))
    })
    .await
}

fn line(event: &wire::Event) -> String {
    let detail = if event.detail.is_null() { String::new() } else { format!("  {}", event.detail) };
    clean(&format!("{}  {:<20} {}{detail}", event.at, event.kind, event.about))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let event = wire::Event {
            at: datacentered_proto::Timestamp::from_millis(1_700_000_000_000),
            kind: "host.online".into(),
            about: "web1".into(),
            detail: json!({"peer": "192.0.2.7"}),
        };
        assert_eq!(
            line(&event),
            "2023-11-14T22:13:20.000Z  host.online          web1  {\"peer\":\"192.0.2.7\"}"
        );
    }
}

//! The proof: a hub that listens, an agent that joins it, and a command whose outcome is known.

use std::ffi::OsString;

use datacentered_client::{Client, ClientConfig, Clock, HubUrl, ItemEvent, OutputEvent};
use datacentered_proto::operations::{RunCreate, TokenCreate};
use datacentered_proto::ops::access::{TokenCreateParams, TokenKind};
use datacentered_proto::ops::job::ExecSpec;
use datacentered_proto::ops::run::{CreateParams, OfflinePolicy, Target};
use datacentered_proto::{ByteString, JobState, RunId};
use serde_json::{Value, json};

use super::Fleet;
use crate::commands::throwaway::place::Place;
use crate::commands::throwaway::server::Server;
use crate::failure::{Failure, Result};
use crate::text::clean::clean;
use crate::text::outcome;
use crate::ui::Ui;

/// The first command.
const COMMAND: &str =
    "echo \"hello from $(uname -n), $(uname -sr)\"; for i in 1 2 3; do echo \"line $i\"; done";

/// What was shown to work.
#[derive(Debug)]
pub(super) struct Proven {
    /// Connected to the hub's local socket.
    pub(super) client: Client,
    /// The name of this host.
    pub(super) host: String,
    /// The link for the first account.
    pub(super) setup: Option<String>,
}

/// Starts everything, runs the first command, and says so.
pub(super) async fn prove(ui: Ui, place: &Place, fleet: &mut Fleet) -> Result<Proven> {
    let hub = fleet.hub.insert(Server::start("hub", place.path(), hub_args(place))?);
    let mut listening = hub.event("listening").await?;
    let url =
        text(&listening, "url").ok_or_else(|| Failure::failed("the hub did not say where it listens"))?;
    // A fresh hub has no account, so the link for the first one comes right behind.
    let setup = text(&hub.event("setup").await?, "link");
    if let Some(listening) = listening.as_object_mut() {
        listening.insert("setup".to_owned(), json!(setup));
    }
    tell(ui, &listening, || {
        let setup = setup.as_ref().map(|link| format!("\nsetup    {link}")).unwrap_or_default();
        format!("hub      {url}{setup}")
    })?;

    let socket = HubUrl::Unix { path: place.socket() };
    let client = Client::connect(ClientConfig::new(vec![socket])).await?;
    let token = client.call::<TokenCreate>(&join_token(client.clock())).await?.token;
    let token = place.keep_secret("join.token", &token)?;

    let agent = fleet.agent.insert(Server::start("agent", place.path(), agent_args(place, &url, &token))?);
    let connected = agent.event("connected").await?;
    let host = text(&connected, "name").ok_or_else(|| Failure::failed("the agent did not say its name"))?;
    tell(ui, &connected, || format!("agent    {} is connected", clean(&host)))?;

    let run = first_run(client.clock(), &host);
    client.call::<RunCreate>(&run).await?;
    tell_command(ui, &host)?;
    let target = follow(ui, &client, run.key, &host).await?;
    let Some(outcome) = &target.outcome else {
        return Err(Failure::failed("the first command has ended without an outcome"));
    };
    let told = json!({"event": "outcome", "host": target.host, "outcome": outcome});
    tell(ui, &told, || format!("outcome  {outcome}, told by {} pieces of evidence", target.evidence.len()))?;
    if outcome.is_success() {
        return Ok(Proven { client, host, setup });
    }
    let how = outcome::explain(outcome, client.clock().wall());
    Err(Failure::failed(format!("the first command did not go well: {how}")))
}

fn hub_args(place: &Place) -> Vec<OsString> {
    let fixed = ["hub", "start", "--listen", "127.0.0.1:0", "-o", "json", "--data-dir"].map(OsString::from);
    fixed.into_iter().chain([place.hub_dir().into_os_string()]).collect()
}

fn agent_args(place: &Place, url: &str, token: &std::path::Path) -> Vec<OsString> {
    let mut from_file = OsString::from("@");
    from_file.push(token);
    let fixed = ["agent", "join", url, "-o", "json", "--data-dir"].map(OsString::from);
    let rest = [place.agent_dir().into_os_string(), "--token".into(), from_file];
    fixed.into_iter().chain(rest).collect()
}

fn join_token(clock: &Clock) -> TokenCreateParams {
    TokenCreateParams {
        key: clock.key(),
        kind: TokenKind::Join,
        name: "demo".into(),
        role: None,
        ttl_ms: None,
        uses: None,
        labels: [].into(),
    }
}

fn first_run(clock: &Clock, host: &str) -> CreateParams {
    let argv = ["/bin/sh", "-c", COMMAND].map(ByteString::from).to_vec();
    CreateParams {
        key: clock.run_id(),
        on: vec![host.to_owned()],
        exec: ExecSpec::command(argv),
        offline: OfflinePolicy::Fail,
        expires_ms: 60_000,
        max_parallel: None,
    }
}

fn tell_command(ui: Ui, host: &str) -> Result<()> {
    if ui.json() { Ok(()) } else { ui.line(&format!("run      on {}: a first command", clean(host))) }
}

/// Prints the output as it comes, and hands back how the target ended.
async fn follow(ui: Ui, client: &Client, run: RunId, host: &str) -> Result<Target> {
    let mut output = client.output(run, None, 0);
    let mut lines = crate::commands::run::Lines::default();
    let prefix = format!("  {} | ", clean(host));
    loop {
        let mut text = Vec::new();
        let ended = match output.next().await? {
            Some(OutputEvent::Bytes { bytes, .. }) => {
                lines.push(prefix.as_bytes(), &bytes, &mut text);
                false
            }
            Some(OutputEvent::Gap { .. }) => false,
            Some(OutputEvent::End { .. }) | None => {
                lines.finish(prefix.as_bytes(), &mut text);
                true
            }
        };
        if !ui.json() && !text.is_empty() {
            ui.line(String::from_utf8_lossy(&text).trim_end_matches('\n'))?;
        }
        if ended {
            break;
        }
    }
    let mut watch = client.watch_run(run);
    while let Some(event) = watch.next().await? {
        if let ItemEvent::Item { value, .. } = event
            && value.state == JobState::Ended
        {
            return Ok(value);
        }
    }
    Err(Failure::failed("the first command has no outcome"))
}

fn text(event: &Value, name: &str) -> Option<String> {
    event.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn tell(ui: Ui, event: &Value, text: impl FnOnce() -> String) -> Result<()> {
    if ui.json() { ui.object(event) } else { ui.line(&text()) }
}

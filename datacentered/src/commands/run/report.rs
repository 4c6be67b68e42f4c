//! What became of a run: the document for programs, the table and the explanations for people.

use datacentered_client::Client;
use datacentered_proto::operations::RunShow;
use datacentered_proto::ops::GapReason;
use datacentered_proto::ops::job::ExecSpec;
use datacentered_proto::ops::run::{OfflinePolicy, RunReply, RunSummary, ShowParams, Target};
use datacentered_proto::{Outcome, RunId, Timestamp, limits};
use serde::Serialize;

use crate::failure::Result;
use crate::text::clean::{clean, shorten};
use crate::text::{ago, outcome, short_id, size};
use crate::ui::{Ui, table};

/// Most failed targets whose evidence is shown.
const LOOKED_AT: usize = 20;

/// The document that scripts rely on.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    /// The run.
    pub(crate) run: RunId,
    /// All but the targets.
    pub(crate) summary: RunSummary,
    /// What is executed.
    pub(crate) exec: ExecSpec,
    /// Every target.
    pub(crate) targets: Vec<Target>,
}

impl Document {
    /// The run as it stands, all pages of it, the first of which may be there already.
    pub(crate) async fn load(client: &Client, run: RunId, first: Option<RunReply>) -> Result<Self> {
        let mut page = match first {
            Some(page) => page,
            None => Self::page(client, run, None).await?,
        };
        let mut next = page.next.take();
        let mut document =
            Self { run: page.run, summary: page.summary, exec: page.exec, targets: page.targets };
        while let Some(from) = next {
            let mut page = Self::page(client, run, Some(from)).await?;
            next = page.next.take();
            document.targets.append(&mut page.targets);
        }
        Ok(document)
    }

    async fn page(client: &Client, run: RunId, next: Option<String>) -> Result<RunReply> {
        let params = ShowParams { run, limit: Some(limits::MAX_PAGE), next };
        Ok(client.call::<RunShow>(&params).await?)
    }

    /// How many targets count as failed.
    pub(crate) fn failed(&self) -> usize {
        self.failures().count()
    }

    fn failures(&self) -> impl Iterator<Item = &Target> {
        let failed = |outcome: &Outcome| outcome::counts_as_failed(outcome, self.summary.offline);
        self.targets.iter().filter(move |target| target.outcome.as_ref().is_some_and(failed))
    }

    /// For a person.
    pub(crate) fn text(&self, now: Timestamp) -> String {
        let summary = &self.summary;
        let head = table::fields([
            ("run", self.run.to_string()),
            ("command", clean(&summary.command)),
            ("on", clean(&summary.on.join(" or "))),
            ("by", clean(&summary.by)),
            ("created", ago::human(summary.created, now)),
            ("ended", summary.ended.map(|ended| ago::human(ended, now)).unwrap_or_default()),
        ]);
        let rows = self.targets.iter().map(|target| target_row(target, now));
        let targets = table::table(["HOST", "STATE", "OUTCOME", "TOOK", "STDOUT", "STDERR"], rows);
        format!("{head}\n\n{targets}{}", self.evidence())
    }

    /// One target is looked at closely; of many, those that failed.
    fn evidence(&self) -> String {
        if let [target] = self.targets.as_slice() {
            return format!("\n\n{}", evidence(target));
        }
        let failed: Vec<&Target> = self.failures().collect();
        let looked_at = |target: &&Target| format!("\n\n{}:\n{}", clean(&target.host), evidence(target));
        let mut parts: Vec<String> = failed.iter().take(LOOKED_AT).map(looked_at).collect();
        if let Some(more @ 1..) = failed.len().checked_sub(LOOKED_AT) {
            parts.push(format!(
                "\n\n{more} more have failed; the evidence of every target: datacentered run show {} -o json",
                self.run
            ));
        }
        parts.concat()
    }
}

fn target_row(target: &Target, now: Timestamp) -> [String; 6] {
    let took = match (target.started, target.ended) {
        (Some(started), Some(ended)) => ago::elapsed(ended.as_millis().saturating_sub(started.as_millis())),
        (Some(started), None) => ago::elapsed(now.as_millis().saturating_sub(started.as_millis())),
        (None, _) => String::new(),
    };
    let state = if target.unknown { format!("{} (unknown)", target.state) } else { target.state.to_string() };
    [
        clean(&target.host),
        state,
        target.outcome.as_ref().map(|outcome| clean(&outcome.to_string())).unwrap_or_default(),
        took,
        size::human(target.stdout_bytes),
        size::human(target.stderr_bytes),
    ]
}

fn evidence(target: &Target) -> String {
    let rows = target.evidence.iter().map(|evidence| {
        [
            evidence.at.to_string(),
            format!("{:?}", evidence.witness).to_lowercase(),
            clean(&evidence.fact),
            evidence.detail.as_deref().map(clean).unwrap_or_default(),
        ]
    });
    table::table(["AT", "WITNESS", "EVIDENCE", "DETAIL"], rows)
}

/// A line for each target that did not go well, in the order of names.
pub(crate) fn explanations(targets: &[Target], offline: OfflinePolicy, now: Timestamp) -> Vec<String> {
    let failed = |outcome: &Outcome| outcome::counts_as_failed(outcome, offline);
    let mut lines: Vec<(&str, String)> = targets
        .iter()
        .filter_map(|target| target.outcome.as_ref().map(|outcome| (target, outcome)))
        .filter(|(_, outcome)| failed(outcome))
        .map(|(target, outcome)| (target.host.as_str(), told(target, outcome, now)))
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// A line for each target that was passed over, in the order of names.
pub(crate) fn skipped(targets: &[Target], offline: OfflinePolicy, now: Timestamp) -> Vec<String> {
    if offline != OfflinePolicy::Skip {
        return Vec::new();
    }
    let mut lines: Vec<String> = targets
        .iter()
        .filter_map(|target| match &target.outcome {
            Some(Outcome::Offline { since: Some(since) }) => {
                Some(format!("{}: skipped, offline since {}", clean(&target.host), ago::human(*since, now)))
            }
            Some(Outcome::Offline { since: None }) => {
                Some(format!("{}: skipped, it has never connected", clean(&target.host)))
            }
            _ => None,
        })
        .collect();
    lines.sort();
    lines
}

/// What happened to one target, with the last thing that its witness had to say.
pub(crate) fn told(target: &Target, outcome: &Outcome, now: Timestamp) -> String {
    let told = format!("{}: {}", clean(&target.host), outcome::explain(outcome, now));
    match target.evidence.iter().rev().find_map(|evidence| evidence.detail.as_deref()) {
        Some(detail) if matches!(outcome, Outcome::FailedToStart { .. } | Outcome::Interrupted { .. }) => {
            format!("{told} ({})", shorten(detail, 200))
        }
        _ => told,
    }
}

/// Runs in a list.
pub(crate) fn list(ui: Ui, runs: &[RunSummary], now: Timestamp) -> String {
    let rows = runs.iter().map(|run| {
        let counts = run.counts;
        [
            short_id::shorten(run.run),
            ago::human(run.created, now),
            clean(&run.by),
            ui.cell(&run.on.join(" or "), 30),
            ui.cell(&run.command, 40),
            if counts.all_ended() {
                "ended".to_owned()
            } else {
                format!("{} to go", counts.queued + counts.under_way)
            },
            counts.succeeded.to_string(),
            counts.failed.to_string(),
        ]
    });
    table::table(["RUN", "CREATED", "BY", "ON", "COMMAND", "STATE", "OK", "FAILED"], rows)
}

/// A stretch of output that is missing.
pub(crate) fn gap(host: Option<&str>, from: u64, to: u64, reason: GapReason) -> String {
    let why = match reason {
        GapReason::Retention => "it is older than what is kept",
        GapReason::Discarded => "it was discarded on the host, as the run asked for",
        GapReason::Lost => "it was lost",
    };
    let host = host.map(|host| format!("{}: ", clean(host))).unwrap_or_default();
    format!("{host}{} of output are missing from byte {from} on: {why}", size::human(to.saturating_sub(from)))
}

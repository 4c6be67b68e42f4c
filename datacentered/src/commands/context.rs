//! `context ...`.

use serde::Serialize;

use crate::args::Global;
use crate::args::client::Context;
use crate::contexts::{self, Contexts};
use crate::failure::{Failure, Result};
use crate::ui::{Ui, table};

/// A context in a list; never its token.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    current: bool,
    urls: &'a [String],
    account: Option<&'a str>,
    fingerprint: Option<&'a str>,
}

/// `context ...`.
pub(crate) fn run(ui: Ui, global: &Global, command: Context) -> Result<()> {
    let path = contexts::path(global.config.as_deref())?;
    let mut contexts = Contexts::load(&path)?;
    match command {
        Context::List => list(ui, &contexts),
        Context::Use { name } => {
            let (name, _) = contexts.pick(Some(&name))?.ok_or_else(|| unknown(&name))?;
            contexts.current = Some(name.to_owned());
            contexts.save(&path)
        }
        Context::Remove { name } => {
            contexts.contexts.remove(&name).ok_or_else(|| unknown(&name))?;
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
            }
            contexts.save(&path)
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::usage(format!("there is no context '{name}'")).hint("'datacentered context list' shows them")
}

fn list(ui: Ui, contexts: &Contexts) -> Result<()> {
    let listed: Vec<Listed<'_>> = contexts
        .contexts
        .iter()
        .map(|(name, context)| Listed {
            name,
            current: contexts.current.as_ref() == Some(name),
            urls: &context.urls,
            account: context.account.as_deref(),
            fingerprint: context.fingerprint.as_deref(),
        })
        .collect();
    if ui.json() {
        return ui.document(&listed);
    }
    if listed.is_empty() {
        return Ok(());
    }
    let rows = listed.iter().map(|context| {
        [
            if context.current { "*" } else { "" }.to_owned(),
            context.name.to_owned(),
            context.urls.join(","),
            context.account.unwrap_or_default().to_owned(),
        ]
    });
    ui.line(&table::table(["", "NAME", "HUB", "ACCOUNT"], rows))
}

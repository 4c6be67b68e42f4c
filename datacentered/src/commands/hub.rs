//! `hub status` and `hub backup`: the hub as its clients see it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use datacentered_client::Client;
use datacentered_proto::Timestamp;
use datacentered_proto::operations::{HubBackup, HubStatus};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::hub::{BackupParams, StatusReply};

use crate::args::Global;
use crate::connect;
use crate::failure::{Failure, Result};
use crate::text::clean::clean;
use crate::text::{ago, size};
use crate::ui::{Ui, table};

/// `hub status`.
pub(crate) async fn status(ui: Ui, global: &Global) -> Result<()> {
    let client = connect::connect(global).await?;
    let status = client.call::<HubStatus>(&NoParams {}).await.map_err(Failure::from);
    let status = connect::finish(client, status).await?;
    ui.reply(&status, || text(&status, connect::now()))
}

fn text(status: &StatusReply, now: Timestamp) -> String {
    table::fields([
        ("version", clean(&status.version)),
        ("started", ago::human(status.started, now)),
        ("hosts", format!("{} of {} online", status.hosts_online, status.hosts)),
        ("clients", status.clients.to_string()),
        ("runs", format!("{} under way, with {} jobs", status.runs_active, status.jobs_active)),
        ("engine", clean(&status.engine)),
        ("durability", clean(&status.durability)),
        ("syncs", status.fsyncs.to_string()),
        ("memory", size::human(status.resident_bytes)),
        ("epoch", clean(&status.epoch)),
        ("web key", clean(&status.web_fingerprint)),
        ("CA key", clean(&status.ca_fingerprint)),
        (
            "accounts",
            if status.set_up { "yes" } else { "none yet: open the setup link that the hub printed" }
                .to_owned(),
        ),
    ])
}

/// `hub backup FILE`.
pub(crate) async fn backup(ui: Ui, global: &Global, file: PathBuf, force: bool) -> Result<()> {
    if !force && file.as_os_str() != "-" && file.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} exists already", file.display()))
            .hint("give another name, or --force to replace it"));
    }
    let client = connect::connect(global).await?;
    let saved = if file.as_os_str() == "-" {
        copy(&client, &mut io::stdout().lock()).await
    } else {
        to_file(&client, &file).await
    };
    let bytes = connect::finish(client, saved).await?;
    if file.as_os_str() == "-" {
        return Ok(());
    }
    let reply = serde_json::json!({"file": file.display().to_string(), "bytes": bytes});
    ui.reply(&reply, || format!("{}: {}", file.display(), size::human(bytes)))
}

/// Writes beside the file first: what has its name is whole.
async fn to_file(client: &Client, file: &Path) -> Result<u64> {
    let unwritable = |error: io::Error| Failure::failed(format!("cannot write {}: {error}", file.display()));
    let mut name =
        file.file_name().map(OsString::from).ok_or_else(|| unwritable(io::ErrorKind::InvalidInput.into()))?;
    name.push(".part");
    let part = file.with_file_name(name);
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(unwritable)?;
    let saved = async {
        let bytes = copy(client, &mut out).await?;
        File::sync_all(&out).and_then(|()| fs::rename(&part, file)).map_err(unwritable)?;
        Ok(bytes)
    };
    let saved = saved.await;
    if saved.is_err() {
        // Half a backup with the hub's keys in it helps nobody.
        fs::remove_file(&part).ok();
    }
    saved
}

async fn copy(client: &Client, out: &mut impl Write) -> Result<u64> {
    let mut backup = client.bytes::<HubBackup>(|stream| BackupParams { stream }).await?;
    let mut total = 0;
    while let Some(bytes) = backup.next().await? {
        out.write_all(&bytes)?;
        total += bytes.len() as u64;
    }
    out.flush()?;
    Ok(total)
}

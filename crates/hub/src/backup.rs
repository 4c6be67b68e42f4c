//! `hub.backup`: one consistent copy of everything, and its way back.
//!
//! A backup holds the store, the identity and `hub.toml`. Whoever has it is the hub: it is as secret as the data
//! directory.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use datacentered_engine::embedded;
use datacentered_link::BoxFuture;
use datacentered_proto::frame::Kind;
use datacentered_proto::limits::BULK_CHUNK;
use datacentered_proto::operations::HubBackup;
use datacentered_proto::ops::hub::BackupParams;
use datacentered_proto::ops::{EndReason, StreamOpened};
use datacentered_proto::{Cursor, Error, Timestamp};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::sync::Semaphore;

use crate::config::{CONFIG_FILE, ENGINE_DIR};
use crate::dispatch::{Ctx, Table};
use crate::hub::Hub;
use crate::identity;
use crate::outlet::{Outlet, ReaderGone};
use crate::store::engine_error;

/// Bytes made ahead of a slow reader.
const AHEAD: usize = 256 * 1024;

/// Backups that may be under way at once, in this process: each holds a snapshot of everything.
static UNDER_WAY: Semaphore = Semaphore::const_new(2);

/// Registers this operation.
pub fn register(table: &mut Table) {
    table.stream::<HubBackup, _, _, _, _>(backup);
}

/// Writes a stream.
type Body = Box<dyn FnOnce(Outlet) -> BoxFuture<'static, ()> + Send>;

async fn backup(ctx: Ctx, _: BackupParams) -> Result<(StreamOpened, Body), Error> {
    let permit = UNDER_WAY.try_acquire().map_err(|_| {
        Error::limited("two backups are under way already; try again when one has ended")
            .with_retry_after_ms(10_000)
    })?;
    let hub = ctx.hub.clone();
    let extra = extra_files(&hub).await?;
    tracing::info!(by = ctx.who.name(), "a backup begins");
    let cursor = Some(Cursor::new(hub.engine.epoch(), 0));
    let body: Body = Box::new(move |outlet| {
        Box::pin(async move {
            stream(&hub, extra, outlet).await;
            drop(permit);
        })
    });
    Ok((StreamOpened { cursor, credit: None }, body))
}

/// What a backup holds beside the store.
async fn extra_files(hub: &Arc<Hub>) -> Result<Vec<(String, Bytes)>, Error> {
    let (identity, config) = (hub.identity.clone(), hub.config.data_dir.join(CONFIG_FILE));
    let read = move || -> Result<Vec<(String, Bytes)>, Error> {
        let mut files = identity.backup_files().map_err(|error| Error::unavailable(error.to_string()))?;
        match std::fs::read(&config) {
            Ok(content) => files.push((CONFIG_FILE.into(), content.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::unavailable(format!("cannot read `{}`: {error}", config.display())));
            }
        }
        Ok(files)
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| Error::internal("reading the identity failed; the hub's log has more"))?
}

async fn stream(hub: &Arc<Hub>, extra: Vec<(String, Bytes)>, mut outlet: Outlet) {
    let (mut writer, reader) = tokio::io::duplex(AHEAD);
    // Each half owns its end, so that either one's failure ends the other.
    let make = async move {
        let made = embedded::backup(&hub.engine, extra, &mut writer).await;
        drop(writer);
        made
    };
    let mut sent = 0;
    let (made, read) = tokio::join!(make, send(reader, &mut outlet, &mut sent));
    match (made, read) {
        (_, Err(ReaderGone)) => {}
        (Ok(()), Ok(())) => outlet.end(EndReason::Done, sent, None).await,
        (Err(error), Ok(())) => outlet.end(EndReason::Failed, sent, Some(engine_error(error))).await,
    }
}

async fn send(mut reader: DuplexStream, outlet: &mut Outlet, sent: &mut u64) -> Result<(), ReaderGone> {
    loop {
        let mut chunk = BytesMut::with_capacity(BULK_CHUNK);
        // The other half is in this process: nothing but its end can come instead of bytes.
        match reader.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => {
                outlet.bytes(Kind::File, *sent, chunk.freeze()).await?;
                *sent += read as u64;
            }
        }
    }
}

/// What a restore brought back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// The new epoch: every cursor of before is answered with a gap.
    pub epoch: String,
    /// The epoch that the backup was taken from.
    pub backup_epoch: String,
    /// When it was taken.
    pub backup_at: Timestamp,
}

/// Why a restore did not happen, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the directory.
    #[error(
        "`{path}` is not empty; restore into an empty or new directory (--data-dir), so that nothing is overwritten"
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot {action} `{path}`; check that this user may, and that the disk is not full")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The backup cannot be used.
    #[error(
        "`{path}` cannot be restored; check that it is a whole backup made with `datacentered hub backup`"
    )]
    Backup {
        /// The backup.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: datacentered_engine::Error,
    },
    /// A file of the backup has a name that this version does not know.
    #[error(
        "the backup holds a file that this version does not know (`{name}`); restore with the version that made it"
    )]
    UnknownFile {
        /// The name.
        name: String,
    },
    /// The identity cannot be written.
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
}

/// Restores a backup into a data directory that is empty or not there yet. No hub may run on it. Blocks.
///
/// The epoch is a new one. A restore that fails half way leaves a directory that no hub starts on; empty it and try again.
pub fn restore(data_dir: &Path, backup: &Path) -> Result<Restored, RestoreError> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { action, path, source }
    };
    // Opened first: a wrong name leaves nothing behind.
    let file = File::open(backup).map_err(io("read", backup))?;
    match std::fs::read_dir(data_dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(RestoreError::NotEmpty { path: data_dir.to_owned() });
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("read", data_dir)(error)),
    }
    let marker = identity::begin_restore(data_dir)?;
    let engine = match embedded::restore(BufReader::new(file), &data_dir.join(ENGINE_DIR)) {
        Ok(engine) => engine,
        Err(source) => {
            marker.give_up();
            return Err(RestoreError::Backup { path: backup.to_owned(), source });
        }
    };
    for (name, content) in &engine.extra {
        if !identity::restore_file(data_dir, name, content)? {
            return Err(RestoreError::UnknownFile { name: name.clone() });
        }
    }
    marker.finish()?;
    Ok(Restored {
        epoch: engine.epoch,
        backup_epoch: engine.backup_epoch,
        backup_at: Timestamp::from_millis(i64::try_from(engine.backup_at).unwrap_or(i64::MAX)),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;
    use crate::server::harness::{TestHub, exchange};

    #[tokio::test]
    async fn a_hub_comes_back_from_its_backup() {
        let hub = TestHub::start().await;
        std::fs::write(hub.data.path().join(CONFIG_FILE), "[limits]\nsessions = 77\n").expect("writes");
        let token = hub.token("admin").await;
        let (ca, epoch) = (hub.hub.identity.ca_fingerprint().to_owned(), hub.hub.store.epoch().to_owned());
        let answer = exchange(hub.unix().await, "POST", "/api/v1/hub.backup", &[], "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        let viewer = hub.token("viewer").await;
        assert_eq!(hub.call(&viewer, "hub.backup", &json!({})).await.code(), "forbidden");
        hub.stop().await;

        let place = tempfile::tempdir().expect("tempdir");
        let file = place.path().join("hub.backup");
        std::fs::write(&file, &answer.body).expect("writes");
        let data = tempfile::tempdir().expect("tempdir");
        let restored = restore(data.path(), &file).expect("restores");
        assert_ne!(restored.epoch, restored.backup_epoch);
        let mode = |name: &str| {
            std::fs::metadata(data.path().join(name)).expect("stat").permissions().mode() & 0o777
        };
        assert_eq!((mode("identity"), mode("identity/ca.key"), mode("hub.toml")), (0o700, 0o600, 0o600));
        let error = restore(data.path(), &file).expect_err("not empty").to_string();
        assert!(error.contains("not empty"), "{error}");

        let hub = TestHub::on(data, |_| {}).await;
        assert_eq!(hub.hub.identity.ca_fingerprint(), ca);
        assert_ne!(hub.hub.store.epoch(), epoch);
        hub.call(&token, "token.list", &json!({})).await.ok();
        assert_eq!(
            hub.call(&viewer, "host.list", &json!({})).await.code(),
            "unauthenticated",
            "made after the backup"
        );
        hub.stop().await;
    }

    #[tokio::test]
    async fn a_part_of_a_backup_is_not_taken_for_the_whole() {
        let hub = TestHub::start().await;
        let answer = exchange(hub.unix().await, "POST", "/api/v1/hub.backup", &[], "").await;
        hub.stop().await;
        let place = tempfile::tempdir().expect("tempdir");
        let file = place.path().join("hub.backup");
        std::fs::write(&file, &answer.body[..answer.body.len() - 20]).expect("writes");
        let data = place.path().join("data");
        assert!(matches!(restore(&data, &file), Err(RestoreError::Backup { .. })));
        let config = crate::config::Config { data_dir: data.clone(), ..crate::config::Config::default() };
        let error = crate::identity::Identity::open(&config, &datacentered_link::clock::Clock::system());
        assert!(error.expect_err("unfinished").to_string().contains("restore again"));
        // What is no backup at all leaves nothing behind.
        let other = place.path().join("other");
        std::fs::write(&file, b"no backup").expect("writes");
        assert!(matches!(restore(&other, &file), Err(RestoreError::Backup { .. })));
        assert_eq!(std::fs::read_dir(&other).expect("reads").count(), 0);
        let error = restore(&data, &place.path().join("nothing")).expect_err("no file").to_string();
        assert!(error.contains("nothing"), "{error}");
    }
}

//! Putting the identity's files back from a backup.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{FILES, IDENTITY_DIR, IdentityError, files};
use crate::config::CONFIG_FILE;

/// There while a restore is under way; no hub starts on the directory.
const MARKER: &str = "restore.incomplete";

/// A restore that is under way.
#[derive(Debug)]
pub(crate) struct Restoring {
    marker: PathBuf,
}

/// Makes the data directory and marks it.
pub(crate) fn begin_restore(data_dir: &Path) -> Result<Restoring, IdentityError> {
    files::private_directory(data_dir)?;
    let marker = data_dir.join(MARKER);
    files::write_private(
        &marker,
        b"a restore is under way or has failed; empty this directory and restore again\n",
    )?;
    Ok(Restoring { marker })
}

impl Restoring {
    /// It has failed: where nothing but the mark is there, the directory is as good as before.
    pub(crate) fn give_up(self) {
        let entries = self.marker.parent().and_then(|directory| fs::read_dir(directory).ok());
        if entries.is_some_and(|entries| entries.count() == 1) {
            // One that cannot be removed only asks for an empty directory.
            let _ = fs::remove_file(&self.marker);
        }
    }

    /// Everything is there.
    pub(crate) fn finish(self) -> Result<(), IdentityError> {
        let remove = || {
            fs::remove_file(&self.marker)?;
            match self.marker.parent() {
                Some(directory) => File::open(directory)?.sync_all(),
                None => Ok(()),
            }
        };
        remove().map_err(|source| IdentityError::Io { action: "remove", path: self.marker.clone(), source })
    }
}

/// Refuses a directory whose restore has not finished.
pub(super) fn check_finished(data_dir: &Path) -> Result<(), IdentityError> {
    if data_dir.join(MARKER).exists() {
        return Err(IdentityError::RestoreUnfinished { path: data_dir.to_owned() });
    }
    Ok(())
}

/// Writes one file of a backup; says whether its name is known. Any other name could lead out of the directory.
pub(crate) fn restore_file(data_dir: &Path, name: &str, content: &[u8]) -> Result<bool, IdentityError> {
    if name == CONFIG_FILE {
        files::write_private(&data_dir.join(CONFIG_FILE), content)?;
        return Ok(true);
    }
    let known = FILES
        .iter()
        .find(|file| name.strip_prefix(IDENTITY_DIR).and_then(|n| n.strip_prefix('/')) == Some(file));
    let Some(file) = known else { return Ok(false) };
    let directory = data_dir.join(IDENTITY_DIR);
    files::private_directory(&directory)?;
    files::write_private(&directory.join(file), content)?;
    Ok(true)
}

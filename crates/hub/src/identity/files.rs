//! Private files: whole after a crash, and nobody else's to read.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::IdentityError;

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Most bytes read of any file of the identity.
const MAX_FILE: u64 = 256 * 1024;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path, source }
}

/// Makes a directory that only its owner may enter, and takes others' rights away where it was there already.
pub(super) fn private_directory(path: &Path) -> Result<(), IdentityError> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(path).map_err(failed("create", path))?;
    let mode = fs::metadata(path).map_err(failed("look at", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(PRIVATE_DIRECTORY))
            .map_err(failed("protect", path))?;
    }
    Ok(())
}

/// Writes a private file: after a crash either the old or the new content is there, whole; after the return the new.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let write = || -> io::Result<()> {
        let temporary = path.with_added_extension("new");
        // A leftover of a crash could have other permissions; the file is always a fresh one.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(failed("write", path))
}

/// A private file's content; `None` where there is no such file. One that others may read is refused.
pub(super) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mode = file.metadata().map_err(failed("look at", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed("read", path))?;
    if read as u64 > MAX_FILE {
        return Err(IdentityError::Damaged {
            path: path.to_owned(),
            why: format!("it is larger than {MAX_FILE} bytes"),
        });
    }
    Ok(Some(content))
}

//! Small files that must be there whole after a crash, and that nobody else may read.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Nobody but the owner.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Makes a directory that only its owner may enter, and takes others' rights away where it was there already.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(PRIVATE_DIRECTORY))?;
    }
    Ok(())
}

/// Writes a private file so that after a crash either the old or the new content is there, whole, and after the return
/// the new one.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
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
}

/// A file's text, at most `max` bytes of it; `None` where there is no such file.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    if file.take(max + 1).read_to_string(&mut text)? as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max} bytes")));
    }
    Ok(Some(text))
}

/// Whether others than the owner have any right to a file.
pub(super) fn is_open_to_others(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_replaced_as_a_whole() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.json");
        fs::write(path.with_extension("new"), "leftover").expect("writes");
        write_durably(&path, b"one").expect("writes");
        write_durably(&path, b"two").expect("writes");
        assert_eq!(read_bounded(&path, 16).expect("reads").as_deref(), Some("two"));
        assert_eq!(is_open_to_others(&path).expect("stat"), None);
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn reading_is_bounded_and_absence_is_no_failure() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("big");
        assert_eq!(read_bounded(&path, 4).expect("reads"), None);
        fs::write(&path, "12345").expect("writes");
        assert_eq!(read_bounded(&path, 4).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
        assert!(is_open_to_others(&path).expect("stat").is_some());
    }

    #[test]
    fn directories_are_private_even_where_they_were_not() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("agent");
        fs::create_dir(&path).expect("creates");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("chmod");
        private_directory(&path).expect("makes private");
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o700);
    }
}

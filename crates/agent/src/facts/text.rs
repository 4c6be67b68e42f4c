//! Reading the kernel's and the distribution's small text files, within bounds.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The most that is read of one file. `/proc/cpuinfo` of a machine with a thousand processors fits.
const MAX_FILE: u64 = 4 << 20;

/// A path of the host, below the root that the caller named.
pub(super) fn at(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// A file's bytes up to the bound; empty where it cannot be read.
pub(super) fn bytes(root: &Path, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(file) = File::open(at(root, path)) {
        // What was read before a failure is still true.
        let _ = file.take(MAX_FILE).read_to_end(&mut out);
    }
    out
}

/// A file's text, with what is not UTF-8 replaced; empty where it cannot be read.
pub(super) fn text(root: &Path, path: &str) -> String {
    match String::from_utf8(bytes(root, path)) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

//! What a file system has against an operation, as it crosses the wire.

use std::io::ErrorKind;

use datacentered_proto::ops::file::{FAULT, fault as word};
use datacentered_proto::{Code, Error};

/// A fault of the file system: `kind` is one of [`word`].
pub fn fault(code: Code, kind: &str, message: impl Into<String>) -> Error {
    Error::new(code, message).with_details(serde_json::json!({ FAULT: kind }))
}

/// What the system says about a path, for a person and for programs.
pub fn io(action: &str, path: &[u8], error: &std::io::Error) -> Error {
    let path = String::from_utf8_lossy(path);
    let (code, kind, why) = match error.kind() {
        ErrorKind::NotFound => (Code::NotFound, word::NOT_FOUND, "there is no such file or directory"),
        ErrorKind::PermissionDenied => (Code::Forbidden, word::PERMISSION, "permission denied"),
        ErrorKind::StorageFull => (Code::Limited, word::FULL, "the file system is full"),
        ErrorKind::QuotaExceeded => (Code::Limited, word::FULL, "the disk quota is used up"),
        ErrorKind::FileTooLarge => (Code::Limited, word::FULL, "larger than a file may be there"),
        ErrorKind::IsADirectory => (Code::Conflict, word::KIND, "it is a directory"),
        ErrorKind::NotADirectory => (Code::Conflict, word::KIND, "a part of the path is not a directory"),
        ErrorKind::ReadOnlyFilesystem => (Code::Forbidden, word::PERMISSION, "the file system is read-only"),
        _ if is_symlink(error) => {
            (Code::Conflict, word::KIND, "a part of the path is a symbolic link, which is not followed")
        }
        _ => return fault(Code::Conflict, word::OTHER, format!("cannot {action} {path}: {error}")),
    };
    fault(code, kind, format!("cannot {action} {path}: {why}"))
}

fn is_symlink(error: &std::io::Error) -> bool {
    let left = [rustix::io::Errno::LOOP, rustix::io::Errno::XDEV];
    error.raw_os_error().is_some_and(|raw| left.iter().any(|errno| errno.raw_os_error() == raw))
}

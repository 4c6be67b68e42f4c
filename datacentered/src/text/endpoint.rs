//! Where a file is, as people write it: `HOST:PATH`, `:PATH`, or a path on this machine.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::selector;

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// On this machine.
    Here(Vec<u8>),
    /// On one host.
    Host {
        /// Its name or id.
        host: String,
        /// Where it is there.
        path: Vec<u8>,
    },
    /// On every chosen host.
    Chosen(Vec<u8>),
}

/// Why a text names no file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAPath {
    /// Nothing at all.
    #[error("the path is empty; '.' is the directory you are in")]
    Empty,
    /// What stands before the colon is no name.
    #[error(
        "'{0}' is not the name of one host; write HOST:PATH, --on SELECTOR with :PATH, or ./PATH for a file here"
    )]
    Host(String),
}

/// Reads `HOST:PATH`, `:PATH` or a path. A colon behind a slash is part of a path, as with scp.
pub(crate) fn parse(text: &OsStr) -> Result<Endpoint, NotAPath> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(NotAPath::Empty);
    }
    let special = bytes.iter().position(|byte| matches!(byte, b':' | b'/'));
    let Some(at) = special.filter(|at| bytes.get(*at) == Some(&b':')) else {
        return Ok(Endpoint::Here(bytes.to_vec()));
    };
    let (host, path) = (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default());
    if host.is_empty() {
        return Ok(Endpoint::Chosen(path.to_vec()));
    }
    let name = std::str::from_utf8(host).ok().map(ToOwned::to_owned);
    match name.filter(|name| selector::literal(std::slice::from_ref(name)) == Some(name.as_str())) {
        Some(host) => Ok(Endpoint::Host { host, path: path.to_vec() }),
        None => Err(NotAPath::Host(String::from_utf8_lossy(host).into_owned())),
    }
}

/// A path taken apart: the directory it lies in, and its last name. The name is empty where the path means a directory
/// itself (`/`, `.`, `a/..`, nothing at all).
pub(crate) fn split(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let trimmed = path.get(..end).unwrap_or_default();
    if trimmed.is_empty() {
        // All slashes, or nothing.
        return (path.get(..path.len().min(1)).unwrap_or_default().to_vec(), Vec::new());
    }
    let at = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (parent, name) = (trimmed.get(..at).unwrap_or_default(), trimmed.get(at..).unwrap_or_default());
    if matches!(name, b"." | b"..") {
        return (trimmed.to_vec(), Vec::new());
    }
    (parent.to_vec(), name.to_vec())
}

/// Paths below one another.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !joined.is_empty() && !name.is_empty() && !joined.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn here(path: &str) -> Endpoint {
        Endpoint::Here(path.into())
    }

    fn on(host: &str, path: &str) -> Endpoint {
        Endpoint::Host { host: host.into(), path: path.into() }
    }

    #[test]
    fn what_people_write() {
        let read = |text: &str| parse(OsStr::new(text)).expect("a path");
        assert_eq!(read("a/b"), here("a/b"));
        assert_eq!(read("./a:b"), here("./a:b"));
        assert_eq!(read("/x:y"), here("/x:y"));
        assert_eq!(read("web1:/etc/hosts"), on("web1", "/etc/hosts"));
        assert_eq!(read("web1:"), on("web1", ""));
        assert_eq!(read("node-3.example.net:a:b"), on("node-3.example.net", "a:b"));
        assert_eq!(read(":/etc/x"), Endpoint::Chosen(b"/etc/x".to_vec()));
        assert_eq!(parse(OsStr::new("")), Err(NotAPath::Empty));
        for bad in ["web-*:/x", "all:/x", "a,b:/x", "role=db:/x"] {
            assert!(matches!(parse(OsStr::new(bad)), Err(NotAPath::Host(_))), "{bad}");
        }
        assert_eq!(
            parse(OsStr::from_bytes(b"web1:/\xff")),
            Ok(Endpoint::Host { host: "web1".into(), path: b"/\xff".to_vec() })
        );
        assert!(parse(OsStr::from_bytes(b"\xff:/x")).is_err());
    }

    #[test]
    fn paths_are_taken_apart() {
        let apart = |path: &str| {
            let (parent, name) = split(path.as_bytes());
            (String::from_utf8(parent).expect("text"), String::from_utf8(name).expect("text"))
        };
        let pair = |parent: &str, name: &str| (parent.to_owned(), name.to_owned());
        assert_eq!(apart("/etc/hosts"), pair("/etc/", "hosts"));
        assert_eq!(apart("hosts"), pair("", "hosts"));
        assert_eq!(apart("a/b//"), pair("a/", "b"));
        assert_eq!(apart("/a"), pair("/", "a"));
        assert_eq!(apart("//"), pair("/", ""));
        assert_eq!(apart(""), pair("", ""));
        assert_eq!(apart("."), pair(".", ""));
        assert_eq!(apart("a/."), pair("a/.", ""));
        assert_eq!(apart("a/../"), pair("a/..", ""));
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = parse(OsStr::from_bytes(&bytes));
            let (parent, name) = split(&bytes);
            prop_assert!(!name.contains(&b'/') && name != b"..");
            prop_assert!(parent.len() + name.len() <= bytes.len());
            let _ = join(&parent, &name);
        }
    }
}

//! Paths as they come over the wire: checked before anything is done with them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use datacentered_proto::{ByteString, Error};

/// Longest path, in bytes: the kernel's own limit.
const MAX_PATH: usize = 4096;

/// Longest name of one file, in bytes: that of every common file system.
const MAX_NAME: usize = 255;

/// A path below a root: plain names only, none of which is `.` or `..`. Empty for the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relative(Vec<u8>);

impl Relative {
    /// Checks a path.
    pub fn parse(path: &ByteString) -> Result<Self, Error> {
        let bytes = path.as_bytes();
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let plain =
            |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME && !name.contains(&0);
        if bytes.len() >= MAX_PATH || !bytes.split(|byte| *byte == b'/').all(plain) {
            return Err(Error::invalid(format!(
                "'{}' is not a path below a root: give names joined by '/', none of them '.' or '..', none over {MAX_NAME} bytes",
                path.to_text().chars().take(200).collect::<String>()
            )));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The bytes of it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, from the root on.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The path of what is in it by this name.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut joined = self.0.clone();
        if !joined.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Self(joined)
    }

    /// The whole path, below a root.
    pub fn below(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(OsStr::from_bytes(&self.0)) }
    }

    /// The directory that it lies in, and its name; none for the root itself.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => Some((Self(self.0.get(..at)?.to_vec()), self.0.get(at + 1..)?)),
            None => Some((Self::default(), &self.0)),
        }
    }

    /// As it goes over the wire.
    pub fn to_wire(&self) -> ByteString {
        ByteString(self.0.clone())
    }
}

/// The path of a root; a relative one begins in `home`.
pub fn root_path(root: &ByteString, home: &Path) -> Result<PathBuf, Error> {
    let bytes = root.as_bytes();
    if bytes.len() >= MAX_PATH || bytes.contains(&0) {
        return Err(Error::invalid(format!("a path has less than {MAX_PATH} bytes, none of them zero")));
    }
    Ok(home.join(OsStr::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_would_leave_the_root_is_no_path() {
        for bad in ["/", "/etc", "..", "../x", "a/../b", "a/..", "./a", "a/.", "a//b", "a/", "a\0b"] {
            assert!(Relative::parse(&bad.into()).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b", "...", "a/..b", " ", "a\nb", "-"] {
            assert_eq!(Relative::parse(&good.into()).expect("a path").as_bytes(), good.as_bytes());
        }
        assert!(Relative::parse(&"a".repeat(256).into()).is_err());
        assert!(Relative::parse(&ByteString(vec![0xff, b'/', 0xfe])).is_ok());
    }

    #[test]
    fn a_path_is_taken_apart_and_put_together() {
        let path = Relative::parse(&"a/b/c".into()).expect("a path");
        let (parent, name) = path.split().expect("below the root");
        assert_eq!((parent.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(parent.join(name), path);
        let top = Relative::parse(&"x".into()).expect("a path");
        assert_eq!(top.split().expect("below the root"), (Relative::default(), &b"x"[..]));
        assert_eq!(Relative::default().split(), None);
        assert_eq!(path.names().count(), 3);
        assert_eq!(Relative::default().names().count(), 0);
    }

    #[test]
    fn relative_roots_begin_at_home() {
        let root = |text: &str| root_path(&text.into(), Path::new("/home/x")).expect("a path");
        assert_eq!(root("/etc"), Path::new("/etc"));
        assert_eq!(root("a"), Path::new("/home/x/a"));
        assert_eq!(root(""), Path::new("/home/x/"));
        assert!(root_path(&"a\0".into(), Path::new("/")).is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_never_leaves(bytes: Vec<u8>) {
            if let Ok(path) = Relative::parse(&ByteString(bytes)) {
                prop_assert!(path.names().all(|name| name != b".." && name != b"." && !name.contains(&b'/')));
            }
        }
    }
}

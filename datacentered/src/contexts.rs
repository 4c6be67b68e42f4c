//! The configuration file: the hubs this person has logged in to.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Everything in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contexts {
    /// The context that counts where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// One hub, and how to get in.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// Where it is; several are tried in turn.
    pub(crate) urls: Vec<String>,
    /// SHA-256 of its web key, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// The account, for lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    /// The session's or API token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("urls", &self.urls)
            .field("fingerprint", &self.fingerprint)
            .field("account", &self.account)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .finish()
    }
}

impl Contexts {
    /// Reads the file; one that does not exist is an empty one.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
        };
        toml::from_str(&text).map_err(|error| {
            // The parser's own rendering quotes the line, and lines hold tokens.
            Failure::failed(format!("{} is not a configuration file: {}", path.display(), error.message()))
                .hint("correct it, or move it away and log in again")
        })
    }

    /// Writes the file, readable by its owner only. It is replaced whole: a crash leaves the old or the new one.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        self.try_save(path)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
    }

    fn try_save(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut name = path.file_name().map(OsString::from).ok_or(io::ErrorKind::InvalidInput)?;
        name.push(format!(".{}", std::process::id()));
        let fresh = path.with_file_name(name);
        let written = (|| {
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        })();
        if written.is_err() {
            // What is left over holds tokens; the first error is the one to tell.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// A context by name, or the current one.
    pub(crate) fn pick(&self, name: Option<&str>) -> Result<Option<(&str, &Context)>> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok(Some((name, context))),
            None => Err(Failure::usage(format!("there is no context '{name}'"))
                .hint("'datacentered context list' shows them; 'datacentered login URL' makes one")),
        }
    }

    /// The context that has one of these URLs.
    pub(crate) fn with_url(&self, urls: &[String]) -> Option<&Context> {
        self.contexts.values().find(|context| context.urls.iter().any(|url| urls.contains(url)))
    }
}

/// Where the file is: as given, else in the XDG configuration directory.
pub(crate) fn path(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    xdg("XDG_CONFIG_HOME", ".config").map(|directory| directory.join("datacentered/config.toml")).ok_or_else(
        || {
            Failure::usage("cannot tell where the configuration file is: HOME is not set")
                .hint("set HOME, or DATACENTERED_CONFIG to the file")
        },
    )
}

/// An XDG base directory.
pub(crate) fn xdg(variable: &str, fallback: &str) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    std::env::var_os(variable)
        .and_then(absolute)
        .or_else(|| std::env::var_os("HOME").and_then(absolute).map(|home| home.join(fallback)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn sample() -> Contexts {
        let context = Context {
            urls: vec!["wss://hub.example.net:7272".into()],
            fingerprint: Some("ab".repeat(32)),
            account: Some("ann".into()),
            token: Some("dc_secret".into()),
        };
        Contexts { current: Some("production".into()), contexts: [("production".into(), context)].into() }
    }

    #[test]
    fn kept_for_the_owner_only() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("datacentered/config.toml");
        assert_eq!(Contexts::load(&path).expect("empty"), Contexts::default());
        sample().save(&path).expect("saves");
        sample().save(&path).expect("saves again");
        assert_eq!(Contexts::load(&path).expect("loads"), sample());
        let mode = fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = fs::read_dir(path.parent().expect("parent")).expect("lists").count();
        assert_eq!(left, 1);
    }

    #[test]
    fn a_broken_file_is_explained_without_its_secrets() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("config.toml");
        fs::write(&path, "token = \"dc_secret\" oops").expect("writes");
        let failure = Contexts::load(&path).expect_err("broken");
        assert!(!failure.message.contains("dc_secret"), "{}", failure.message);
        assert!(!format!("{:?}", sample()).contains("dc_secret"));
    }

    #[test]
    fn contexts_are_found_by_name_and_by_url() {
        let contexts = sample();
        assert_eq!(contexts.pick(None).expect("current").map(|(name, _)| name), Some("production"));
        assert_eq!(contexts.pick(Some("staging")).expect_err("unknown").exit, crate::failure::Exit::Usage);
        assert!(contexts.with_url(&["wss://hub.example.net:7272".into()]).is_some());
        assert!(contexts.with_url(&["wss://other:1".into()]).is_none());
    }
}

//! `DATA_DIR/agent.toml`: every limit of the agent, by name. The file may be absent; so may every line of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use datacentered_link::ProxySetting;
use datacentered_proto::limits::MAX_SPEC;
use serde::Deserialize;

use crate::cgroup;
use crate::facts::FactsConfig;
use crate::hub_link::HubConfig;
use crate::jobs::JobsConfig;
use crate::range::Range;
use crate::serve::ServeConfig;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "agent.toml";

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("cannot read `{path}`; check its permissions, or remove it to use the defaults")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file does not say what it may say.
    #[error("{path}:{line}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A value is out of its range.
    #[error("{path}: `{name}` is {value}; it has to be between {least} and {most}")]
    Range {
        /// The file.
        path: PathBuf,
        /// `table.name` of the value.
        name: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// There is no directory to keep the agent's state in.
    #[error(
        "there is no place for the agent's state: set HOME or XDG_STATE_HOME, or name a directory with --data-dir"
    )]
    NoDataDir,
}

/// The whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name to ask for at enrolment, where the command line names none; else the hostname.
    pub name: Option<String>,
    /// Labels to ask for at enrolment; the command line's win.
    pub labels: BTreeMap<String, String>,
    /// The host's policy; the default of [`crate::policy::default_path`] where absent. The command line's wins.
    pub policy: Option<PathBuf>,
    /// The HTTP proxy to the hub; "none" for none. Where absent the environment's.
    pub proxy: Option<ProxySetting>,
    /// Hubs that are reached without that proxy, as in `NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// The way to the hub: when to try again, what to report.
    pub hub: HubConfig,
    /// How long to wait before dialling again.
    pub reconnect: datacentered_link::backoff::Policy,
    /// Limits of the connection itself.
    pub link: datacentered_link::Limits,
    /// Limits of what the hub may ask for at once.
    pub serve: ServeConfig,
    /// What the host tells about itself.
    pub facts: FactsConfig,
    /// Limits of what runs here.
    pub jobs: JobLimits,
}

/// Limits of what runs here; `[jobs]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobLimits {
    /// Most jobs that the hub has not released.
    pub max_jobs: u32,
    /// Largest description of a command, in bytes of JSON.
    pub max_spec_bytes: usize,
    /// Most bytes of standard input that one job may have waiting.
    pub max_stdin_bytes: u64,
    /// Largest spool of one job in bytes, whatever a run asks for.
    pub max_spool_bytes: u64,
    /// How long output is read after a command has ended where others still hold its pipes, in milliseconds.
    pub drain_after_exit_ms: u64,
    /// Whether jobs get control groups of their own where the system allows it.
    pub cgroups: bool,
}

impl Default for JobLimits {
    fn default() -> Self {
        let config = JobsConfig::new("");
        Self {
            max_jobs: config.max_jobs,
            max_spec_bytes: config.max_spec,
            max_stdin_bytes: config.max_stdin,
            max_spool_bytes: config.max_spool,
            drain_after_exit_ms: u64::try_from(config.drain_after_exit.as_millis()).unwrap_or(u64::MAX),
            cgroups: config.cgroups == cgroup::Choice::Auto,
        }
    }
}

impl JobLimits {
    fn ranges(&self) -> [Range; 5] {
        const MIB: u64 = 1 << 20;
        [
            Range::new("jobs.max_jobs", self.max_jobs.into(), 1, 1 << 20),
            Range::new("jobs.max_spec_bytes", self.max_spec_bytes as u64, 1024, MAX_SPEC as u64),
            Range::new("jobs.max_stdin_bytes", self.max_stdin_bytes, 64 * 1024, 1024 * MIB),
            Range::new("jobs.max_spool_bytes", self.max_spool_bytes, MIB, 1024 * 1024 * MIB),
            Range::new("jobs.drain_after_exit_ms", self.drain_after_exit_ms, 0, 3_600_000),
        ]
    }

    /// The settings of the job manager, for a data directory.
    pub fn for_data_dir(&self, data_dir: &Path) -> JobsConfig {
        JobsConfig {
            max_jobs: self.max_jobs,
            max_spec: self.max_spec_bytes,
            max_stdin: self.max_stdin_bytes,
            max_spool: self.max_spool_bytes,
            drain_after_exit: Duration::from_millis(self.drain_after_exit_ms),
            cgroups: if self.cgroups { cgroup::Choice::Auto } else { cgroup::Choice::Off },
            ..JobsConfig::new(data_dir)
        }
    }
}

impl Config {
    /// Reads the configuration of a data directory.
    pub fn load(data_dir: &Path) -> Result<Self, ConfigError> {
        let path = data_dir.join(FILE_NAME);
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        Self::parse(&path, &text)
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let ranges = self
            .hub
            .ranges()
            .into_iter()
            .chain(self.serve.ranges())
            .chain(self.facts.ranges())
            .chain(self.jobs.ranges());
        for Range { name, value, least, most } in ranges {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::Range { path: path.to_owned(), name, value, least, most });
            }
        }
        Ok(())
    }
}

/// Where the agent keeps its state unless told otherwise: the system's directory for root, the user's own for others.
pub fn default_data_dir() -> Result<PathBuf, ConfigError> {
    const NAME: &str = "datacentered-agent";
    if rustix::process::geteuid().is_root() {
        return Ok(Path::new("/var/lib").join(NAME));
    }
    let named = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    named("XDG_STATE_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join(NAME))
        .ok_or(ConfigError::NoDataDir)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_FILE} bytes")));
    }
    fs::read_to_string(path)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Config::parse(Path::new("/d/agent.toml"), text).expect_err("is refused").to_string()
    }

    #[test]
    fn no_file_means_defaults_and_the_defaults_are_in_range() {
        let directory = tempfile::tempdir().expect("tempdir");
        let config = Config::load(directory.path()).expect("loads");
        config.check(Path::new("agent.toml")).expect("in range");
        assert!(config.name.is_none());
    }

    #[test]
    fn the_shipped_example_is_valid_and_says_the_defaults() {
        let example = include_str!("../../../packaging/config/agent.toml");
        Config::parse(Path::new("agent.toml"), example).expect("is valid");
        let uncommented: String = example
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let config =
            Config::parse(Path::new("agent.toml"), &uncommented).expect("every line is a valid setting");
        // These have no default that could be written down.
        let defaults = Config {
            name: config.name.clone(),
            labels: config.labels.clone(),
            policy: config.policy.clone(),
            proxy: config.proxy.clone(),
            no_proxy: config.no_proxy.clone(),
            ..Config::default()
        };
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
        assert!(config.name.is_some() && !config.labels.is_empty());
        assert!(config.policy.is_some() && config.proxy.is_some() && !config.no_proxy.is_empty());
    }

    #[test]
    fn mistakes_are_found_by_file_and_line() {
        let message = refused("name = \"a\"\n\n[facts]\nintervall_s = 3\n");
        assert!(message.starts_with("/d/agent.toml:4: unknown field `intervall_s`"), "{message}");
        let message = refused("[hub]\nreports_in_flight = \"many\"\n");
        assert!(message.starts_with("/d/agent.toml:2: "), "{message}");
        let message = refused("a\n");
        assert!(message.starts_with("/d/agent.toml:1: "), "{message}");
    }

    #[test]
    fn values_out_of_range_are_named_with_their_range() {
        let message = refused("[hub]\nreports_in_flight = 0\n");
        assert!(
            message.contains("`hub.reports_in_flight` is 0") && message.contains("between 1 and"),
            "{message}"
        );
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let directory = tempfile::tempdir().expect("tempdir");
        fs::create_dir(directory.path().join(FILE_NAME)).expect("creates");
        let message = Config::load(directory.path()).expect_err("is refused").to_string();
        assert!(message.contains("agent.toml"), "{message}");
    }
}

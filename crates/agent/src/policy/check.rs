//! `policy check`: what the policy would say, and by which line.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use datacentered_link::clock::Clock;
use datacentered_proto::ops::job::{ExecSpec, Script};
use datacentered_proto::{ByteString, Timestamp};

use super::error::PolicyError;
use super::file::{self, default_path};
use super::question::{Kind, LocalTime, Question, Who};
use super::rules::{Action, Asked};
use super::window;
use crate::config::{self, Config, ConfigError};
use crate::process::Identity;

/// Largest script that is looked at, in bytes: only its first line counts.
const MAX_SCRIPT: u64 = 4 << 20;

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// The policy; where absent that of the agent with this data directory.
    pub policy: Option<PathBuf>,
    /// The agent's data directory; its default where absent.
    pub data_dir: Option<PathBuf>,
    /// The user to run as; the caller's own where absent.
    pub user: Option<String>,
    /// Whether on a terminal.
    pub terminal: bool,
    /// When: `mon 14:30`, `14:30` or RFC 3339; now where absent.
    pub at: Option<String>,
    /// A script, to which the arguments go.
    pub script: Option<PathBuf>,
    /// Names of variables that the job sets.
    pub env: Vec<String>,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
}

/// What the policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Whether the job would be taken.
    pub allowed: bool,
    /// Why, for a person.
    pub text: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The agent's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The time cannot be read.
    #[error("`{0}` is no time; write it as `mon 14:30`, `14:30` or 2026-01-31T14:30:00Z")]
    Time(String),
    /// The script cannot be read.
    #[error("cannot read the script `{}`", .path.display())]
    Script {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Explains what the policy would say. Blocks on the disk and the user database.
pub fn explain(options: &CheckOptions) -> Result<Explained, CheckError> {
    explain_at(options, &Clock::system())
}

fn explain_at(options: &CheckOptions, clock: &Clock) -> Result<Explained, CheckError> {
    let at = match &options.at {
        None => LocalTime::of(clock.wall()),
        Some(text) => read_time(text, clock).ok_or_else(|| CheckError::Time(text.clone()))?,
    };
    let path = path_of(options)?;
    let argv = options.argv.iter().map(|word| ByteString(word.as_bytes().to_vec()));
    let mut spec = ExecSpec::command(argv.collect());
    spec.env = options.env.iter().map(|name| (name.clone(), ByteString::default())).collect();
    spec.script = options.script.as_ref().map(read_script).transpose()?;
    let found = Identity::resolve(options.user.as_deref()).ok();
    let who = Who::new(options.user.as_deref(), found.as_ref());
    let kind = if options.terminal { Kind::Terminal } else { Kind::Exec };
    let question = Question::about(kind, &spec, who, at);
    let when = window::show(at);
    let Some(policy) = file::read(&path)? else {
        let text = format!(
            "allowed: {}, {when}: there is no {}, so everything is allowed",
            Asked(&question),
            path.display()
        );
        return Ok(Explained { allowed: true, text });
    };
    let decision = policy.decide(&question);
    let (allowed, word) = match decision.action {
        Action::Allow => (true, "allowed"),
        Action::Refuse => (false, "refused"),
    };
    Ok(Explained { allowed, text: format!("{word}: {} ({when})", decision.text) })
}

fn path_of(options: &CheckOptions) -> Result<PathBuf, ConfigError> {
    if let Some(path) = &options.policy {
        return Ok(path.clone());
    }
    let data_dir = match &options.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => config::default_data_dir()?,
    };
    Ok(Config::load(&data_dir)?.policy.unwrap_or_else(|| default_path(&data_dir)))
}

fn read_time(text: &str, clock: &Clock) -> Option<LocalTime> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(LocalTime::of(moment));
    }
    let (weekday, time) = match text.split_once(' ') {
        Some((day, time)) => (window::read_day(day).ok()?, time.trim()),
        None => (LocalTime::of(clock.wall()).weekday, text),
    };
    let minute = window::read_minute(time).filter(|minute| *minute < 24 * 60)?;
    Some(LocalTime { weekday, minute })
}

fn read_script(path: &PathBuf) -> Result<Script, CheckError> {
    let failed = |source| CheckError::Script { path: path.clone(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_SCRIPT {
        return Err(failed(io::Error::other(format!("it has more than {MAX_SCRIPT} bytes"))));
    }
    let body = ByteString(std::fs::read(path).map_err(failed)?);
    Ok(Script { interpreter: Vec::new(), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: Option<&str>, change: impl FnOnce(&mut CheckOptions)) -> Result<Explained, CheckError> {
        let directory = tempfile::tempdir().expect("tempdir");
        if let Some(text) = text {
            std::fs::write(directory.path().join("policy.toml"), text).expect("writes");
        }
        let mut options = CheckOptions {
            data_dir: Some(directory.path().to_owned()),
            argv: vec!["reboot".into(), "-f".into()],
            ..CheckOptions::default()
        };
        change(&mut options);
        explain(&options)
    }

    const POLICY: &str = "default = \"allow\"\n\
        [[rule]]\nrefuse = [\"exec\"]\ncommands = [\"reboot\"]\ntimes = [\"mon-fri 22:00-06:00\"]\nreason = \"nights\"\n\
        [[rule]]\nrefuse = [\"terminal\"]\n\
        [[rule]]\nrefuse = [\"exec\"]\ncommands = [\"/usr/bin/perl\"]\nusers = [\"nobody\"]\n";

    #[test]
    fn the_deciding_line_is_named() {
        let at = |time: &str| check(Some(POLICY), |options| options.at = Some(time.into())).expect("answers");
        let refused = at("sat 05:59");
        assert!(!refused.allowed);
        assert!(
            refused.text.starts_with("refused: ") && refused.text.contains("policy.toml:2 refuses exec as "),
            "{refused:?}"
        );
        assert!(refused.text.ends_with("of `reboot -f`: nights (sat 05:59)"), "{refused:?}");
        let allowed = at("sat 06:00");
        assert!(allowed.allowed && allowed.text.contains("policy.toml:1 allows"), "{allowed:?}");
        let terminal = check(Some(POLICY), |options| options.terminal = true).expect("answers");
        assert!(!terminal.allowed && terminal.text.contains("policy.toml:7"), "{terminal:?}");
    }

    #[test]
    fn scripts_and_users() {
        let directory = tempfile::tempdir().expect("tempdir");
        let script = directory.path().join("s.pl");
        std::fs::write(&script, "#!/usr/bin/perl -w\n").expect("writes");
        let of = |user: &str| {
            check(Some(POLICY), |options| {
                options.script = Some(script.clone());
                options.user = Some(user.into());
            })
        };
        let refused = of("nobody").expect("answers");
        assert!(!refused.allowed && refused.text.contains("policy.toml:9"), "{refused:?}");
        assert!(of("no-such-user-here").expect("answers").allowed);
    }

    #[test]
    fn without_a_file_everything_is_allowed_and_a_broken_one_is_an_error_with_its_line() {
        let explained = check(None, |_| {}).expect("answers");
        assert!(explained.allowed && explained.text.contains("there is no "), "{explained:?}");
        let error = check(Some("default = \"allow\"\n\nx = 1\n"), |_| {}).expect_err("is broken");
        assert!(error.to_string().contains("policy.toml:3: unknown field `x`"), "{error}");
        for bad in ["noon", "25:00", "24:00", "xyz 10:00"] {
            let error = check(None, |options| options.at = Some(bad.into())).expect_err("is no time");
            assert!(matches!(error, CheckError::Time(_)), "{bad}: {error}");
        }
        assert!(check(None, |options| options.at = Some("2026-01-31T14:30:00Z".into())).is_ok());
    }
}

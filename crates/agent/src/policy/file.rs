//! The policy as the file says it now, or as it last said it well.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datacentered_link::clock::Clock;
use datacentered_proto::ops::host::PolicyFacts;
use tokio::time::sleep;

use super::error::PolicyError;
use super::parse;
use super::question::Question;
use super::rules::{Action, Policy};

/// The directory of the policy of the system's own agent.
const SYSTEM_FILE: &str = "/etc/datacentered/policy.toml";

/// The data directory of the system's own agent.
const SYSTEM_DATA: &str = "/var/lib/datacentered-agent";

/// The file's name in any other data directory.
const FILE_NAME: &str = "policy.toml";

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How often the file is looked at while no job comes, for the facts that the hub shows.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A file that was changed less than these milliseconds ago may change again without its times telling.
const TREMBLING_MS: i64 = 100;

/// Where the policy is unless told otherwise.
pub fn default_path(data_dir: &Path) -> PathBuf {
    if data_dir == Path::new(SYSTEM_DATA) { SYSTEM_FILE.into() } else { data_dir.join(FILE_NAME) }
}

/// A policy file that is followed.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the file was when it was read; none where it has to be read again in any case.
    stamp: Option<Stamp>,
    active: Active,
    /// What is wrong with the file now.
    error: Option<String>,
}

/// What decides.
#[derive(Clone, Debug)]
enum Active {
    /// There is no file: everything is allowed.
    Nothing,
    /// The last good one.
    Rules(Arc<Policy>),
    /// There is a file, and none that could be read: everything is refused.
    Closed,
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// How the file is now.
enum Seen {
    Missing,
    Same,
    New { stamp: Option<Stamp>, read: Result<Policy, PolicyError> },
}

impl PolicyFile {
    /// Follows the file at `path`, which need not be there. What is wrong with it is logged and told with the facts.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let state = State { stamp: None, active: Active::Nothing, error: None };
        let file = Self { path: path.into(), state: Mutex::new(state) };
        file.refresh(&mut file.state());
        file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the host does not do what is asked, where it does not: file, line and reason.
    pub fn refuses(&self, question: impl FnOnce() -> Question) -> Option<String> {
        let (active, error) = {
            let mut state = self.state();
            self.refresh(&mut state);
            (state.active.clone(), state.error.clone())
        };
        match active {
            Active::Nothing => None,
            Active::Closed => Some(format!(
                "{}; everything is refused until this is corrected",
                error.unwrap_or_else(|| format!("{} cannot be read", self.path.display()))
            )),
            Active::Rules(policy) => {
                let decision = policy.decide(&question());
                (decision.action == Action::Refuse).then_some(decision.text)
            }
        }
    }

    /// What the hub is told of it.
    pub fn facts(&self) -> PolicyFacts {
        let mut state = self.state();
        self.refresh(&mut state);
        facts_of(&self.path, &state)
    }

    /// Waits until the facts differ from these; never shorter than from one look to the next.
    pub async fn differs_from(&self, told: &PolicyFacts) {
        loop {
            sleep(LOOK_EVERY).await;
            if self.facts() != *told {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the file, and reads it where it is another one than before.
    fn refresh(&self, state: &mut State) {
        match look(&self.path, state.stamp.as_ref()) {
            Seen::Same => {}
            Seen::Missing => {
                if !matches!(state.active, Active::Nothing) {
                    tracing::warn!(path = %self.path.display(), "the policy is gone: everything is allowed");
                }
                *state = State { stamp: None, active: Active::Nothing, error: None };
            }
            Seen::New { stamp, read: Ok(policy) } => {
                let news =
                    stamp.is_some() || state.error.is_some() || matches!(state.active, Active::Nothing);
                if news {
                    tracing::info!(
                        path = %self.path.display(),
                        rules = policy.len(),
                        default = policy.default_action().as_str(),
                        "the policy is in force"
                    );
                }
                *state = State { stamp, active: Active::Rules(Arc::new(policy)), error: None };
            }
            Seen::New { stamp, read: Err(error) } => {
                let error = error.to_string();
                if !matches!(state.active, Active::Rules(_)) {
                    state.active = Active::Closed;
                }
                if state.error.as_ref() != Some(&error) {
                    let holds = if matches!(state.active, Active::Closed) {
                        "everything is refused until this is corrected"
                    } else {
                        "the last good one holds"
                    };
                    tracing::error!("the policy cannot be used, {holds}: {error}");
                }
                (state.stamp, state.error) = (stamp, Some(error));
            }
        }
    }
}

fn facts_of(path: &Path, state: &State) -> PolicyFacts {
    let (rules, default) = match &state.active {
        Active::Nothing => return PolicyFacts::default(),
        Active::Closed => (0, Action::Refuse),
        Active::Rules(policy) => (policy.len(), policy.default_action()),
    };
    PolicyFacts {
        file: path.display().to_string(),
        rules: u32::try_from(rules).unwrap_or(u32::MAX),
        default: default.as_str().to_owned(),
        error: state.error.clone().unwrap_or_default(),
    }
}

/// Reads a policy once; none where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Policy>, PolicyError> {
    match look(path, None) {
        Seen::New { read, .. } => read.map(Some),
        Seen::Missing | Seen::Same => Ok(None),
    }
}

fn look(path: &Path, known: Option<&Stamp>) -> Seen {
    let failed =
        |source| Seen::New { stamp: None, read: Err(PolicyError::Read { path: path.to_owned(), source }) };
    let stamp = match std::fs::metadata(path) {
        Ok(metadata) => Stamp::of(&metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Seen::Missing,
        Err(error) => return failed(error),
    };
    if known == Some(&stamp) {
        return Seen::Same;
    }
    match open_and_read(path) {
        Ok((stamp, text)) => {
            let stamp = stamp.is_settled().then_some(stamp);
            Seen::New { stamp, read: parse::policy(path, &text) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::Missing,
        Err(error) => failed(error),
    }
}

/// The text, with the stamp that it had before it was read: a change while it is read is another version.
fn open_and_read(path: &Path) -> io::Result<(Stamp, String)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok((Stamp::of(&metadata), text))
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether every later change will show. The file system's clock may stand still for some milliseconds.
    fn is_settled(&self) -> bool {
        // The machine's own clock, whatever the jobs go by: it is what the file system stamps with.
        let now = Clock::system().wall().as_millis();
        let (seconds, nanos) = self.changed;
        let changed = seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000);
        now.saturating_sub(changed) > TREMBLING_MS
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::{Kind, LocalTime, Who};
    use datacentered_proto::Timestamp;
    use datacentered_proto::ops::job::ExecSpec;

    const ALLOW: &str = "default = \"allow\"\n";
    const REFUSE: &str = "default = \"refuse\"\nreason = \"closed\"\n";

    fn why(file: &PolicyFile) -> Option<String> {
        let spec = ExecSpec::command(vec!["true".into()]);
        let who = Who::new(None, None);
        file.refuses(|| Question::about(Kind::Exec, &spec, who, LocalTime::of(Timestamp::EPOCH)))
    }

    #[test]
    fn the_system_has_its_place_and_every_other_agent_its_own() {
        assert_eq!(default_path(Path::new("/var/lib/datacentered-agent")), Path::new(SYSTEM_FILE));
        assert_eq!(default_path(Path::new("/srv/a")), Path::new("/srv/a/policy.toml"));
    }

    #[test]
    fn it_follows_the_file_and_a_broken_one_leaves_the_last_good_one() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("policy.toml");
        let file = PolicyFile::open(&path);
        assert_eq!((why(&file), file.facts()), (None, PolicyFacts::default()));

        fs::write(&path, REFUSE).expect("writes");
        assert!(
            why(&file)
                .expect("is refused")
                .ends_with("policy.toml:1 refuses exec as 0 of `true` by default: closed")
        );

        // Cut off in the middle of a line, then empty: as an editor may leave it for a moment.
        for broken in ["default = \"allow\"\n[[rule", ""] {
            fs::write(&path, broken).expect("writes");
            assert!(why(&file).expect("the last good one holds").contains("closed"), "{broken}");
            let facts = file.facts();
            assert!(facts.error.contains("policy.toml:") && facts.default == "refuse", "{facts:?}");
        }

        fs::write(&path, ALLOW).expect("writes");
        assert_eq!((why(&file), file.facts().error), (None, String::new()));
        fs::remove_file(&path).expect("removes");
        assert_eq!((why(&file), file.facts()), (None, PolicyFacts::default()));
    }

    #[test]
    fn a_broken_file_without_a_good_one_before_refuses_everything() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("policy.toml");
        fs::write(&path, "default = \"allow\"\nrules = 1\n").expect("writes");
        let file = PolicyFile::open(&path);
        let refused = why(&file).expect("is refused");
        assert!(refused.contains("policy.toml:2: unknown field `rules`"), "{refused}");
        assert!(refused.ends_with("everything is refused until this is corrected"), "{refused}");
        assert_eq!(file.facts().default, "refuse");
        // No file allows everything; one that comes and is broken was meant to forbid something.
        fs::remove_file(&path).expect("removes");
        assert_eq!(why(&file), None);
        fs::create_dir(&path).expect("creates");
        assert!(why(&file).expect("is refused").contains("no regular file"));
    }

    #[test]
    fn changes_of_the_same_size_at_the_same_moment_are_seen() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("policy.toml");
        let texts = ["default = \"refuse\" #\n", "default = \"allow\"  #\n"];
        let file = PolicyFile::open(&path);
        for turn in 0..50 {
            fs::write(&path, texts[turn % 2]).expect("writes");
            assert_eq!(why(&file).is_some(), turn % 2 == 0, "turn {turn}");
        }
    }

    #[test]
    fn a_file_that_stands_still_is_not_read_again() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("policy.toml");
        fs::write(&path, REFUSE).expect("writes");
        std::thread::sleep(Duration::from_millis(2 * TREMBLING_MS as u64));
        let file = PolicyFile::open(&path);
        let stamp = file.state().stamp.clone().expect("is settled");
        assert!(matches!(look(&path, Some(&stamp)), Seen::Same));
        // Another file with the same text is another file.
        let other = directory.path().join("other");
        fs::write(&other, ALLOW).expect("writes");
        fs::rename(&other, &path).expect("renames");
        assert_eq!(why(&file), None);
    }
}

//! How the job manager is set up.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datacentered_proto::Timestamp;
use datacentered_proto::limits::MAX_SPEC;
use datacentered_proto::ops::job::Offer;

use crate::cgroup;
use crate::policy::{LocalTime, PolicyFile, Question};
use crate::process::Identity;

/// The subcommand under which the agent's binaries call [`crate::shim::main`].
pub const SHIM_SUBCOMMAND: &str = "shim";

/// The host's last word: why it does not take an offer, where it does not.
#[derive(Clone)]
pub struct Refuse(Decider);

#[derive(Clone)]
enum Decider {
    Nothing,
    Policy(Arc<PolicyFile>),
    By(Arc<Decide>),
}

type Decide = dyn Fn(&Offer) -> Option<String> + Send + Sync;

impl Refuse {
    /// Decides by a function, for programs that embed this library.
    pub fn by(decide: impl Fn(&Offer) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Decider::By(Arc::new(decide)))
    }

    /// Decides by a policy file, as the agent does.
    pub fn policy(file: Arc<PolicyFile>) -> Self {
        Self(Decider::Policy(file))
    }

    /// Refuses nothing.
    pub fn nothing() -> Self {
        Self(Decider::Nothing)
    }

    /// `found`: the user that the job is to run as, where the host has it.
    pub(super) fn why(&self, offer: &Offer, found: Option<&Identity>, at: Timestamp) -> Option<String> {
        match &self.0 {
            Decider::Nothing => None,
            Decider::Policy(file) => {
                file.refuses(|| Question::about_job(&offer.spec, found, LocalTime::of(at)))
            }
            Decider::By(decide) => decide(offer),
        }
    }
}

impl fmt::Debug for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Decider::Nothing => "Refuse(nothing)",
            Decider::Policy(_) => "Refuse(by a policy file)",
            Decider::By(_) => "Refuse(by a function)",
        })
    }
}

/// Everything that [`super::Jobs`] has to know.
#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// The agent's data directory; made (0700) where it does not exist.
    pub dir: PathBuf,
    /// The program that becomes a shim.
    pub shim_program: PathBuf,
    /// Its arguments before the job's id.
    pub shim_args: Vec<OsString>,
    /// Most jobs that are not released, and most tombstones and refusals beside them.
    pub max_jobs: u32,
    /// Largest description of a command as JSON, in bytes.
    pub max_spec: usize,
    /// Most bytes of standard input that a job may have waiting.
    pub max_stdin: u64,
    /// Largest spool of one job in bytes, whatever an offer asks for.
    pub max_spool: u64,
    /// How long output is read after the main process has ended, where others still hold its pipes.
    pub drain_after_exit: Duration,
    /// Which control groups to use.
    pub cgroups: cgroup::Choice,
    /// Soft limit of open files for commands, where it is not the agent's own.
    pub command_files: Option<u64>,
    /// What the host does not take.
    pub refuse: Refuse,
}

impl JobsConfig {
    /// The defaults, for a data directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            // The running program itself, also after its file was replaced by an update.
            shim_program: "/proc/self/exe".into(),
            shim_args: vec![SHIM_SUBCOMMAND.into()],
            max_jobs: 1024,
            max_spec: MAX_SPEC,
            max_stdin: 16 << 20,
            max_spool: 4 << 30,
            drain_after_exit: Duration::from_secs(2),
            cgroups: cgroup::Choice::Auto,
            command_files: None,
            refuse: Refuse::nothing(),
        }
    }
}

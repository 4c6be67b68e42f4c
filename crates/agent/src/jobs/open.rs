//! Coming back: from the data directory to a table of jobs, each with somebody on it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datacentered_link::clock::Clock;
use datacentered_proto::JobId;
use rustix::fs::FlockOperation;
use tokio::sync::mpsc;

use super::JobsConfig;
use super::error::JobsError;
use super::examine::Verdict;
use super::job::{Command, Job};
use super::shared::Shared;
use super::supervise::Supervisor;
use crate::boot::BootReader;
use crate::cgroup::{self, Placement};
use crate::journal::{Journal, JournalError, Opened};
use crate::process::Identity;
use crate::shim::launch::files;

/// How long the lock of an agent that was just killed may take to be given back.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Where the jobs' directories are.
pub(super) fn jobs_dir(dir: &Path) -> PathBuf {
    dir.join("jobs")
}

pub(super) async fn open(
    config: JobsConfig,
    clock: Clock,
    boot: BootReader,
) -> Result<Arc<Shared>, JobsError> {
    make_dir(&config.dir)?;
    make_dir(&jobs_dir(&config.dir))?;
    let lock = lock(&config.dir).await?;
    let boot = boot.read()?;
    let own = Identity::resolve(None).map_err(|failure| JobsError::Identity(failure.detail))?;
    let opened = open_journal(&config, &clock)?;
    let placement = Placement::detect(&config.cgroups);
    let known = |name: &str| opened.entries.iter().any(|entry| entry.job.to_string() == name);
    sweep_dirs(&jobs_dir(&config.dir), known);
    cgroup::sweep(&placement);

    let Opened { journal, entries } = opened;
    let shared = Arc::new(Shared::new(config, clock, boot, journal, placement, own, lock));
    let mut open = Vec::new();
    for entry in entries {
        let dir = shared.job_dir(entry.job);
        let (job, commands) = Job::new(entry, dir);
        let job = Arc::new(job);
        shared.insert(Arc::clone(&job));
        if !job.is_ended() {
            open.push((job, commands));
        }
    }
    for (job, commands) in open {
        take_up(&shared, job, commands).await;
    }
    Ok(shared)
}

/// Decides about a job, so that its report is right from the start, and puts somebody on it where it has not ended.
async fn take_up(shared: &Arc<Shared>, job: Arc<Job>, commands: mpsc::Receiver<Command>) {
    let verdict = shared.examine(&job).await;
    match &verdict {
        Some(Verdict::Ended(contents)) => {
            shared.restored(&job, contents);
            return;
        }
        Some(Verdict::Alive(contents)) => shared.seen_alive(&job, contents),
        Some(Verdict::Fresh) | None => {}
    }
    let supervisor = Supervisor { shared: Arc::clone(shared), job, commands, starts: 0 };
    shared.tasks.spawn(supervisor.run(None, verdict));
}

fn make_dir(dir: &Path) -> Result<(), JobsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(JobsError::io("create", dir))
}

async fn lock(dir: &Path) -> Result<File, JobsError> {
    let path = dir.join("jobs.lock");
    let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
    let file = options.open(&path).map_err(JobsError::io("open", &path))?;
    let tries = LOCK_PATIENCE.as_millis() / LOCK_PAUSE.as_millis();
    for _ in 0..tries {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => return Err(JobsError::io("lock", &path)(error.into())),
        }
    }
    Err(JobsError::InUse { path: dir.to_path_buf() })
}

fn open_journal(config: &JobsConfig, clock: &Clock) -> Result<Opened, JobsError> {
    match Journal::open(&config.dir, config.max_jobs) {
        Err(error @ JournalError::Damaged { .. }) => {
            // What it promised is lost, and the hub will say so by the new incarnation. Its remains are for a person:
            // processes that still run go on in the directory that is set aside with it.
            let suffix = format!("damaged.{}", clock.wall().as_millis());
            tracing::error!(%error, suffix, "setting the damaged journal aside and beginning a new one");
            Journal::set_aside(&config.dir, &suffix)?;
            let jobs = jobs_dir(&config.dir);
            let aside = config.dir.join(format!("jobs.{suffix}"));
            std::fs::rename(&jobs, &aside).map_err(JobsError::io("set aside", &jobs))?;
            make_dir(&jobs)?;
            Ok(Journal::open(&config.dir, config.max_jobs)?)
        }
        opened => Ok(opened?),
    }
}

/// Removes directories of jobs that the journal does not know: an accept or a release that was cut off.
fn sweep_dirs(dir: &Path, known: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.parse::<JobId>().is_ok() && !known(name)) else {
            continue;
        };
        let path = dir.join(name);
        // A shim in there belongs to nobody that is known, which cannot be; but then it is not pulled from under it.
        let locked = File::open(path.join(files::LOCK))
            .is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err());
        if !locked {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

//! Control groups: where a job's processes are kept together, limited and ended as one.
//!
//! The unified hierarchy (v2) is used wherever it is mounted, also beside v1 (as systemd's hybrid layout does): it can
//! list and kill. Limits come from v2 where its controllers are there, else from v1's `pids` and `memory`.

pub(crate) mod detect;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datacentered_proto::ops::job::ExecLimits;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::process::tree::{self, Stat};

/// How often a kill is repeated until a group is empty, with pauses of a few milliseconds: together about 5 s.
const KILL_ROUNDS: u32 = 1000;

/// Age from which an empty group is nobody's any more.
const SWEEP_AFTER: Duration = Duration::from_mins(10);

/// Which control groups the agent may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Below the agent's own group, where the system allows it.
    #[default]
    Auto,
    /// None: sessions and resource limits only.
    Off,
}

/// The directories below which job groups are made, per hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The unified hierarchy.
    pub unified: Option<PathBuf>,
    /// Whether the unified hierarchy limits processes and memory there.
    pub unified_limits: bool,
    /// v1 `pids`.
    pub pids: Option<PathBuf>,
    /// v1 `memory`.
    pub memory: Option<PathBuf>,
}

impl Placement {
    /// Finds out what this system and the agent's rights allow; makes the parent directories.
    pub fn detect(choice: &Choice) -> Self {
        match choice {
            Choice::Off => Self::default(),
            Choice::Auto => detect::detect(Path::new("/proc/self")),
        }
    }
}

/// One job's groups.
#[derive(Debug)]
pub struct JobGroup {
    unified: Option<PathBuf>,
    pids: Option<PathBuf>,
    memory: Option<PathBuf>,
}

/// Limits that no control group here can enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unenforced {
    /// The number of processes.
    pub processes: Option<u64>,
    /// The memory.
    pub memory_bytes: Option<u64>,
}

impl JobGroup {
    /// The groups that a job has or had under a placement; makes nothing.
    pub fn existing(placement: &Placement, job: &str) -> Self {
        let at = |parent: &Option<PathBuf>| parent.as_ref().map(|parent| parent.join(job));
        let mut this = Self {
            unified: at(&placement.unified),
            pids: at(&placement.pids),
            memory: at(&placement.memory),
        };
        this.keep(Path::is_dir);
        this
    }

    /// Makes a job's groups with their limits; tells which limits they cannot enforce.
    ///
    /// # Errors
    /// Where a group that can enforce a limit refuses it.
    pub fn create(placement: &Placement, job: &str, limits: &ExecLimits) -> io::Result<(Self, Unenforced)> {
        let mut unenforced = Unenforced { processes: limits.processes, memory_bytes: limits.memory_bytes };
        let mut this = Self { unified: None, pids: None, memory: None };
        let made = this.make(placement, job, limits, &mut unenforced);
        if let Err(error) = made {
            this.remove();
            return Err(error);
        }
        Ok((this, unenforced))
    }

    fn make(
        &mut self,
        placement: &Placement,
        job: &str,
        limits: &ExecLimits,
        unenforced: &mut Unenforced,
    ) -> io::Result<()> {
        if let Some(parent) = &placement.unified {
            let dir = parent.join(job);
            if make_dir(&dir).is_ok() {
                self.unified = Some(dir.clone());
                if placement.unified_limits {
                    if let Some(processes) = unenforced.processes.take() {
                        fs::write(dir.join("pids.max"), processes.to_string())?;
                    }
                    if let Some(bytes) = unenforced.memory_bytes.take() {
                        fs::write(dir.join("memory.max"), bytes.to_string())?;
                        // Without this the limit would only move the excess to swap. Absent where there is no swap.
                        let _ = fs::write(dir.join("memory.swap.max"), "0");
                    }
                }
            }
        }
        if let (Some(processes), Some(parent)) = (unenforced.processes, &placement.pids) {
            let dir = parent.join(job);
            make_dir(&dir)?;
            self.pids = Some(dir.clone());
            fs::write(dir.join("pids.max"), processes.to_string())?;
            unenforced.processes = None;
        }
        if let (Some(bytes), Some(parent)) = (unenforced.memory_bytes, &placement.memory) {
            let dir = parent.join(job);
            make_dir(&dir)?;
            self.memory = Some(dir.clone());
            fs::write(dir.join("memory.limit_in_bytes"), bytes.to_string())?;
            let _ = fs::write(dir.join("memory.memsw.limit_in_bytes"), bytes.to_string());
            unenforced.memory_bytes = None;
        }
        // Values are rounded to pages; a limit that did not take would be a promise not kept.
        debug_assert!(limits.processes.is_none() || unenforced.processes.is_none() || self.pids.is_none());
        Ok(())
    }

    /// Whether there is a group that holds the whole tree.
    pub fn holds_tree(&self) -> bool {
        self.unified.is_some()
    }

    /// The unified group's directory, for a child to be born in.
    pub fn unified_fd(&self) -> Option<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(self.unified.as_ref()?, flags, Mode::empty()).ok()
    }

    /// The `cgroup.procs` files that a child has to write itself into; the unified one only where it was not born there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter_files(&self, with_unified: bool) -> io::Result<Vec<OwnedFd>> {
        let unified = self.unified.as_ref().filter(|_| with_unified);
        unified
            .into_iter()
            .chain(&self.pids)
            .chain(&self.memory)
            .map(|dir| {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                Ok(rustix::fs::open(dir.join("cgroup.procs"), flags, Mode::empty())?)
            })
            .collect()
    }

    /// The processes inside, of the first group that is there.
    pub fn processes(&self) -> Vec<Stat> {
        let Some(dir) = self.any() else { return Vec::new() };
        let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) else { return Vec::new() };
        text.lines()
            .filter_map(|line| tree::stat(line.parse().ok()?).ok())
            .filter(|stat| stat.state != 'Z')
            .collect()
    }

    /// Ends everything inside; returns whether it is empty now.
    pub fn kill(&self) -> bool {
        let Some(dir) = self.any() else { return true };
        if self.unified.is_some() && fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            for _ in 0..KILL_ROUNDS {
                if self.processes().is_empty() {
                    return true;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        tree::kill_all(KILL_ROUNDS, || self.processes())
    }

    /// How many processes the kernel ended because the group was over its memory limit.
    pub fn memory_kills(&self) -> u64 {
        let (dir, file) = match (&self.memory, &self.unified) {
            (Some(dir), _) => (dir, "memory.oom_control"),
            (None, Some(dir)) => (dir, "memory.events"),
            (None, None) => return 0,
        };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or_default()
    }

    /// Removes the groups that are empty; those that still hold a process stay.
    pub fn remove(&self) {
        for dir in [&self.unified, &self.pids, &self.memory].into_iter().flatten() {
            let _ = fs::remove_dir(dir);
        }
    }

    fn any(&self) -> Option<&PathBuf> {
        self.unified.as_ref().or(self.pids.as_ref()).or(self.memory.as_ref())
    }

    fn keep(&mut self, predicate: impl Fn(&Path) -> bool) {
        for dir in [&mut self.unified, &mut self.pids, &mut self.memory] {
            if dir.as_deref().is_some_and(|dir| !predicate(dir)) {
                *dir = None;
            }
        }
    }
}

/// Removes old job groups that no process is in: what outlived its job and has ended since.
///
/// Other agents of this host have their groups beside ours, and a group is empty for a moment before its first process:
/// age tells those apart.
pub fn sweep(placement: &Placement) {
    for parent in [&placement.unified, &placement.pids, &placement.memory].into_iter().flatten() {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let is_old = entry.metadata().is_ok_and(|meta| {
                meta.is_dir()
                    && meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > SWEEP_AFTER))
            });
            if is_old {
                // Fails, rightly, where a process is inside.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

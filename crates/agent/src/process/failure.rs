//! Why a process could not be started: the kernel's error at a named step, as the word that the outcome carries.

use datacentered_proto::outcome::StartFailure;
use serde::{Deserialize, Serialize};

/// The step at which a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Step {
    /// Making pipes, files and the process itself.
    Prepare = 1,
    /// Entering the cgroup or setting limits.
    Limits = 2,
    /// Taking on the user's identity.
    Identity = 3,
    /// Entering the working directory.
    Directory = 4,
    /// Executing the program.
    Exec = 5,
    /// Looking the user up.
    User = 6,
    /// Writing the job's files.
    Files = 7,
}

impl Step {
    /// The step with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Prepare,
            2 => Self::Limits,
            3 => Self::Identity,
            4 => Self::Directory,
            5 => Self::Exec,
            6 => Self::User,
            7 => Self::Files,
            _ => return None,
        })
    }

    fn words(self) -> &'static str {
        match self {
            Self::Prepare => "cannot prepare the process",
            Self::Limits => "cannot set the limits",
            Self::Identity => "cannot take on the user's identity",
            Self::Directory => "cannot enter the working directory",
            Self::Exec => "cannot execute the program",
            Self::User => "cannot look the user up",
            Self::Files => "cannot write the job's files",
        }
    }
}

/// A start that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.detail)]
pub struct Failure {
    /// The word.
    pub why: StartFailure,
    /// Which step, on what, with the kernel's words: for a person.
    pub detail: String,
}

impl Failure {
    /// From the kernel's error number (0 where there is none) at a step; `subject` is what it was done to.
    pub fn at(step: Step, errno: i32, subject: &str) -> Self {
        let words =
            if errno == 0 { String::new() } else { std::io::Error::from_raw_os_error(errno).to_string() };
        let separator = if words.is_empty() { "" } else { ": " };
        let space = if subject.is_empty() { "" } else { " " };
        Self { why: word(step, errno), detail: format!("{}{space}{subject}{separator}{words}", step.words()) }
    }

    /// From an I/O error at a step.
    pub fn io(step: Step, error: &std::io::Error, subject: &str) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::at(step, errno, subject),
            None => Self { why: word(step, 0), detail: format!("{} {subject}: {error}", step.words()) },
        }
    }
}

fn word(step: Step, errno: i32) -> StartFailure {
    match (step, errno) {
        (_, libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => StartFailure::DiskFull,
        (Step::Limits, _) => StartFailure::LimitsNotApplied,
        (_, libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => StartFailure::OutOfResources,
        (Step::User, _) => StartFailure::NoSuchUser,
        (Step::Directory, libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => {
            StartFailure::NoSuchDirectory
        }
        (Step::Exec, libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => {
            StartFailure::CommandNotFound
        }
        (Step::Exec, libc::ENOEXEC | libc::EINVAL | libc::ELIBBAD | libc::EISDIR | libc::EIO) => {
            StartFailure::NotExecutable
        }
        (Step::Exec, libc::E2BIG) => StartFailure::ArgumentsTooLarge,
        (_, libc::EACCES | libc::EPERM) => StartFailure::PermissionDenied,
        _ => StartFailure::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_comes_from_its_step_and_error() {
        for (step, errno, why) in [
            (Step::Exec, libc::ENOENT, StartFailure::CommandNotFound),
            (Step::Exec, libc::EACCES, StartFailure::PermissionDenied),
            (Step::Exec, libc::ENOEXEC, StartFailure::NotExecutable),
            (Step::Exec, libc::E2BIG, StartFailure::ArgumentsTooLarge),
            (Step::Directory, libc::ENOENT, StartFailure::NoSuchDirectory),
            (Step::Directory, libc::EACCES, StartFailure::PermissionDenied),
            (Step::Identity, libc::EPERM, StartFailure::PermissionDenied),
            (Step::Identity, libc::EAGAIN, StartFailure::OutOfResources),
            (Step::Prepare, libc::EAGAIN, StartFailure::OutOfResources),
            (Step::Files, libc::ENOSPC, StartFailure::DiskFull),
            (Step::Limits, libc::EACCES, StartFailure::LimitsNotApplied),
            (Step::User, 0, StartFailure::NoSuchUser),
            (Step::Prepare, libc::ENXIO, StartFailure::Other),
        ] {
            assert_eq!(Failure::at(step, errno, "x").why, why, "{step:?} {errno}");
        }
    }

    #[test]
    fn the_detail_has_the_kernels_words() {
        let failure = Failure::at(Step::Exec, libc::ENOENT, "nope");
        assert!(failure.detail.contains("nope") && failure.detail.contains("No such file"), "{failure}");
    }
}

//! What a policy is asked: may this be done, as this user, with this command, at this time?

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use datacentered_proto::ops::job::{ExecSpec, Script};
use datacentered_proto::{ByteString, Timestamp};
use serde::Deserialize;

use crate::process::Identity;
use crate::sys;

/// What stands for the file of a script in its command line.
const SCRIPT: &[u8] = b"SCRIPT";

/// What a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A process on pipes.
    Exec,
    /// A process on a terminal.
    Terminal,
    /// A file that is read or written for a copy.
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exec => "exec",
            Self::Terminal => "terminal",
            Self::File => "file",
        })
    }
}

/// Who a job is to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Login name; as it was asked for where the host has no such user.
    pub name: String,
    /// Number, where the host has such a user.
    pub uid: Option<u32>,
}

impl Who {
    /// From what was asked for and what the host made of it.
    pub fn new(asked: Option<&str>, found: Option<&Identity>) -> Self {
        match (found, asked) {
            (Some(found), _) => Self { name: found.name.clone(), uid: Some(found.uid) },
            (None, Some(asked)) => Self { name: asked.to_owned(), uid: None },
            (None, None) => {
                let uid = rustix::process::geteuid().as_raw();
                Self { name: uid.to_string(), uid: Some(uid) }
            }
        }
    }
}

/// A moment of the week on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Monday is 0.
    pub weekday: u8,
    /// Minutes since midnight.
    pub minute: u16,
}

impl LocalTime {
    /// A moment in the host's own time zone.
    pub fn of(at: Timestamp) -> Self {
        const MINUTE: i64 = 60;
        const DAY: i64 = 24 * 60 * MINUTE;
        let seconds = at.as_millis().div_euclid(1000);
        let local = seconds.saturating_add(sys::utc_offset(seconds));
        Self {
            // The first of January 1970 was a Thursday.
            weekday: (local.div_euclid(DAY) + 3).rem_euclid(7) as u8,
            minute: (local.rem_euclid(DAY) / MINUTE) as u16,
        }
    }
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// What it is.
    pub kind: Kind,
    /// Who it runs as.
    pub who: Who,
    /// Program and arguments; of a script its interpreter, the interpreter's arguments, `SCRIPT`, and the script's own.
    pub argv: Vec<ByteString>,
    /// Whether it is a script.
    pub script: bool,
    /// Names of the variables that it sets.
    pub env: Vec<String>,
    /// When it would start.
    pub at: LocalTime,
}

impl Question {
    /// About a job.
    pub fn about(kind: Kind, spec: &ExecSpec, who: Who, at: LocalTime) -> Self {
        let mut argv = Vec::new();
        if let Some(script) = &spec.script {
            argv.extend(interpreter(script));
            argv.push(ByteString(SCRIPT.to_vec()));
        }
        argv.extend(spec.argv.iter().cloned());
        Self { kind, who, argv, script: spec.script.is_some(), env: spec.env.keys().cloned().collect(), at }
    }

    /// About a job, of whichever kind it is.
    pub fn about_job(spec: &ExecSpec, found: Option<&Identity>, at: LocalTime) -> Self {
        let kind = if spec.terminal.is_some() { Kind::Terminal } else { Kind::Exec };
        Self::about(kind, spec, Who::new(spec.user.as_deref(), found), at)
    }

    /// About a file: its command line is `read PATH` or `write PATH`, and it is the agent's own user who does it.
    pub fn about_file(act: &str, path: &Path, at: LocalTime) -> Self {
        let argv = vec![act.into(), ByteString(path.as_os_str().as_bytes().to_vec())];
        Self {
            kind: Kind::File,
            who: Who::new(None, Identity::resolve(None).ok().as_ref()),
            argv,
            script: false,
            env: Vec::new(),
            at,
        }
    }

    /// The command line, joined by spaces.
    pub fn line(&self) -> Vec<u8> {
        self.argv.iter().map(ByteString::as_bytes).collect::<Vec<_>>().join(&b' ')
    }
}

/// What interprets a script: what was asked for, else its `#!` line as the kernel reads it, else the shell.
fn interpreter(script: &Script) -> Vec<ByteString> {
    if !script.interpreter.is_empty() {
        return script.interpreter.clone();
    }
    let first = script.body.as_bytes().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = first.strip_prefix(b"#!").unwrap_or_default().trim_ascii();
    let end = words.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(words.len());
    let (program, argument) = words.split_at(end);
    let argument = argument.trim_ascii();
    match (program.is_empty(), argument.is_empty()) {
        (true, _) => vec!["/bin/sh".into()],
        (false, true) => vec![ByteString(program.to_vec())],
        (false, false) => vec![ByteString(program.to_vec()), ByteString(argument.to_vec())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(interpreter: &[&str], body: &str) -> String {
        let script = Script {
            interpreter: interpreter.iter().map(|word| ByteString::from(*word)).collect(),
            body: body.into(),
        };
        let spec = ExecSpec { script: Some(script), ..ExecSpec::command(vec!["a".into(), "b".into()]) };
        let who = Who { name: "x".into(), uid: None };
        let question = Question::about(Kind::Exec, &spec, who, LocalTime { weekday: 0, minute: 0 });
        assert!(question.script);
        String::from_utf8(question.line()).expect("text")
    }

    #[test]
    fn a_script_counts_as_its_interpreter() {
        assert_eq!(line(&[], "echo hi\n"), "/bin/sh SCRIPT a b");
        assert_eq!(line(&[], "#!\necho"), "/bin/sh SCRIPT a b");
        assert_eq!(line(&[], "#! /usr/bin/env -S  python3 -u \nx"), "/usr/bin/env -S  python3 -u SCRIPT a b");
        assert_eq!(line(&["perl", "-w"], "#!/bin/bash\n"), "perl -w SCRIPT a b");
    }

    #[test]
    fn local_time_is_that_of_the_c_library() {
        // Whatever the zone, an hour later is sixty minutes later, but for changes of summer time.
        let noon = LocalTime::of(Timestamp::from_millis(1_767_268_800_000));
        let next_day = LocalTime::of(Timestamp::from_millis(1_767_268_800_000 + 86_400_000));
        assert_eq!((next_day.weekday, next_day.minute), ((noon.weekday + 1) % 7, noon.minute));
        let before_the_epoch = LocalTime::of(Timestamp::from_millis(-1));
        assert!(before_the_epoch.weekday < 7 && before_the_epoch.minute < 1440);
    }
}

//! Everything an exec needs, worked out before the fork: arguments, environment, candidate paths.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use datacentered_proto::ops::job::ExecSpec;

use super::failure::{Failure, Step};
use super::identity::Identity;
use super::tree::MARKER;
use crate::sys::CStrings;

/// PATH of root in the clean environment.
const PATH_ROOT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// PATH of everybody else.
const PATH_USER: &str = "/usr/local/bin:/usr/bin:/bin";

/// What to execute.
#[derive(Debug)]
pub struct Plan {
    /// Arguments, the program's name first.
    pub argv: CStrings,
    /// Environment.
    pub envp: CStrings,
    /// Where the program may be, in the order in which to try.
    pub candidates: Vec<CString>,
    /// Working directory.
    pub cwd: CString,
    /// Whether the working directory is the user's home by default, so that `/` will do where it is missing.
    pub cwd_is_default: bool,
    program: String,
}

impl Plan {
    /// Works out arguments and environment. `script` is the path of the script's file where the spec has one; `marker`
    /// is the job's id where its processes must carry it in their environment.
    ///
    /// # Errors
    /// A byte 0 inside an argument, or an empty command.
    pub fn new(
        spec: &ExecSpec,
        identity: &Identity,
        script: Option<&Path>,
        marker: Option<&str>,
    ) -> Result<Self, Failure> {
        let mut argv: Vec<Vec<u8>> = Vec::new();
        if let (Some(script), Some(path)) = (&spec.script, script) {
            if !script.interpreter.is_empty() {
                argv.extend(script.interpreter.iter().map(|argument| argument.0.clone()));
            } else if !script.body.0.starts_with(b"#!") {
                argv.push(b"/bin/sh".to_vec());
            }
            argv.push(path.as_os_str().as_bytes().to_vec());
        }
        argv.extend(spec.argv.iter().map(|argument| argument.0.clone()));

        let mut environment: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
        let path = if identity.uid == 0 { PATH_ROOT } else { PATH_USER };
        environment.insert(b"PATH", path.into());
        environment.insert(b"HOME", identity.home.0.clone());
        environment.insert(b"USER", identity.name.clone().into());
        environment.insert(b"LOGNAME", identity.name.clone().into());
        environment.insert(b"SHELL", identity.shell.0.clone());
        environment.insert(b"LANG", b"C.UTF-8".to_vec());
        if let Some(terminal) = &spec.terminal {
            environment.insert(b"TERM", terminal.term.clone().into());
        }
        for (name, value) in &spec.env {
            environment.insert(name.as_bytes(), value.0.clone());
        }
        if let Some(job) = marker {
            environment.insert(MARKER.as_bytes(), job.into());
        }

        if argv.is_empty() && spec.terminal.is_some() {
            argv.push(identity.shell.0.clone());
        }
        let program = argv
            .first()
            .filter(|program| !program.is_empty())
            .cloned()
            .ok_or_else(|| Failure::at(Step::Exec, libc::ENOENT, "''"))?;
        let path = environment.get(&b"PATH"[..]).map_or(&b""[..], Vec::as_slice);
        let candidates = candidates(&program, path);
        if let (true, true, Some(name)) = (spec.argv.is_empty(), spec.script.is_none(), argv.first_mut()) {
            // A shell whose name begins with a dash is a login shell.
            let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            *name = [b"-", base].concat();
        }
        let envp = environment.iter().map(|(name, value)| [name, &b"="[..], value].concat()).collect();
        Ok(Self {
            argv: CStrings::new(c_strings(argv)?),
            envp: CStrings::new(c_strings(envp)?),
            candidates: c_strings(candidates)?,
            cwd: c_string(spec.cwd.as_ref().unwrap_or(&identity.home).0.clone())?,
            cwd_is_default: spec.cwd.is_none(),
            program: String::from_utf8_lossy(&program).into_owned(),
        })
    }

    /// The program's name as it was asked for.
    pub fn program(&self) -> String {
        self.program.clone()
    }
}

/// Where `execvp` would look.
fn candidates(program: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    path.split(|b| *b == b':')
        .map(|dir| if dir.is_empty() { program.to_vec() } else { [dir, b"/", program].concat() })
        .collect()
}

fn c_string(bytes: Vec<u8>) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::at(Step::Exec, libc::EINVAL, "with a byte 0 in an argument"))
}

fn c_strings(all: Vec<Vec<u8>>) -> Result<Vec<CString>, Failure> {
    all.into_iter().map(c_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ops::job::Script;

    fn identity() -> Identity {
        Identity {
            name: "ann".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![],
            home: "/home/ann".into(),
            shell: "/bin/zsh".into(),
            switch: false,
        }
    }

    fn texts(strings: &CStrings) -> Vec<String> {
        strings.strings().iter().map(|s| s.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_environment_is_clean_and_complete() {
        let mut spec = ExecSpec::command(vec!["true".into()]);
        spec.env.insert("LANG".into(), "C".into());
        let plan = Plan::new(&spec, &identity(), None, None).expect("plans");
        let expected = [
            "HOME=/home/ann",
            "LANG=C",
            "LOGNAME=ann",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "SHELL=/bin/zsh",
            "USER=ann",
        ];
        assert_eq!(texts(&plan.envp), expected);
        assert_eq!(plan.candidates[1].to_bytes(), b"/usr/bin/true");
        assert!(plan.cwd_is_default);
    }

    #[test]
    fn a_terminal_without_a_command_is_a_login_shell() {
        let mut spec = ExecSpec::command(vec![]);
        assert!(Plan::new(&spec, &identity(), None, None).is_err());
        let window = datacentered_proto::ops::job::Window { cols: 80, rows: 24 };
        spec.terminal =
            Some(datacentered_proto::ops::job::TerminalSpec { window, term: "xterm-256color".into() });
        let plan = Plan::new(&spec, &identity(), None, None).expect("plans");
        assert_eq!((texts(&plan.argv), plan.program()), (vec!["-zsh".to_owned()], "/bin/zsh".to_owned()));
        assert_eq!(plan.candidates, [c"/bin/zsh".to_owned()]);
        assert!(texts(&plan.envp).contains(&"TERM=xterm-256color".to_owned()));
    }

    #[test]
    fn scripts_get_their_interpreter() {
        let plan = |interpreter: &[&str], body: &str| {
            let mut spec = ExecSpec::command(vec!["a".into()]);
            let interpreter = interpreter.iter().map(|text| (*text).into()).collect();
            spec.script = Some(Script { interpreter, body: body.into() });
            texts(&Plan::new(&spec, &identity(), Some(Path::new("/s")), None).expect("plans").argv)
        };
        assert_eq!(plan(&["perl", "-w"], "#!/bin/sh"), ["perl", "-w", "/s", "a"]);
        assert_eq!(plan(&[], "#!/usr/bin/python3\n"), ["/s", "a"]);
        assert_eq!(plan(&[], "echo"), ["/bin/sh", "/s", "a"]);
    }

    #[test]
    fn a_slash_means_no_search_and_an_empty_part_the_current_directory() {
        assert_eq!(candidates(b"./x", b"/bin"), [b"./x"]);
        assert_eq!(candidates(b"x", b"/bin::/opt"), [&b"/bin/x"[..], b"x", b"/opt/x"]);
    }
}

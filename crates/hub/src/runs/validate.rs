//! Whether a run makes sense before anything of it is kept.

use datacentered_proto::limits::MAX_SPEC;
use datacentered_proto::ops::job::{ExecSpec, TerminalSpec, Window};
use datacentered_proto::ops::run::CreateParams;
use datacentered_proto::{ByteString, Error};

/// Longest time limit or expiry: a year.
const MAX_MS: u64 = 366 * 24 * 3600 * 1000;

/// Least and greatest size of a spool.
const SPOOL_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(64 << 30);

/// Greatest output kept of one job.
const MAX_OUTPUT_BYTES: u64 = 1 << 40;

/// Longest name of a user.
const MAX_USER: usize = 64;

/// Longest name of a terminal's kind.
const MAX_TERM: usize = 64;

/// Checks everything about a run but its selectors.
pub(super) fn check(params: &CreateParams) -> Result<(), Error> {
    if params.key.uuid().get_version_num() != 7 {
        return Err(Error::invalid("the run's key must be a UUIDv7: its time orders the history"));
    }
    if params.on.is_empty() {
        return Err(Error::invalid("a run needs at least one selector; 'all' stands for every host"));
    }
    if params.expires_ms == 0 || params.expires_ms > MAX_MS {
        return Err(Error::invalid("expires_ms must be 1 ms to 366 days"));
    }
    if params.max_parallel == Some(0) {
        return Err(Error::invalid("max_parallel must be at least 1; leave it out for no limit"));
    }
    check_exec(&params.exec)
}

fn check_exec(exec: &ExecSpec) -> Result<(), Error> {
    let size = serde_json::to_string(exec).map_or(usize::MAX, |json| json.len());
    if size > MAX_SPEC {
        return Err(Error::too_large(format!(
            "the command, environment and script are {size} bytes as JSON, the limit is {MAX_SPEC}; put larger \
             scripts on the hosts first"
        )));
    }
    match &exec.script {
        None if exec.argv.is_empty() && exec.terminal.is_none() => {
            return Err(Error::invalid("there is no command: give argv or a script"));
        }
        None if exec.argv.first().is_some_and(|program| program.as_bytes().is_empty()) => {
            return Err(Error::invalid("the program's name is empty"));
        }
        _ => {}
    }
    if let Some(terminal) = &exec.terminal {
        check_terminal(exec, terminal)?;
    }
    let interpreter = exec.script.iter().flat_map(|script| script.interpreter.iter());
    let texts = exec.argv.iter().chain(exec.env.values()).chain(exec.cwd.iter()).chain(interpreter);
    if texts.into_iter().any(contains_nul) {
        return Err(Error::invalid(
            "arguments, environment and working directory cannot contain a zero byte",
        ));
    }
    if let Some(name) = exec.env.keys().find(|name| !is_env_name(name)) {
        return Err(Error::invalid(format!(
            "'{}' cannot be the name of an environment variable",
            name.chars().take(64).collect::<String>().escape_debug()
        )));
    }
    if let Some(user) = &exec.user {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.$".contains(c);
        if user.is_empty() || user.len() > MAX_USER || !user.chars().all(plain) {
            return Err(Error::invalid("the user must be a login name or number"));
        }
    }
    if exec.timeout_ms.is_some_and(|ms| ms == 0 || ms > MAX_MS) || exec.grace_ms > MAX_MS {
        return Err(Error::invalid("time limits must be 1 ms to 366 days"));
    }
    if !SPOOL_BYTES.contains(&exec.spool_bytes) {
        return Err(Error::invalid("spool_bytes must be 64 KiB to 64 GiB"));
    }
    if exec.output_bytes > MAX_OUTPUT_BYTES {
        return Err(Error::invalid("output_bytes must be at most 1 TiB"));
    }
    if exec.limits.processes == Some(0) || exec.limits.memory_bytes.is_some_and(|bytes| bytes < 1 << 20) {
        return Err(Error::invalid("limits must leave room for one process and 1 MiB of memory"));
    }
    Ok(())
}

fn check_terminal(exec: &ExecSpec, terminal: &TerminalSpec) -> Result<(), Error> {
    if exec.script.is_some() || exec.merge {
        return Err(Error::invalid(
            "a terminal runs a program: 'script' and 'merge' go with run.create only",
        ));
    }
    check_window(terminal.window)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if terminal.term.is_empty() || terminal.term.len() > MAX_TERM || !terminal.term.chars().all(plain) {
        return Err(Error::invalid("'term' must be the name of a terminal, such as xterm-256color"));
    }
    Ok(())
}

/// A window that programs can work with.
pub(crate) fn check_window(window: Window) -> Result<(), Error> {
    if window.is_valid() {
        return Ok(());
    }
    Err(Error::invalid(format!("a window has 1 to {} columns and rows", Window::MAX)))
}

fn contains_nul(bytes: &ByteString) -> bool {
    bytes.as_bytes().contains(&0)
}

fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains('=') && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::RunId;
    use datacentered_proto::ids::uuid_v7;
    use datacentered_proto::ops::run::OfflinePolicy;

    fn params() -> CreateParams {
        CreateParams {
            key: RunId::from_uuid(uuid_v7(1, [0; 10])),
            on: vec!["all".into()],
            exec: ExecSpec::command(vec!["true".into()]),
            offline: OfflinePolicy::Fail,
            expires_ms: 1000,
            max_parallel: None,
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(check(&params()).is_ok());
        let refused = |edit: &dyn Fn(&mut CreateParams)| {
            let mut params = params();
            edit(&mut params);
            assert!(check(&params).is_err());
        };
        refused(&|p| p.on.clear());
        refused(&|p| p.exec.argv.clear());
        refused(&|p| p.exec.argv = vec!["".into()]);
        refused(&|p| p.exec.argv.push(vec![b'a', 0].into()));
        refused(&|p| p.exec.argv.push("x".repeat(MAX_SPEC).into()));
        refused(&|p| drop(p.exec.env.insert("A=B".into(), "".into())));
        refused(&|p| drop(p.exec.env.insert(String::new(), "".into())));
        refused(&|p| drop(p.exec.env.insert("A\nB".into(), "".into())));
        refused(&|p| p.exec.cwd = Some(vec![b'/', 0].into()));
        refused(&|p| p.exec.user = Some("root; rm".into()));
        refused(&|p| p.exec.timeout_ms = Some(0));
        refused(&|p| p.expires_ms = 0);
        refused(&|p| p.max_parallel = Some(0));
        refused(&|p| p.exec.spool_bytes = 1);
        refused(&|p| p.exec.limits.processes = Some(0));
        let terminal =
            |cols, term: &str| Some(TerminalSpec { window: Window { cols, rows: 24 }, term: term.into() });
        let mut shell = params();
        (shell.exec.argv, shell.exec.terminal) = (vec![], terminal(80, "xterm-256color"));
        assert!(check(&shell).is_ok());
        for wrong in
            [terminal(0, "xterm"), terminal(Window::MAX + 1, "xterm"), terminal(80, ""), terminal(80, "a b")]
        {
            refused(&|p| p.exec.terminal.clone_from(&wrong));
        }
        refused(&|p| (p.exec.merge, p.exec.terminal) = (true, terminal(80, "xterm")));
    }
}

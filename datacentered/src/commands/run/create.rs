//! `run --on ...`: makes the run, then follows it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use datacentered_client::{Client, Clock};
use datacentered_proto::operations::RunCreate;
use datacentered_proto::ops::job::{ExecLimits, ExecSpec, Script};
use datacentered_proto::ops::run::CreateParams;
use datacentered_proto::{ByteString, limits};

use super::cancel::{self, Interrupts, OnInterrupt};
use super::report::Document;
use super::{Following, as_ssh, many, single, wait};
use crate::args::Global;
use crate::args::run::{Create, Offline};
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::text::{duration, selector};
use crate::ui::Ui;

/// How long a target waits for its host, unless it is said.
const QUEUED_FOR: Duration = Duration::from_hours(24);

/// `run --on ...`.
pub(crate) async fn run(ui: Ui, global: &Global, create: Create) -> Result<()> {
    let literal = selector::literal(&create.on).is_some();
    let result = connect_and_run(ui, global, create, literal).await;
    if literal { result.map_err(as_ssh) } else { result }
}

async fn connect_and_run(ui: Ui, global: &Global, create: Create, literal: bool) -> Result<()> {
    if global.token.as_deref() == Some("-") && (create.stdin || is_stdin(create.script.as_deref())) {
        return Err(Failure::usage("standard input cannot be both the token and the input of the run")
            .hint("give the token as --token @FILE"));
    }
    let how = How { literal, detach: create.detach, stdin: create.stdin, group: create.group };
    let params = params(create)?;
    let client = connect::connect(global).await?;
    let result = create_and_follow(ui, &client, &params, how).await;
    connect::finish(client, result).await
}

/// How a run is followed.
struct How {
    /// One host was named literally.
    literal: bool,
    /// It is not followed.
    detach: bool,
    /// Standard input is passed on.
    stdin: bool,
    /// Hosts that said the same are shown together.
    group: bool,
}

async fn create_and_follow(ui: Ui, client: &Client, params: &CreateParams, how: How) -> Result<()> {
    let How { literal, detach, stdin, group } = how;
    let mut interrupts = Interrupts::catch()?;
    let created = tokio::select! {
        created = client.call::<RunCreate>(params) => created?,
        () = interrupts.next() => {
            // Nobody knows whether it has been made. A cancel finds it if so, and there is nothing to cancel otherwise.
            cancel::cancel(client, params.key).await.ok();
            return Err(Failure::failed("left before the hub had answered; the run is cancelled if it was made"));
        }
    };
    if created.summary.counts.targets == 0 {
        return Err(Failure::usage("no host matches").hint("'datacentered host list' shows the hosts"));
    }
    if detach {
        let run = created.run;
        return if ui.json() {
            ui.document(&Document::load(client, run, Some(created)).await?)
        } else {
            ui.line(&run.to_string())
        };
    }
    let following =
        Following { ui, client, run: created.run, interrupts, on_interrupt: OnInterrupt::Cancel, stdin };
    if ui.json() {
        wait::follow(following, literal).await
    } else if literal {
        let host = created.targets.first().map(|target| target.host_id.to_string());
        single::follow(following, host, 0).await
    } else {
        let run = created.run;
        many::follow(following, Document::load(client, run, Some(created)).await?, group).await
    }
}

fn is_stdin(path: Option<&Path>) -> bool {
    path.is_some_and(|path| path.as_os_str() == "-")
}

/// What goes to the hub.
fn params(create: Create) -> Result<CreateParams> {
    if create.stdin && is_stdin(create.script.as_deref()) {
        return Err(Failure::usage("standard input cannot be both the script and the input of the run")
            .hint("give the script as a file"));
    }
    if create.expires.is_some() && !matches!(create.offline, Offline::Queue) {
        return Err(Failure::usage(
            "--expires says how long --offline queue waits, and goes with nothing else",
        )
        .hint("add --offline queue, or leave --expires out; --timeout limits how long the command takes"));
    }
    let script = match &create.script {
        Some(path) => Some(Script {
            interpreter: create.interpreter.map(|program| words(program.into_vec())).unwrap_or_default(),
            body: read_script(path)?,
        }),
        None => None,
    };
    let mut exec = ExecSpec::command(create.argv.into_iter().map(|arg| ByteString(arg.into_vec())).collect());
    exec.script = script;
    exec.env = create.env.into_iter().collect();
    exec.cwd = create.cwd.map(|cwd| ByteString(cwd.into_vec()));
    exec.user = create.user;
    exec.stdin = create.stdin;
    exec.merge = create.merge;
    exec.timeout_ms = create.timeout.map(duration::millis);
    exec.when_full = create.when_full.into();
    exec.limits = ExecLimits { processes: create.max_processes, memory_bytes: create.max_memory };
    Ok(CreateParams {
        key: Clock::system().run_id(),
        on: create.on,
        exec,
        offline: create.offline.into(),
        expires_ms: duration::millis(create.expires.unwrap_or(QUEUED_FOR)),
        max_parallel: create.max_parallel,
    })
}

/// A program and its arguments, as words.
fn words(text: Vec<u8>) -> Vec<ByteString> {
    text.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| ByteString(word.to_vec()))
        .collect()
}

fn read_script(path: &Path) -> Result<ByteString> {
    let unreadable = |error: io::Error| {
        Failure::usage(format!("cannot read the script {}: {error}", path.display())).exit(Exit::Usage)
    };
    let mut body = Vec::new();
    let most = limits::MAX_SPEC as u64 + 1;
    if is_stdin(Some(path)) {
        io::stdin().lock().take(most).read_to_end(&mut body).map_err(unreadable)?;
    } else {
        File::open(path).map_err(unreadable)?.take(most).read_to_end(&mut body).map_err(unreadable)?;
    }
    if body.len() > limits::MAX_SPEC {
        return Err(Failure::usage(format!(
            "the script {} is larger than {} KiB",
            path.display(),
            limits::MAX_SPEC / 1024
        ))
        .hint("send it as input instead: datacentered run --on ... -i -- sh < FILE"));
    }
    Ok(ByteString(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(args: &[&str]) -> CreateParams {
        try_parse(args).expect("reads")
    }

    fn try_parse(args: &[&str]) -> Result<CreateParams> {
        let cli =
            crate::args::Cli::try_parse_from([&["datacentered", "run"], args].concat()).expect("parses");
        let crate::args::Command::Run(run) = cli.command else { panic!("a run") };
        params(run.create)
    }

    #[test]
    fn an_expiry_is_for_what_waits() {
        let failure = try_parse(&["--on", "h", "--expires", "1h", "--", "true"]).expect_err("refused");
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(parse(&["--on", "h", "--offline", "queue", "--", "true"]).expires_ms, 86_400_000);
    }

    #[test]
    fn options_become_parameters() {
        let params = parse(&[
            "--on",
            "web-*",
            "--on",
            "db1",
            "-i",
            "--timeout",
            "90s",
            "--offline",
            "queue",
            "--expires",
            "7d",
            "--user",
            "www",
            "--env",
            "A=1",
            "--env",
            "B=x=y",
            "--cwd",
            "/srv",
            "--max-parallel",
            "3",
            "--merge",
            "--when-full",
            "discard",
            "--max-memory",
            "256M",
            "--max-processes",
            "9",
            "--",
            "sh",
            "-c",
            "echo \"$A\"",
        ]);
        insta::assert_snapshot!(
            serde_json::to_string_pretty(&serde_json::json!({"on": params.on, "exec": params.exec,
                "offline": params.offline, "expires_ms": params.expires_ms, "max_parallel": params.max_parallel}))
                .expect("encodes")
        );
    }

    #[test]
    fn arguments_stay_the_bytes_they_are() {
        use std::ffi::OsString;
        let argument = OsString::from_vec(vec![b'a', 0xff, b'b']);
        let args = ["datacentered", "run", "--on", "h", "--", "echo"].map(OsString::from);
        let cli = crate::args::Cli::try_parse_from(args.into_iter().chain([argument])).expect("parses");
        let crate::args::Command::Run(run) = cli.command else { panic!("a run") };
        let params = params(run.create).expect("reads");
        assert_eq!(params.exec.argv.last().map(ByteString::as_bytes), Some(&b"a\xffb"[..]));
    }

    #[test]
    fn scripts_are_read_here_and_have_a_limit() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("fix.sh");
        std::fs::write(&path, "#!/bin/sh\necho hi\n").expect("writes");
        let name = path.to_str().expect("text");
        let params = parse(&["--on", "h", "--script", name, "--interpreter", "python3 -u", "--", "arg"]);
        let script = params.exec.script.expect("script");
        assert_eq!(script.interpreter, [ByteString::from("python3"), ByteString::from("-u")]);
        assert_eq!(script.body.as_bytes(), b"#!/bin/sh\necho hi\n");
        assert_eq!(params.exec.argv, [ByteString::from("arg")]);

        std::fs::write(&path, vec![b'x'; limits::MAX_SPEC + 1]).expect("writes");
        assert_eq!(read_script(&path).expect_err("too large").exit, Exit::Usage);
        assert_eq!(read_script(Path::new("/nowhere/at/all")).expect_err("missing").exit, Exit::Usage);
    }
}

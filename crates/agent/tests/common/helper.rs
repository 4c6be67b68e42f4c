//! What the tests of jobs run beside themselves: a shim, and a process that holds jobs and can be killed.

#![allow(clippy::print_stdout, reason = "it talks to the test on standard output")]

use std::io::{BufRead, Write};
use std::process::ExitCode;

use datacentered_agent_lib::boot::BootReader;
use datacentered_agent_lib::jobs::{Jobs, JobsConfig};
use datacentered_agent_lib::shim;
use datacentered_link::clock::Clock;
use datacentered_proto::ops::job::Offer;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|word| word.to_str()) {
        Some("shim") => shim::main(args),
        Some("hold") => hold(args.next().expect("a directory").into()),
        other => {
            println!("unknown: {other:?}");
            ExitCode::FAILURE
        }
    }
}

/// Holds jobs: says `open INCARNATION`, then takes one offer a line (with `-` for the incarnation) and answers with its
/// report, or `reports` and answers with all. Ends when the journal has failed.
fn hold(dir: std::path::PathBuf) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = JobsConfig::new(dir);
        let jobs = Jobs::open(config, Clock::system(), BootReader::system()).await.expect("opens");
        say(&format!("open {}", jobs.incarnation()));
        let (lines, mut receiver) = tokio::sync::mpsc::channel(16);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if lines.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        loop {
            let line = tokio::select! {
                line = receiver.recv() => line,
                () = jobs.failed().cancelled() => {
                    say("the journal failed");
                    return ExitCode::FAILURE;
                }
            };
            let Some(line) = line else { return ExitCode::SUCCESS };
            if line == "reports" {
                say(&serde_json::to_string(&jobs.list(None, 1000)).expect("encodes"));
                continue;
            }
            if line == "rss" {
                let status = std::fs::read_to_string("/proc/self/status").expect("reads");
                let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
                say(rss);
                continue;
            }
            let mut offer: Offer = serde_json::from_str(&line).expect("an offer");
            jobs.incarnation().clone_into(&mut offer.incarnation);
            match jobs.offer(offer).await {
                Ok(report) => say(&serde_json::to_string(&report).expect("encodes")),
                Err(error) => say(&format!("error {error}")),
            }
        }
    })
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("writes");
}

//! `cp`: files to and from hosts.

mod file;
mod report;
mod side;
mod source;
mod target;
mod tree;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use datacentered_client::Client;
use datacentered_proto::operations::HostList;
use datacentered_proto::ops::file::{Entry, EntryKind};
use datacentered_proto::ops::host::ListParams;
use datacentered_proto::{ByteString, Error, limits};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::args::Global;
use crate::args::cp::Cp;
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::text::endpoint::{self, Endpoint};
use crate::text::{selector, size};
use crate::ui::state::StateLine;
use crate::ui::{Ui, connection};
use file::Copy;
use report::{Log, Report, Trouble};
use side::{Place, Side};

/// A copy that takes less is not worth a word when it is done.
const WORTH_A_WORD: Duration = Duration::from_secs(1);

/// How files are copied.
#[derive(Clone, Copy, Debug)]
struct Options {
    recursive: bool,
    preserve: bool,
    resume: bool,
}

/// Sources of one side, and where they go: done one after the other.
#[derive(Debug)]
struct Work {
    /// The host that it is told by.
    host: String,
    from: Side,
    sources: Vec<Vec<u8>>,
    to: Side,
    target: Vec<u8>,
    /// The target has to be a directory.
    into: bool,
    /// It is made where it is not there.
    make: bool,
}

/// What was done, for programs.
#[derive(Serialize)]
struct Document {
    ok: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    bytes: u64,
    skipped: u64,
    failed: u64,
    duration_ms: u64,
    targets: Vec<Report>,
}

/// `cp`.
pub(crate) async fn run(ui: Ui, global: &Global, command: Cp) -> Result<()> {
    check(&command)?;
    let client = connect::connect(global).await?;
    let copied = copy(ui, &client, command).await;
    connect::finish(client, copied).await
}

/// What can be said without a hub.
fn check(command: &Cp) -> Result<()> {
    let chosen = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Chosen(_));
    let here = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Here(_));
    let Some((target, sources)) = command.paths.split_last() else {
        return Err(Failure::usage("name what to copy, and where to"));
    };
    if command.paths.iter().any(chosen) && command.on.is_empty() {
        return Err(Failure::usage("':PATH' is a path on the hosts of --on, which is not given"));
    }
    if !command.on.is_empty() && !command.paths.iter().any(chosen) {
        return Err(Failure::usage("--on says which hosts ':PATH' means, and there is no ':PATH'"));
    }
    if sources.iter().any(chosen) && !here(target) {
        return Err(Failure::usage("from many hosts files can only be copied to this machine"));
    }
    if here(target) && sources.iter().any(here) {
        return Err(
            Failure::usage("both are on this machine; use cp for that").hint("a path on a host is HOST:PATH")
        );
    }
    Ok(())
}

async fn copy(ui: Ui, client: &Client, command: Cp) -> Result<()> {
    let began = Instant::now();
    let hosts = if command.on.is_empty() { Vec::new() } else { resolve(client, &command.on).await? };
    let options =
        Options { recursive: command.recursive, preserve: command.preserve, resume: command.resume };
    let state = StateLine::bytes(ui);
    let work = plan(client, command.paths, &hosts);
    let mut telling = std::pin::pin!(connection::tell(ui, &state, client));
    let mut running = JoinSet::new();
    let mut waiting = work.into_iter();
    let mut reports = Vec::new();
    let ended = loop {
        while running.len() < usize::from(command.max_parallel) {
            let Some(work) = waiting.next() else { break };
            running.spawn(one(ui, state.clone(), client.clone(), work, options));
        }
        let done = tokio::select! {
            done = running.join_next() => done,
            never = &mut telling => match never {},
        };
        match done {
            None => break Ok(()),
            Some(Ok((some, Ok(())))) => reports.extend(some),
            Some(Ok((_, Err(failure)))) => break Err(failure),
            Some(Err(_)) => break Err(Failure::failed("a part of this program failed")),
        }
    };
    state.clear();
    ended?;
    reports.sort_by(|a, b| (&a.host, &a.from).cmp(&(&b.host, &b.from)));
    finish(ui, reports, began.elapsed())
}

fn finish(ui: Ui, targets: Vec<Report>, took: Duration) -> Result<()> {
    let sum = |of: fn(&Report) -> u64| targets.iter().map(of).sum::<u64>();
    let document = Document {
        ok: targets.iter().all(|report| report.failed == 0),
        files: sum(|report| report.files),
        directories: sum(|report| report.directories),
        symlinks: sum(|report| report.symlinks),
        bytes: sum(|report| report.bytes),
        skipped: sum(|report| report.skipped),
        failed: sum(|report| report.failed),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        targets,
    };
    if ui.json() {
        ui.document(&document)?;
    } else if took >= WORTH_A_WORD {
        let rate = document.bytes as f64 / took.as_secs_f64().max(0.001);
        ui.advice(&format!(
            "{} files, {} in {:.1} s, {} a second",
            document.files,
            size::human(document.bytes),
            took.as_secs_f64(),
            size::human(rate as u64)
        ));
    }
    if document.ok {
        return Ok(());
    }
    if !ui.json() && document.targets.len() > 1 {
        let failed = document.targets.iter().filter(|report| report.failed > 0).count();
        ui.message(&format!("{failed} of {} failed", document.targets.len()));
    }
    Err(Failure::silent(Exit::Failed))
}

/// The hosts that the selectors mean, by name. What is named has to be there.
async fn resolve(client: &Client, on: &[String]) -> Result<Vec<String>> {
    let mut params = ListParams { on: on.to_vec(), limit: Some(limits::MAX_PAGE), ..ListParams::default() };
    let (mut names, mut known) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let page = client.call::<HostList>(&params).await?;
        for host in page.hosts.into_iter().filter(|host| !host.revoked) {
            known.extend([host.name.clone(), host.id.to_string()]);
            names.insert(host.name);
        }
        params.next = page.next;
        if params.next.is_none() {
            break;
        }
    }
    // Commas in parentheses stand between values, not between hosts.
    let plain = on.iter().filter(|selector| !selector.contains('('));
    for word in plain.flat_map(|selector| selector.split(',')).map(ToOwned::to_owned) {
        let literal = selector::literal(std::slice::from_ref(&word));
        if let Some(missing) = literal.filter(|name| !known.contains(*name)) {
            return Err(Failure::usage(format!("there is no host '{missing}'"))
                .hint("'datacentered host list' shows them all"));
        }
    }
    if names.is_empty() {
        return Err(Failure::usage("no host matches").hint("'datacentered host list' shows them all"));
    }
    Ok(names.into_iter().collect())
}

/// Who copies what.
fn plan(client: &Client, mut paths: Vec<Endpoint>, hosts: &[String]) -> Vec<Work> {
    let Some(target) = paths.pop() else { return Vec::new() };
    let on = |name: &str| Side::Host { client: client.clone(), name: name.to_owned() };
    let several = paths.len() > 1;
    let mut work = Vec::new();
    // From many: each has a directory of its own.
    if let Endpoint::Here(directory) = &target
        && paths.iter().any(|path| matches!(path, Endpoint::Chosen(_)))
    {
        let sources: Vec<Vec<u8>> = paths
            .iter()
            .filter_map(|path| if let Endpoint::Chosen(path) = path { Some(path.clone()) } else { None })
            .collect();
        for host in hosts {
            let target = endpoint::join(directory, host.as_bytes());
            let (from, host) = (on(host), host.clone());
            work.push(Work {
                host,
                from,
                sources: sources.clone(),
                to: Side::Here,
                target,
                into: true,
                make: true,
            });
        }
        paths.retain(|path| !matches!(path, Endpoint::Chosen(_)));
    }
    let targets: Vec<(Option<&str>, Vec<u8>)> = match &target {
        Endpoint::Here(path) => vec![(None, path.clone())],
        Endpoint::Host { host, path } => vec![(Some(host), path.clone())],
        Endpoint::Chosen(path) => hosts.iter().map(|host| (Some(host.as_str()), path.clone())).collect(),
    };
    for (host, target) in targets {
        for path in &paths {
            let (from, source, name) = match path {
                Endpoint::Here(path) => (Side::Here, path, None),
                Endpoint::Host { host, path } => (on(host), path, Some(host.as_str())),
                Endpoint::Chosen(_) => continue,
            };
            let to = host.map_or(Side::Here, on);
            let told = host.or(name).unwrap_or_default().to_owned();
            // What goes to one place goes there in order.
            let same = work.iter_mut().find(|work: &&mut Work| {
                !work.make && work.host == told && name.is_none() && matches!(work.from, Side::Here)
            });
            if let Some(work) = same {
                work.sources.push(source.clone());
                continue;
            }
            let into = several || target.ends_with(b"/");
            let (target, sources) = (target.clone(), vec![source.clone()]);
            work.push(Work { host: told, from, sources, to, target, into, make: false });
        }
    }
    work
}

/// Copies the sources of one piece of work, one after the other.
async fn one(
    ui: Ui,
    state: StateLine,
    client: Client,
    work: Work,
    options: Options,
) -> (Vec<Report>, Result<()>) {
    let mut reports = Vec::new();
    for source in &work.sources {
        let labels = (work.from.label(source), work.to.label(&work.target));
        let log = Log::new(ui, state.clone(), &work.host, labels.0, labels.1);
        let copied = source_to_target(&client, &work, source, options, &log).await;
        match copied {
            Ok(()) => {}
            Err(Trouble::Here(error)) => log.fail(source, &error),
            Err(Trouble::Everywhere(failure)) => return (reports, Err(failure)),
        }
        reports.push(log.report());
    }
    (reports, Ok(()))
}

fn wrong(message: String) -> Trouble {
    Trouble::Here(Error::conflict(message))
}

async fn source_to_target(
    client: &Client,
    work: &Work,
    source: &[u8],
    options: Options,
    log: &Log,
) -> Result<(), Trouble> {
    let label = work.from.label(source);
    let Some(entry) = work.from.stat(source).await? else {
        return Err(Error::not_found(format!("{label}: there is no such file or directory")).into());
    };
    let tree = match entry.kind {
        EntryKind::Directory if options.recursive => true,
        EntryKind::Directory => {
            return Err(wrong(format!("{label} is a directory; copy it with all that is in it: -r")));
        }
        EntryKind::File => false,
        EntryKind::Symlink | EntryKind::Other => {
            return Err(wrong(format!("{label} is a device, a socket or a pipe")));
        }
    };
    let to = place(work, source, tree).await?;
    let whole = |root: &[u8]| ByteString(root.to_vec());
    let from = Place { side: work.from.clone(), root: whole(source), path: ByteString::default() };
    let transfer = client.clock().key();
    let source = Entry { path: ByteString::default(), ..entry };
    let mut copy = Copy { from, to, source, options, transfer, log: log.clone() };
    if tree {
        return tree::copy(copy).await;
    }
    log.expect(copy.source.size);
    copy.run().await
}

/// Where a source goes: into a directory that is there, under its own name, or to the very place that was named.
async fn place(work: &Work, source: &[u8], tree: bool) -> Result<Place, Trouble> {
    let (_, name) = endpoint::split(source);
    let there = work.to.stat(&work.target).await?;
    let at = |root: Vec<u8>, path: Vec<u8>| Place {
        side: work.to.clone(),
        root: ByteString(root),
        path: ByteString(path),
    };
    let label = || work.to.label(&work.target);
    match there.map(|entry| entry.kind) {
        Some(EntryKind::Directory) if name.is_empty() && !tree => {
            Err(wrong(format!("{} is a directory", label())))
        }
        Some(EntryKind::Directory) => Ok(at(work.target.clone(), name)),
        Some(_) if work.into || tree => Err(wrong(format!("{} is not a directory", label()))),
        None if work.make => {
            let path = side::local(&work.target);
            let shown = work.target.clone();
            side::block(move || std::fs::create_dir_all(path))
                .await?
                .map_err(|error| datacentered_agent_lib::files::io("make the directory", &shown, &error))?;
            Ok(at(work.target.clone(), name))
        }
        // `cp -r site web1:/srv/new/` makes the directory, as with cp.
        None if work.into && !(tree && work.sources.len() == 1) => {
            Err(wrong(format!("{}: there is no such directory", label())))
        }
        None | Some(_) => {
            let (parent, name) = endpoint::split(&work.target);
            if name.is_empty() {
                return Err(wrong(format!("{}: there is no such directory", label())));
            }
            Ok(at(parent, name))
        }
    }
}

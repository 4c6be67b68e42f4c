//! Faults on purpose: a fleet whose hub, agents, shims, links, disks and clocks fail at random from a printed seed, while
//! clients give it work. Every target has to be explained, nothing may start twice, no byte and no event may be lost or
//! doubled.
//!
//! `DC_CHAOS_RUNS` is how many runs it takes (300), `DC_SEED` repeats a schedule. `make chaos` is the long form.

#![allow(clippy::print_stdout, reason = "the seed, the faults and the report are for who reads the log")]

#[path = "../common/mod.rs"]
mod common;

mod check;
mod faults;
mod fleet;
mod load;
mod place;
mod proxy;
mod random;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use check::{Made, Report};
use faults::Faults;
use fleet::Fleet;
use load::{Load, Ran, read, watch_events};
use place::Place;
use tokio::sync::watch;

const HOSTS: usize = 5;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_fails_every_target_is_explained_and_nothing_runs_twice() {
    let Some(place) = Place::entered("whatever_fails_every_target_is_explained_and_nothing_runs_twice")
    else {
        return;
    };
    let seed = number("DC_SEED").unwrap_or_else(|| {
        u64::from(std::process::id()) ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
    });
    let runs = number("DC_CHAOS_RUNS").unwrap_or(300);
    println!("DC_SEED={seed} DC_CHAOS_RUNS={runs}");
    let began = Instant::now();

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut fleet = Fleet::start(&runtime, place, HOSTS, 1024 + runs * 2);
    let load = Load { seed, runs, hosts: HOSTS as u64, notes: fleet.notes(), hub: fleet.socket() };
    let watcher = runtime.block_on(load.client());
    let (tell_last, last) = watch::channel(None);
    let live = runtime.spawn(watch_events(watcher, last));
    let work = runtime.spawn(load.clone().run());

    let mut faults = Faults::new(seed, place);
    while !work.is_finished() {
        faults.step(&mut fleet);
        fleet.tend();
        std::thread::sleep(Duration::from_millis(5));
    }
    faults.end(&mut fleet);
    fleet.tend();
    let ran = runtime.block_on(work).expect("the clients do not panic");

    // On a calm fleet, everything is read once more by somebody new.
    let mut report = Report { seed, ..Report::default() };
    let (again, fresh) = runtime.block_on(async {
        let client = load.client().await;
        let mut again = Vec::new();
        for ran in &ran {
            again.push(read_all(&client, ran, &mut report.findings).await);
        }
        // Events follow what they tell of within moments.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = load::last_event(&client).await;
        let (tell, last) = watch::channel(status.clone());
        let fresh = watch_events(load.client().await, last).await;
        drop(tell);
        tell_last.send_replace(status);
        (again, fresh)
    });
    let live = runtime.block_on(live).expect("the watcher does not panic");

    let notes = std::fs::read_to_string(fleet.notes()).unwrap_or_default();
    let mut starts: HashMap<String, u64> = HashMap::new();
    for job in notes.lines() {
        *starts.entry(job.to_owned()).or_default() += 1;
    }
    let made = Made {
        shims_killed: faults.has("shim killed"),
        disks_full: faults.has("host's disk full") || faults.has("hub's disk full"),
    };
    for (ran, again) in ran.iter().zip(&again) {
        report.check(ran, again, &starts, made);
    }
    report.check_events(&live, &fresh, &ran);
    report.own_ends = fleet.hub.own_ends + fleet.hosts.iter().map(|host| host.agent.own_ends).sum::<u32>();
    report.faults = faults.made;
    report.seconds = began.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string_pretty(&report).expect("encodes"));
    if !report.is_clean() {
        let logs = fleet.keep_logs();
        panic!("{} findings with DC_SEED={seed}; logs in {}", report.findings.len(), logs.display());
    }
}

async fn read_all(
    client: &datacentered_client::Client,
    ran: &Ran,
    findings: &mut Vec<String>,
) -> BTreeMap<String, load::Read> {
    let mut all = BTreeMap::new();
    for target in ran.shown.iter().flat_map(|shown| &shown.targets) {
        let Some(shown) = &ran.shown else { continue };
        let reading = read(client, shown.run, target.host.clone());
        match tokio::time::timeout(Duration::from_secs(20), reading).await {
            Ok(Ok(read)) => drop(all.insert(target.host.clone(), read)),
            Ok(Err(error)) => findings.push(format!("{} cannot be read: {error}", ran.tag)),
            Err(_) => findings.push(format!("{} on {}: its output has no end", ran.tag, target.host)),
        }
    }
    all
}

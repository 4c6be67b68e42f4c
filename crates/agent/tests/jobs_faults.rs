//! The agent killed at any moment, at random from a printed seed; full disks; a damaged journal.

#![allow(clippy::print_stdout, reason = "the seed and the figures are for who reads the log")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::holder::{Holder, line_of};
use common::{Host, PATIENCE, command, eventually, exited, facts, offer_of, processes_with, sh, shim_of};
use datacentered_agent_lib::jobs::OutputEvent;
use datacentered_proto::ops::job::{JobReport, Offer};
use datacentered_proto::outcome::StartFailure;
use datacentered_proto::{JobState, Outcome};

/// Runs so many times; about 50 ms each.
const RANDOM_RUNS: u32 = 100;

/// A small generator, so that a failure can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = std::env::var("DC_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| datacentered_link::clock::Clock::system().random());
        println!("DC_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn output_is_continuous_while_the_agent_comes_and_goes() {
    let mut dice = Dice::new();
    let mut host = Host::new().await;
    let mark = host.dir.path().join("starts");
    let script = format!(
        "echo x >> {}; i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); [ $((i%100)) = 0 ] && sleep 0.01; done",
        mark.display()
    );
    let job = host.start(sh(&script)).await;
    let mut output = common::Output::default();
    'all: loop {
        let mut reader = host.jobs.output(job, output.end).await.expect("opens");
        for _ in 0..dice.below(30) {
            let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time").expect("reads");
            if output.add(event) {
                break 'all;
            }
        }
        host = host.reopen().await;
    }
    assert_eq!(output.text(), common::lines(3000, |i| format!("{i}\n")));
    assert_eq!(std::fs::read_to_string(mark).expect("reads"), "x\n");
    assert_eq!(host.ended(job).await.outcome, exited(0));
}

#[tokio::test]
async fn a_killed_agent_loses_nothing() {
    let dir = tempfile::tempdir().expect("makes");
    let data = dir.path().join("data");
    let mut holder = Holder::start(&data);
    assert!(holder.hear().starts_with("open "));
    let offer = offer_of(sh("echo one; sleep 0.4; echo two; exit 5"), "-");
    holder.say(&line_of(&offer));
    assert!(holder.hear().contains("\"accepted\""));
    std::thread::sleep(Duration::from_millis(100));
    let shim = shim_of(offer.job);
    holder.kill();
    assert!(common::is_alive(shim));

    let config = common::config(&data);
    let jobs = common::open(&config).await;
    assert_eq!(jobs.report(offer.job).expect("is known").state, JobState::Running);
    eventually("ended", || jobs.report(offer.job).is_some_and(|report| report.state == JobState::Ended))
        .await;
    assert_eq!(jobs.report(offer.job).expect("is known").outcome, exited(5));
    let mut reader = jobs.output(offer.job, 0).await.expect("opens");
    let mut text = Vec::new();
    while let OutputEvent::Bytes { bytes, .. } = reader.next().await.expect("reads") {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(text, b"one\ntwo\n");
}

#[test]
fn killed_at_random_every_job_starts_at_most_once_and_has_one_outcome() {
    let mut dice = Dice::new();
    let dir = tempfile::tempdir().expect("makes");
    let data = dir.path().join("data");
    let starts = dir.path().join("starts");
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut offered: Vec<Offer> = Vec::new();
    for round in 0..RANDOM_RUNS {
        let mut holder = Holder::start(&data);
        let spec = sh(&format!("echo {round} >> {}; exit {}", starts.display(), round % 7));
        let offer = offer_of(spec, "-");
        if dice.below(4) > 0 {
            assert!(holder.hear().starts_with("open "));
        }
        holder.say(&line_of(&offer));
        offered.push(offer.clone());
        std::thread::sleep(Duration::from_micros(dice.below(30_000)));
        // Now and then the shim goes too.
        if dice.below(5) == 0 {
            for pid in processes_with(&offer.job.to_string()) {
                common::kill(pid, 9);
            }
        }
        for answer in holder.lines.try_iter() {
            if answer.contains("\"accepted\"") {
                known.insert(offer.job.to_string());
            }
        }
        holder.kill();
    }
    let mut holder = Holder::start(&data);
    assert!(holder.hear().starts_with("open "));
    let begin = Instant::now();
    let reports = loop {
        let reports = holder.reports();
        if reports.jobs.iter().all(|report| report.state == JobState::Ended) {
            break reports;
        }
        assert!(begin.elapsed() < PATIENCE, "{reports:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = std::fs::read_to_string(&starts).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let started: BTreeSet<&str> = lines.iter().copied().collect();
    assert_eq!(lines.len(), started.len(), "no job was started twice");
    let listed: BTreeSet<String> = reports.jobs.iter().map(|report| report.job.to_string()).collect();
    assert!(known.is_subset(&listed), "nothing that was accepted is forgotten");
    let mut interrupted = 0;
    for report in &reports.jobs {
        let round = offered.iter().position(|offer| offer.job == report.job).expect("was offered");
        match report.outcome.as_ref().expect("has one") {
            Outcome::Exited { code } => {
                assert_eq!(usize::try_from(*code).expect("is small"), round % 7);
                assert!(started.contains(round.to_string().as_str()));
            }
            Outcome::Interrupted { .. } => interrupted += 1,
            other => panic!("{other:?}: {report:?}"),
        }
    }
    println!(
        "{} of {RANDOM_RUNS} accepted, {} started, {interrupted} interrupted",
        listed.len(),
        started.len()
    );
    assert!(listed.len() > 20 && started.len() > 20);
    // Still the same when asked again by another process.
    holder.kill();
    let mut holder = Holder::start(&data);
    assert!(holder.hear().starts_with("open "));
    assert_eq!(holder.reports(), reports);
    holder.say("rss");
    println!("{}", holder.hear());
    holder.kill();
}

#[tokio::test]
async fn a_full_disk_refuses_new_jobs_and_keeps_outcomes() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(disk) = SmallDisk::mount("size=3m") else { return };
    let mut config = common::config(&disk.path().join("data"));
    config.max_jobs = 8;
    let jobs = common::open(&config).await;
    let take = async |spec| {
        let offer = offer_of(spec, jobs.incarnation());
        let job = offer.job;
        jobs.offer(offer).await.expect("answers");
        job
    };
    let ended = async |job| {
        eventually("ended", || jobs.report(job).is_some_and(|report| report.state == JobState::Ended)).await;
        jobs.report(job).expect("is known")
    };
    // It prints more than the disk holds: the rest is counted, the outcome is there.
    let printer = take(sh("head -c 6000000 /dev/zero; exit 3")).await;
    let report = ended(printer).await;
    assert_eq!((report.outcome.clone(), report.stdout_bytes), (exited(3), 6_000_000));
    assert!(facts(&report).contains(&"output_lost"), "{report:?}");
    let mut reader = jobs.output(printer, 0).await.expect("opens");
    let mut output = common::Output::default();
    while !output.add(reader.next().await.expect("reads")) {}
    assert!(!output.stdout.is_empty() && !output.gaps.is_empty());
    // An open reader would keep the space of what is released.
    drop(reader);

    // Nothing fits any more: that is an outcome, durable, and nothing is half done.
    disk.fill();
    let large = command(&["true", &"x".repeat(60 << 10)]);
    let full = Some(Outcome::FailedToStart { why: StartFailure::DiskFull });
    let mut taken = vec![printer];
    let (refused, report) = loop {
        let job = take(large.clone()).await;
        let report = ended(job).await;
        if report.outcome == full {
            break (job, report);
        }
        // What was prepared before still holds some: those are whole.
        assert_eq!(report.outcome, exited(0), "{report:?}");
        taken.push(job);
    };
    assert!(!config.dir.join("jobs").join(refused.to_string()).exists());

    // With space it goes on.
    jobs.release(&taken).await.expect("releases");
    disk.empty();
    let next = take(large).await;
    assert_eq!(ended(next).await.outcome, exited(0));
    jobs.shutdown().await;
    drop(jobs);
    let jobs = common::open(&config).await;
    let again = jobs.report(refused).expect("is known");
    assert!(again.high_water > report.high_water, "the journal has another job since");
    assert_eq!(JobReport { high_water: report.high_water, ..again }, report);
    jobs.shutdown().await;
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("makes");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "dc-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("ballast")).expect("creates");
        while file.write(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        let _ = std::fs::remove_file(self.path().join("ballast"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn an_agent_whose_journal_failed_says_so_and_the_next_one_takes_jobs() {
    let dir = tempfile::tempdir().expect("makes");
    let mut holder = Holder::start_limited(dir.path());
    let incarnation = holder.hear();
    let pid = rustix::process::Pid::from_child(&holder.child);
    // No byte of any file can be written any more.
    let none = rustix::process::Rlimit { current: Some(0), maximum: None };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, none).expect("limits");
    let offer = offer_of(command(&["true"]), "-");
    holder.say(&line_of(&offer));
    let said = [holder.hear(), holder.hear()];
    assert!(said[0].starts_with("error") && said[1] == "the journal failed", "{said:?}");
    assert!(!holder.child.wait().expect("ends").success());

    let mut holder = Holder::start(dir.path());
    assert_eq!(holder.hear(), incarnation, "the journal is the same one");
    holder.say(&line_of(&offer));
    let report: JobReport = serde_json::from_str(&holder.hear()).expect("takes the same offer");
    assert_eq!(report.job, offer.job);
    holder.kill();
}

#[tokio::test]
async fn a_damaged_journal_is_set_aside_and_a_new_one_begun() {
    let host = Host::new().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(host.run(command(&["true"])).await.job);
    }
    let (incarnation, high_water) = (host.jobs.incarnation().to_owned(), host.jobs.high_water());
    assert_eq!(high_water, 3);
    let host = host.reopen().await;
    assert_eq!((host.jobs.incarnation(), host.jobs.high_water()), (incarnation.as_str(), 3));
    host.jobs.shutdown().await;
    let path = host.config.dir.join("journal");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[100] ^= 0xff;
    std::fs::write(&path, bytes).expect("writes");
    let host = host.reopen().await;
    assert_ne!(host.jobs.incarnation(), incarnation);
    assert_eq!((host.jobs.high_water(), host.jobs.list(None, 10).jobs.len()), (0, 0));
    let aside = std::fs::read_dir(&host.config.dir)
        .expect("reads")
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains("damaged"))
        })
        .count();
    assert_eq!(aside, 3, "journal, slots and jobs");
    assert_eq!(host.run(command(&["true"])).await.outcome, exited(0));
}

#[tokio::test]
async fn the_shim_is_small() {
    let host = Host::new().await;
    let job = host.start(sh("head -c 3000000 /dev/zero; sleep 71.5")).await;
    eventually("printed", || host.jobs.report(job).is_some_and(|report| report.stdout_bytes == 3_000_000))
        .await;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", shim_of(job))).expect("reads");
    println!("{rollup}");
    // What it alone pays for. The kernel's own sum of private dirty pages also counts the program's file while that
    // was just written and is not yet on disk, as it is after a build.
    let private = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .expect("is told");
    println!("shim: {private} kB private");
    assert!(private <= 1024, "{private} kB");
    let run = host.jobs.report(job).expect("is known").run;
    host.jobs.cancel(job, run, "x").await.expect("cancels");
    host.ended(job).await;
}

//! A hub and hosts that are started again whenever they end, as a service manager would.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::common::{World, end_shims};
use crate::place::{Place, SmallDisk};
use crate::proxy::Proxy;

/// How long the service manager waits before it starts again what ended by itself.
const RESTART: Duration = Duration::from_millis(300);

/// A program that is meant to be up.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    start_at: Instant,
    /// How often it ended without being killed.
    pub(crate) own_ends: u32,
}

impl Service {
    fn new(name: &str, args: Vec<String>, log: PathBuf) -> Self {
        let name = name.to_owned();
        Self { name, args, variables: Vec::new(), log, child: None, start_at: Instant::now(), own_ends: 0 }
    }

    /// Starts it where it is time to, and notices when it has ended.
    fn tend(&mut self, program: Command) {
        if let Some(child) = &mut self.child {
            let Ok(Some(status)) = child.try_wait() else { return };
            if status.signal() != Some(Signal::KILL.as_raw()) {
                self.own_ends += 1;
                println!("{} ended by itself: {status}", self.name);
            }
            self.child = None;
            self.start_at = self.start_at.max(Instant::now() + RESTART);
        }
        if Instant::now() < self.start_at {
            return;
        }
        let log = OpenOptions::new().append(true).create(true).open(&self.log).expect("a log");
        let mut command = program;
        command.args(&self.args).env("DATACENTERED_LOG", "info,datacentered=debug");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the program starts"));
    }

    /// Ends it with SIGKILL; it is started again after a while.
    pub(crate) fn kill(&mut self, down: Duration) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            child.wait().expect("it ends");
        }
        self.start_at = Instant::now() + down;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32)) {
            kill_process(pid, signal).ok();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill(Duration::ZERO);
    }
}

/// One host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) agent: Service,
    pub(crate) proxy: Proxy,
    /// A file that says by how much its clock is off, where that can be arranged.
    clock: Option<PathBuf>,
    pub(crate) disk: Option<SmallDisk>,
    jobs: PathBuf,
}

impl Host {
    /// Sets the clock of its agent and of shims to come off by so many seconds.
    pub(crate) fn set_clock(&self, seconds: i64) {
        if let Some(file) = &self.clock {
            fs::write(file, format!("{seconds:+}s\n")).expect("the clock's file");
        }
    }

    pub(crate) fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// The shims that own its jobs now.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let known = |job: &str| self.jobs.join(job).exists();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0).skip(1);
            words.next() == Some(b"shim")
                && words.next().and_then(|job| std::str::from_utf8(job).ok()).is_some_and(known)
        })
        .collect()
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) hosts: Vec<Host>,
    pub(crate) hub: Service,
    pub(crate) hub_disk: Option<SmallDisk>,
    world: World,
}

impl Fleet {
    /// A hub with so many hosts, each behind a proxy of its own; all of them have joined and run.
    pub(crate) fn start(runtime: &Runtime, place: Place, hosts: usize, hub_disk_mib: u64) -> Self {
        let mut hub_disk = None;
        let mut world = World::new_at(|directory| {
            fs::create_dir(directory).expect("a directory");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
                .expect("a directory of its own");
            hub_disk = place.small_disk(directory, hub_disk_mib);
        });
        let hub_address: SocketAddr =
            world.url().strip_prefix("https://").and_then(|rest| rest.parse().ok()).expect("an address");
        let mut joined = Vec::new();
        for number in 0..hosts {
            let name = format!("host{number}");
            let proxy = runtime.block_on(Proxy::open(hub_address));
            let directory = world.host_dir(&name);
            fs::create_dir(&directory).expect("a directory");
            let disk = place.small_disk(&directory, 96);
            world.add_host_at(&format!("https://{}", proxy.address()), &name);
            world.stop_agent(&name);
            let args = ["agent", "start", "--data-dir", text(&directory)].map(str::to_owned).to_vec();
            let mut agent = Service::new(&name, args, world.path().join(format!("{name}.log")));
            let clock = faked_clock(&world, &name);
            if let Some((file, variables)) = &clock {
                agent.variables.clone_from(variables);
                fs::write(file, "+0s\n").expect("the clock's file");
            }
            let clock = clock.map(|(file, _)| file);
            joined.push(Host { name, agent, proxy, clock, disk, jobs: directory.join("jobs") });
        }
        world.stop_hub();
        let hub_dir = world.hub_dir();
        let args = ["hub", "start", "--listen", &hub_address.to_string(), "--data-dir", text(&hub_dir)];
        let hub = Service::new("hub", args.map(str::to_owned).to_vec(), world.path().join("hub.log"));
        let mut fleet = Self { hosts: joined, hub, hub_disk, world };
        fleet.tend();
        fleet
    }

    /// Starts what has to be up and is not.
    pub(crate) fn tend(&mut self) {
        self.hub.tend(self.world.program());
        for host in &mut self.hosts {
            host.agent.tend(self.world.program());
        }
    }

    /// The ports of all the ways to the hub.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.hosts.iter().map(|host| host.proxy.address().port()).collect()
    }

    /// The hub's local socket.
    pub(crate) fn socket(&self) -> String {
        self.world.socket()
    }

    /// Where jobs note that they have been started.
    pub(crate) fn notes(&self) -> PathBuf {
        self.world.path().join("starts")
    }

    /// What the programs logged, kept beside the temporary directory for whoever looks into a failure.
    pub(crate) fn keep_logs(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!("dc-chaos-logs-{}", std::process::id()));
        fs::create_dir_all(&kept).ok();
        for entry in fs::read_dir(self.world.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                fs::copy(entry.path(), kept.join(entry.file_name())).ok();
            }
        }
        kept
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let directories: Vec<PathBuf> =
            self.hosts.iter().map(|host| self.world.host_dir(&host.name)).collect();
        for host in &mut self.hosts {
            host.agent.kill(Duration::ZERO);
        }
        end_shims(&directories);
        self.hub.kill(Duration::ZERO);
        let disks = self.hosts.iter().filter_map(|host| host.disk.as_ref()).chain(&self.hub_disk);
        disks.for_each(SmallDisk::unmount);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

/// What makes one program's clock wrong: libfaketime, where the machine has it.
fn faked_clock(world: &World, name: &str) -> Option<(PathBuf, Vec<(String, String)>)> {
    const LIBRARIES: [&str; 2] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let library = LIBRARIES.iter().find(|library| File::open(library).is_ok())?;
    let file = world.path().join(format!("{name}.clock"));
    let variables = [
        ("LD_PRELOAD", *library),
        ("FAKETIME_TIMESTAMP_FILE", text(&file)),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Some((file, variables))
}

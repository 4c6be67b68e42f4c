//! A network and mounts of the test's own, where it may make them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Set in the program that runs inside.
const INSIDE: &str = "DC_CHAOS_INSIDE";

/// Whether faults of the network and of disks can be made here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    isolated: bool,
}

impl Place {
    /// Goes on inside namespaces of its own where this is root: true when the test has run in there and is done.
    pub(crate) fn entered(test: &str) -> Option<Self> {
        if std::env::var_os(INSIDE).is_some() {
            run("ip", &["link", "set", "lo", "up"]);
            return Some(Self { isolated: true });
        }
        if !rustix::process::getuid().is_root() {
            println!("not root: no faults of the network below TCP, none of disks");
            return Some(Self { isolated: false });
        }
        let program = std::env::current_exe().expect("this program");
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--"])
            .arg(program)
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .expect("unshare, of util-linux");
        assert!(status.success(), "it failed inside its namespaces: {status}");
        None
    }

    /// Whether the network is the test's own.
    pub(crate) fn is_isolated(self) -> bool {
        self.isolated
    }

    /// A disk of so many MiB at a directory.
    pub(crate) fn small_disk(self, directory: &Path, mib: u64) -> Option<SmallDisk> {
        self.isolated.then(|| {
            let size = format!("size={mib}m");
            run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", directory.to_str().expect("ASCII")]);
            SmallDisk { directory: directory.to_path_buf() }
        })
    }

    /// Drops this share of all packets to these ports, in percent; none with 0.
    pub(crate) fn set_loss(self, ports: &[u16], percent: u64) {
        if !self.isolated {
            return;
        }
        run("iptables", &["-F", "INPUT"]);
        if percent == 0 {
            return;
        }
        let probability = format!("0.{percent:02}");
        for port in ports {
            let port = port.to_string();
            for side in ["--dport", "--sport"] {
                let rule = ["-A", "INPUT", "-p", "tcp", side, &port, "-m", "statistic", "--mode", "random"];
                run("iptables", &[&rule[..], &["--probability", &probability, "-j", "DROP"]].concat());
            }
        }
    }

    /// Lets everything through at so many kbit/s; unhindered with none.
    pub(crate) fn set_rate(self, kbit: Option<u64>) {
        if !self.isolated {
            return;
        }
        // Nothing to delete is no failure.
        Command::new("tc").args(["qdisc", "del", "dev", "lo", "root"]).output().ok();
        if let Some(kbit) = kbit {
            let rate = format!("{kbit}kbit");
            let limits = ["rate", &rate, "burst", "128kb", "latency", "100ms"];
            run("tc", &[&["qdisc", "add", "dev", "lo", "root", "tbf"], &limits[..]].concat());
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A disk that can be filled to the last byte.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    fn filler(&self) -> PathBuf {
        self.directory.join("filler")
    }

    /// Fills it.
    pub(crate) fn fill(&self) {
        let (Ok(file), Ok(disk)) = (File::create(self.filler()), statvfs(&self.directory)) else { return };
        let free = disk.f_bavail * disk.f_frsize;
        if free > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, free).ok();
        }
    }

    /// Empties it again.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).ok();
    }

    /// Takes it away; what still has files open on it keeps them.
    pub(crate) fn unmount(&self) {
        Command::new("umount").arg("-l").arg(&self.directory).output().ok();
    }
}

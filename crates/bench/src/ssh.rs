//! OpenSSH on this machine: a server of our own on a free port, with keys that are thrown away.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// The cipher of both sides: the one that rustls prefers with a peer of its own, so that the work is alike.
pub(crate) const CIPHER: &str = "aes256-gcm@openssh.com";

/// How long anything may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

const SSHD: &str = "/usr/sbin/sshd";

/// A server, and a connection that is kept open (ControlMaster).
#[derive(Debug)]
pub(crate) struct Ssh {
    directory: PathBuf,
    port: u16,
    user: String,
    server: Child,
    master: Option<Child>,
}

impl Ssh {
    /// Starts the server and opens the connection; everything lies in `directory`.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        if !Path::new(SSHD).exists() {
            return Err(Failure::new(format!("{SSHD} is missing; run scripts/setup.sh bench")));
        }
        let directory = directory.join("ssh");
        fs::create_dir_all(directory.join("home"))?;
        for name in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(directory.join(name))
                .status()?;
            if !made.success() {
                return Err(Failure::new("ssh-keygen failed"));
            }
        }
        fs::copy(directory.join("user_key.pub"), directory.join("authorized_keys"))?;
        if rustix::process::geteuid().is_root() {
            // Where Debian's server wants to lock its helper up.
            fs::create_dir_all("/run/sshd")?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::write(directory.join("sshd_config"), config(&directory, port))?;
        let server = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(directory.join("sshd_config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(directory.join("sshd.log"))?)
            .spawn()?;
        let user = Command::new("id").arg("-un").output()?.stdout;
        let user = String::from_utf8_lossy(&user).trim().to_owned();
        let mut ssh = Self { directory, port, user, server, master: None };
        ssh.wait("the SSH server", |ssh| TcpStream::connect(("127.0.0.1", ssh.port)).is_ok())?;
        let mut master = ssh.client(&["-M", "-N"]);
        ssh.master = Some(master.stdin(Stdio::null()).spawn()?);
        ssh.wait("the open SSH connection", |ssh| ssh.socket().exists())?;
        Ok(ssh)
    }

    fn wait(&self, what: &str, so: impl Fn(&Self) -> bool) -> Result<()> {
        let began = Instant::now();
        while !so(self) {
            if began.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.directory.join("sshd.log")).unwrap_or_default();
                return Err(Failure::new(format!("{what} is not there after 10 s: {log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("ctl")
    }

    fn client(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]);
        command.args(["-o", "LogLevel=ERROR", "-c", CIPHER, "-p", &self.port.to_string(), "-i"]);
        command.arg(self.directory.join("user_key")).arg("-S").arg(self.socket());
        command.args(options).arg(format!("{}@127.0.0.1", self.user));
        command
    }

    /// A command over the connection that is open.
    pub(crate) fn open(&self, command: &[&str]) -> Command {
        let mut ssh = self.client(&[]);
        ssh.args(command);
        ssh
    }

    /// A command over a connection of its own.
    pub(crate) fn fresh(&self, command: &[&str]) -> Command {
        // Of two -S the second counts.
        let mut ssh = self.client(&["-o", "ControlMaster=no", "-S", "none"]);
        ssh.args(command);
        ssh
    }

    /// The processes at work: the server and the open connection.
    pub(crate) fn pids(&self) -> Vec<u32> {
        [Some(&self.server), self.master.as_ref()].into_iter().flatten().map(Child::id).collect()
    }
}

fn config(directory: &Path, port: u16) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\n\
         PrintMotd no\nPrintLastLog no\nX11Forwarding no\nPermitUserRC no\nCiphers {CIPHER}\n\
         Subsystem sftp internal-sftp\nSetEnv HOME={}\n",
        at("host_key"),
        at("authorized_keys"),
        // An empty home: the shell finds no start-up files to read.
        at("home"),
    )
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for child in [self.master.as_mut(), Some(&mut self.server)].into_iter().flatten() {
            // They may have ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

//! A world of real processes: a hub, its agents, and commands of the one program, in a directory that goes at the end.
//!
//! ```ignore
//! let world = World::with_hosts(["web1", "web2"]);
//! let output = world.run(["run", "--on", "web1", "--", "uname", "-s"]);
//! assert_eq!((output.code, output.stdout.as_str()), (0, "Linux\n"));
//! ```

// Every test program uses a part of it.
#![allow(dead_code, unused_imports)]

mod process;
mod shims;
mod tmux;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use process::{Server, signal as process_signal};
use serde_json::Value;
pub(crate) use shims::end_all as end_shims;
pub(crate) use tmux::Tmux;

/// How long anything may take before a test fails. Generous: machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code; 128 and the signal's number where one ended it.
    pub(crate) code: i32,
    /// Its standard output; bytes that are not text are replaced.
    pub(crate) stdout: String,
    /// Its standard output, exactly.
    pub(crate) stdout_bytes: Vec<u8>,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// It ended with code 0 and had nothing to complain about.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "standard output: {}", self.stdout);
        self
    }

    /// Its standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A hub with hosts.
#[derive(Debug)]
pub(crate) struct World {
    hub: Option<Server>,
    agents: BTreeMap<String, Server>,
    url: String,
    setup: String,
    directory: tempfile::TempDir,
}

impl World {
    /// A hub on a free port, without hosts.
    pub(crate) fn new() -> Self {
        Self::new_at(|_| {})
    }

    /// A hub on a free port, without hosts, whose data directory was made ready for it.
    pub(crate) fn new_at(make_ready: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::Builder::new().prefix("dc-").tempdir().expect("a directory");
        let mut world =
            Self { hub: None, agents: BTreeMap::new(), url: String::new(), setup: String::new(), directory };
        make_ready(&world.hub_dir());
        world.start_hub();
        world
    }

    /// A hub in a network namespace, on this address.
    pub(crate) fn new_in(namespace: &str, listen: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("dc-").tempdir().expect("a directory");
        let mut world =
            Self { hub: None, agents: BTreeMap::new(), url: String::new(), setup: String::new(), directory };
        let mut command = world.program_in(namespace);
        command.args(["hub", "start", "-o", "json", "--listen", listen, "--data-dir"]).arg(world.hub_dir());
        let mut hub = Server::start(command, &world.path().join("hub.log"));
        let listening = hub.event("listening");
        listening["url"].as_str().expect("a URL").clone_into(&mut world.url);
        world.hub = Some(hub);
        world
    }

    /// Joins a host from a network namespace.
    pub(crate) fn add_host_in(&mut self, namespace: &str, name: &str) {
        let command = self.program_in(namespace);
        self.add_host_with(command, name, &[]);
    }

    fn program_in(&self, namespace: &str) -> Command {
        let plain = self.program();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(plain.get_program());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// A hub with these hosts, all of them online.
    pub(crate) fn with_hosts<const N: usize>(names: [&str; N]) -> Self {
        let mut world = Self::new();
        for name in names {
            world.add_host(name, &[]);
        }
        world
    }

    /// The directory of everything.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The hub's data directory.
    pub(crate) fn hub_dir(&self) -> PathBuf {
        self.path().join("hub")
    }

    /// A host's data directory.
    pub(crate) fn host_dir(&self, name: &str) -> PathBuf {
        self.path().join(format!("host-{name}"))
    }

    /// The hub's local socket, as a URL.
    pub(crate) fn socket(&self) -> String {
        format!("unix:{}", self.hub_dir().join("hub.sock").display())
    }

    /// The hub's TLS address, as a URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The link for the first account.
    pub(crate) fn setup_link(&self) -> &str {
        &self.setup
    }

    /// The hub's process number.
    pub(crate) fn hub_pid(&self) -> u32 {
        self.hub.as_ref().expect("a hub").pid()
    }

    /// The process number of a host's agent.
    pub(crate) fn agent_pid(&self, name: &str) -> u32 {
        self.agents[name].pid()
    }

    /// Starts the hub; from the second time on, on the port that it had.
    pub(crate) fn start_hub(&mut self) {
        assert!(self.hub.is_none(), "the hub runs already");
        let first = self.url.is_empty();
        let listen = self.url.strip_prefix("https://").unwrap_or("127.0.0.1:0").to_owned();
        let mut command = self.program();
        command.args(["hub", "start", "-o", "json", "--listen", &listen, "--data-dir"]).arg(self.hub_dir());
        let mut hub = Server::start(command, &self.path().join("hub.log"));
        let listening = hub.event("listening");
        listening["url"].as_str().expect("a URL").clone_into(&mut self.url);
        if first {
            hub.event("setup")["link"].as_str().expect("a link").clone_into(&mut self.setup);
        }
        self.hub = Some(hub);
    }

    /// Ends the hub with SIGKILL.
    pub(crate) fn kill_hub(&mut self) {
        self.hub.take().expect("a hub").kill();
    }

    /// Ends the hub with SIGTERM and waits.
    pub(crate) fn stop_hub(&mut self) {
        self.hub.take().expect("a hub").terminate();
    }

    /// Joins a host with labels and waits until it is connected.
    pub(crate) fn add_host(&mut self, name: &str, labels: &[&str]) {
        let command = self.program();
        self.add_host_with(command, name, labels);
    }

    /// Joins a host that reaches the hub by another address.
    pub(crate) fn add_host_at(&mut self, url: &str, name: &str) {
        let own = std::mem::replace(&mut self.url, url.to_owned());
        self.add_host(name, &[]);
        self.url = own;
    }

    /// Joins a host with variables in its agent's environment and more of its configuration.
    pub(crate) fn add_host_in_environment(&mut self, name: &str, environment: &[(&str, &str)], config: &str) {
        fs::create_dir_all(self.host_dir(name)).expect("a directory");
        fs::write(self.host_dir(name).join("agent.toml"), config).expect("a configuration");
        let mut command = self.program();
        command.envs(environment.iter().copied());
        self.add_host_with(command, name, &[]);
    }

    fn add_host_with(&mut self, mut command: Command, name: &str, labels: &[&str]) {
        let token = self.run(["token", "create", "--join"]).ok().stdout;
        let file = self.path().join(format!("{name}.token"));
        fs::write(&file, token).expect("a token");
        command.args(["agent", "join", &self.url, "--name", name, "-o", "json", "--data-dir"]);
        command.arg(self.host_dir(name)).arg("--token").arg(format!("@{}", file.display()));
        for label in labels {
            command.args(["--label", label]);
        }
        let mut agent = Server::start(command, &self.path().join(format!("{name}.log")));
        let connected = agent.event("connected");
        assert_eq!(connected["name"], name, "the hub gave the host another name");
        self.agents.insert(name.to_owned(), agent);
    }

    /// Starts the agent of a host that has joined, and waits until it is connected.
    pub(crate) fn start_agent(&mut self, name: &str) {
        assert!(!self.agents.contains_key(name), "the agent of {name} runs already");
        let mut command = self.program();
        command.args(["agent", "start", "-o", "json", "--data-dir"]).arg(self.host_dir(name));
        let mut agent = Server::start(command, &self.path().join(format!("{name}.log")));
        agent.event("connected");
        self.agents.insert(name.to_owned(), agent);
    }

    /// Ends the agent of a host with SIGKILL; what it runs goes on.
    pub(crate) fn kill_agent(&mut self, name: &str) {
        self.agents.remove(name).expect("an agent").kill();
    }

    /// Ends the agent of a host with SIGTERM; what it runs goes on. The hub knows it before this returns.
    pub(crate) fn stop_agent(&mut self, name: &str) {
        self.agents.remove(name).expect("an agent").terminate();
        let offline = || self.run(["host", "show", name, "-o", "json"]).ok().json()["online"] == false;
        wait_until("the host is offline", offline);
    }

    /// Runs a command over the hub's local socket to its end.
    pub(crate) fn run<I>(&self, args: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.run_with_input(args, b"")
    }

    /// As [`Self::run`], with bytes on its standard input.
    pub(crate) fn run_with_input<I>(&self, args: I, input: &[u8]) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut child = self.spawn(args);
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        // A command that reads nothing closes its end; that is no failure of the test's.
        let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
        let output = finish(child);
        writer.join().expect("the writer ends");
        output
    }

    /// Starts a command over the hub's local socket, with pipes on all its streams.
    pub(crate) fn spawn<I>(&self, args: I) -> Child
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = self.program();
        command.env("DATACENTERED_HUB", self.socket()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    }

    /// The program, with an environment of its own.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_datacentered"));
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"DATACENTERED_") {
                command.env_remove(variable);
            }
        }
        command.env("DATACENTERED_CONFIG", self.path().join("config.toml"));
        for variable in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            command.env_remove(variable);
        }
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // In the opposite order of what depends on what; commands that still run go with their shims.
        let agents = std::mem::take(&mut self.agents);
        let hosts: Vec<PathBuf> = fs::read_dir(self.path())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join("jobs").is_dir())
            .collect();
        for (_, agent) in agents {
            agent.kill();
        }
        shims::end_all(&hosts);
        if let Some(hub) = self.hub.take() {
            hub.kill();
        }
    }
}

/// Waits for a command to end.
pub(crate) fn finish(child: Child) -> Output {
    use std::os::unix::process::ExitStatusExt;
    let output = process::wait_with_output(child, PATIENCE);
    let status = output.status;
    Output {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stdout_bytes: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

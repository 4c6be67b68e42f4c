//! A hub, an agent and clients of them, as separate processes over TLS; all thrown away at the end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use datacentered_client::{Client, ClientConfig, Fingerprint, HubUrl, Secret, Trust};
use datacentered_proto::operations::{HubStatus, TokenCreate};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::access::{Role, TokenCreateParams, TokenKind};
use datacentered_proto::ops::hub::StatusReply;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::args::Args;
use crate::failure::{Failure, Result};

/// How long a server may take to be ready; long enough for one under a profiler.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long a server that was asked to end may take.
const END_WITHIN: Duration = Duration::from_secs(20);

/// The name of the real host.
pub(crate) const HOST: &str = "bench";

/// A server that says in JSON lines how it is; ended when dropped.
#[derive(Debug)]
struct Server {
    child: Child,
    events: Receiver<Value>,
}

impl Server {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().append(true).create(true).open(log)?)
            .spawn()
            .map_err(|error| {
                Failure::new(format!("cannot start {}: {error}", command.get_program().display()))
            })?;
        let (sender, events) = sync_channel(64);
        let stdout = child.stdout.take().ok_or_else(|| Failure::new("a server has no output"))?;
        // It ends with the process, whose end closes the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if let Ok(value) = serde_json::from_str(&line) {
                    // Nobody waits for the later ones; they are dropped when the queue is full.
                    sender.try_send(value).ok();
                }
            }
        });
        Ok(Self { child, events })
    }

    fn event(&self, event: &str) -> Result<Value> {
        loop {
            let value = self.events.recv_timeout(PATIENCE);
            let value = value.map_err(|_| Failure::new(format!("a server did not say '{event}' in time")))?;
            if value.get("event").and_then(Value::as_str) == Some(event) {
                return Ok(value);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            kill_process(pid, Signal::TERM).ok();
        }
        let until = std::time::Instant::now() + END_WITHIN;
        while std::time::Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct World {
    programs: PathBuf,
    under: Vec<String>,
    agent: Option<Server>,
    hub: Option<Server>,
    url: Option<HubUrl>,
    login: Option<(Fingerprint, String)>,
    directory: tempfile::TempDir,
}

impl World {
    /// A hub on a free port, without hosts.
    pub(crate) async fn new(args: &Args) -> Result<Self> {
        let beside =
            || Ok::<_, Failure>(std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default());
        let programs = args.programs.clone().map_or_else(beside, Ok)?;
        for program in ["datacentered", "datacentered-agent"] {
            if !programs.join(program).exists() {
                let hint = "build it: cargo build --release -p datacentered -p datacentered-agent";
                return Err(Failure::new(format!("{} is missing; {hint}", programs.join(program).display())));
            }
        }
        let under =
            args.hub_under.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect();
        let directory = tempfile::Builder::new().prefix("dc-bench-").tempdir()?;
        let mut world = Self { programs, under, agent: None, hub: None, url: None, login: None, directory };
        world.start_hub()?;
        let admin = world.admin().await?;
        let status = admin.call::<HubStatus>(&NoParams {}).await?;
        let fingerprint = status.web_fingerprint.parse();
        let fingerprint =
            fingerprint.map_err(|error| Failure::new(format!("the hub's fingerprint: {error}")))?;
        let token = world.token(&admin, TokenKind::Api, None).await?;
        world.login = Some((fingerprint, token));
        admin.close().await;
        Ok(world)
    }

    /// A hub with one real host.
    pub(crate) async fn with_host(args: &Args) -> Result<Self> {
        let mut world = Self::new(args).await?;
        let token = world.join_tokens(1, 1).await?.remove(0);
        let mut command = world.program("datacentered-agent");
        command.args(["join", &world.url()?.to_string(), "--name", HOST, "--token", &token, "--data-dir"]);
        command.arg(world.path().join("agent")).args(["-o", "json"]);
        let agent = Server::start(command, &world.path().join("agent.log"))?;
        agent.event("connected")?;
        world.agent = Some(agent);
        Ok(world)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn url(&self) -> Result<&HubUrl> {
        self.url.as_ref().ok_or_else(|| Failure::new("the hub does not run"))
    }

    pub(crate) fn hub_pid(&self) -> u32 {
        self.hub.as_ref().map_or(0, |hub| hub.child.id())
    }

    pub(crate) fn agent_pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, |agent| agent.child.id())
    }

    /// Starts the hub; from the second time on, on the port that it had.
    pub(crate) fn start_hub(&mut self) -> Result<()> {
        let listen = self.url.as_ref().map_or_else(|| "127.0.0.1:0".to_owned(), HubUrl::authority);
        let plain = self.program("datacentered");
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(plain.get_program());
                command
            }
            None => plain,
        };
        command.args(["hub", "start", "--listen", &listen, "-o", "json", "--data-dir"]);
        command.arg(self.path().join("hub"));
        let hub = Server::start(command, &self.path().join("hub.log"))?;
        let url = hub.event("listening")?["url"].as_str().and_then(|url| url.parse().ok());
        self.url = Some(url.ok_or_else(|| Failure::new("the hub did not say where it listens"))?);
        self.hub = Some(hub);
        Ok(())
    }

    /// Ends the hub at once, as a crash would.
    pub(crate) fn kill_hub(&mut self) -> Result<()> {
        if let Some(mut hub) = self.hub.take() {
            hub.child.kill()?;
            hub.child.wait()?;
        }
        Ok(())
    }

    async fn admin(&self) -> Result<Client> {
        let socket = HubUrl::Unix { path: self.path().join("hub").join("hub.sock") };
        Ok(Client::connect(ClientConfig::new(vec![socket])).await?)
    }

    /// A client over TLS, with a token.
    pub(crate) async fn client(&self) -> Result<Client> {
        let (fingerprint, token) = self.login()?;
        let config = ClientConfig {
            trust: Trust::Pin(*fingerprint),
            token: Some(Secret::new(token.clone())),
            ..ClientConfig::new(vec![self.url()?.clone()])
        };
        Ok(Client::connect(config).await?)
    }

    fn login(&self) -> Result<&(Fingerprint, String)> {
        self.login.as_ref().ok_or_else(|| Failure::new("there is no login yet"))
    }

    /// The command line, over TLS with a token.
    pub(crate) fn command_line(&self) -> Result<Command> {
        let (fingerprint, token) = self.login()?;
        let mut command = self.program("datacentered");
        command.env("DATACENTERED_HUB", self.url()?.to_string());
        command.env("DATACENTERED_TOKEN", token).env("DATACENTERED_FINGERPRINT", fingerprint.to_string());
        Ok(command)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"DATACENTERED_") {
                command.env_remove(variable);
            }
        }
        command.env("DATACENTERED_CONFIG", self.path().join("no-config.toml"));
        command.env("DATACENTERED_LOG", "warn");
        command
    }

    /// What the hub says of itself.
    pub(crate) async fn status(&self) -> Result<StatusReply> {
        let admin = self.admin().await?;
        let status = admin.call::<HubStatus>(&NoParams {}).await?;
        admin.close().await;
        Ok(status)
    }

    /// Join tokens that are good for `uses` hosts each.
    pub(crate) async fn join_tokens(&self, count: u32, uses: u32) -> Result<Vec<String>> {
        let admin = self.admin().await?;
        let mut tokens = Vec::new();
        for _ in 0..count {
            tokens.push(self.token(&admin, TokenKind::Join, Some(uses)).await?);
        }
        admin.close().await;
        Ok(tokens)
    }

    async fn token(&self, admin: &Client, kind: TokenKind, uses: Option<u32>) -> Result<String> {
        let params = TokenCreateParams {
            key: admin.clock().key(),
            role: (kind == TokenKind::Api).then_some(Role::Admin.into()),
            kind,
            name: "bench".into(),
            ttl_ms: None,
            uses,
            labels: [].into(),
        };
        Ok(admin.call::<TokenCreate>(&params).await?.token)
    }

    /// What the servers logged, for a figure that cannot be taken.
    pub(crate) fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.path().join(name)).unwrap_or_default();
        format!("hub: {}\nagent: {}", read("hub.log"), read("agent.log"))
    }
}

//! Agents behind an HTTP proxy: a real tinyproxy between host and hub.

mod common;

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Output, Server, World, finish, wait_until};

/// What must not be seen anywhere, also not in the form in which it goes to the proxy.
const SECRETS: [&str; 2] = ["hush-hush", "YW5uOmh1c2gtaHVzaA=="];

/// A proxy on a port of loopback; it ends with the value.
struct Proxy {
    child: Child,
    port: u16,
    directory: PathBuf,
    more: String,
}

impl Proxy {
    /// Starts one with more lines of configuration.
    fn start(directory: &Path, more: &str) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        Self::start_on(directory, port, more)
    }

    fn start_on(directory: &Path, port: u16, more: &str) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        let file = |name: &str| directory.join(name);
        let config = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 600\nMaxClients 50\nLogLevel Connect\n\
             LogFile \"{}\"\n{more}\n",
            file("log").display()
        );
        fs::write(file("config"), config).expect("a configuration");
        let program =
            ["/usr/bin/tinyproxy", "/usr/sbin/tinyproxy"].into_iter().find(|path| Path::new(path).exists());
        let child = Command::new(program.expect("tinyproxy is there (scripts/setup.sh test)"))
            .args(["-d", "-c"])
            .arg(file("config"))
            .stdin(Stdio::null())
            .stdout(File::create(file("out")).expect("a file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        wait_until("the proxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, directory: directory.to_owned(), more: more.to_owned() }
    }

    /// Ends it, with all connections through it.
    fn stop(mut self) -> (PathBuf, u16, String) {
        self.end();
        (self.directory.clone(), self.port, self.more.clone())
    }

    fn end(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// How many connections it was asked for.
    fn asked(&self) -> usize {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default().matches(": CONNECT ").count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

fn no_secrets(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{text}");
    }
}

fn log_of(world: &World, name: &str) -> String {
    fs::read_to_string(world.path().join(format!("{name}.log"))).expect("a log")
}

/// The arguments that join a host by a hub's address of its own.
fn join(world: &World, name: &str, url: &str) -> Command {
    let token = world.path().join(format!("{name}.token"));
    fs::write(&token, world.run(["token", "create", "--join"]).ok().stdout).expect("a token");
    let mut command = world.program();
    command
        .args(["agent", "join", url, "--name", name, "-o", "json", "--data-dir"])
        .arg(world.host_dir(name));
    command.arg("--token").arg(format!("@{}", token.display()));
    command
}

/// Joins where that fails.
fn fails(mut command: Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = finish(child.expect("the program starts"));
    no_secrets(&output.stderr);
    output
}

/// The hub by an address that does not count as this machine, and leads to it all the same.
fn far(world: &World) -> String {
    world.url().replace("127.0.0.1", "0.0.0.0")
}

#[test]
fn a_host_works_through_the_proxy_of_its_configuration() {
    let mut world = World::new();
    let proxy = Proxy::start(&world.path().join("proxy"), "BasicAuth ann hush-hush");
    let port = proxy.port;
    let config = format!(
        "proxy = \"http://ann:hush%2Dhush@127.0.0.1:{port}\"\n[reconnect]\nbase_ms = 50\ncap_ms = 500\n"
    );
    world.add_host_in_environment("web1", &[("HTTPS_PROXY", "http://127.0.0.1:1")], &config);
    assert!(proxy.asked() >= 1);
    assert_eq!(world.run(["run", "--on", "web1", "--", "echo", "through"]).ok().stdout, "through\n");

    // The proxy goes, and with it the link; what runs goes on and is told when it is back.
    let gate = world.path().join("gate");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; echo done", gate.display());
    let run = world.run(["run", "--on", "web1", "--detach", "--", "sh", "-c", &script]).ok();
    let (directory, port, more) = proxy.stop();
    let online = || world.run(["host", "show", "web1", "-o", "json"]).ok().json()["online"] == true;
    wait_until("the link is cut", || !online());
    fs::write(&gate, "").expect("opens the gate");
    let told = "the proxy itself cannot be reached";
    wait_until("the agent says why", || log_of(&world, "web1").contains(told));
    let proxy = Proxy::start_on(&directory, port, &more);
    wait_until("the host is back", online);
    assert_eq!(world.run(["run", "attach", run.stdout.trim()]).ok().stdout, "done\n");
    drop(proxy);
    no_secrets(&log_of(&world, "web1"));
}

#[test]
fn what_the_proxy_answers_is_said() {
    let world = World::new();
    let wants_a_password = Proxy::start(&world.path().join("proxy"), "BasicAuth ann hush-hush");
    let one_port = Proxy::start(&world.path().join("other"), "ConnectPort 443");
    let through = |name: &str, proxy: &str, to: &str| {
        fs::create_dir_all(world.host_dir(name)).expect("a directory");
        fs::write(world.host_dir(name).join("agent.toml"), format!("proxy = \"{proxy}\"\n")).expect("a file");
        fails(join(&world, name, to))
    };
    let port = wants_a_password.port;
    let none = through("a", &format!("http://127.0.0.1:{port}"), world.url());
    assert_eq!(none.code, 3, "{none:?}");
    assert!(
        none.stderr.contains("http://USER:PASSWORD@HOST:PORT") && none.stderr.contains("HTTP 407"),
        "{none:?}"
    );
    let wrong = through("b", &format!("http://ann:hush-hush-no@127.0.0.1:{port}"), world.url());
    assert!(wrong.code == 3 && wrong.stderr.contains("does not take this user and password"), "{wrong:?}");
    let closed = through("c", &format!("127.0.0.1:{}", one_port.port), world.url());
    assert!(
        closed.stderr.contains("it does not allow this address or port; it answered HTTP 403"),
        "{closed:?}"
    );
    // The proxy is there, the hub behind it is not.
    let nowhere = through("d", &format!("http://ann:hush-hush@127.0.0.1:{port}"), "127.0.0.1:1");
    assert!(nowhere.stderr.contains("it cannot get there itself; it answered HTTP 5"), "{nowhere:?}");
    // What is no proxy at all is found when the agent starts.
    let typo = through("e", "https://ann:hush-hush@proxy:1", world.url());
    assert!(
        typo.code == 2 && typo.stderr.contains("agent.toml:1: a proxy is not spoken to by 'https'"),
        "{typo:?}"
    );
}

#[test]
fn the_environment_names_proxies_and_exceptions() {
    let world = World::new();
    let proxy = Proxy::start(&world.path().join("proxy"), "BasicAuth ann hush-hush");
    let url = format!("http://ann:hush-hush@127.0.0.1:{}", proxy.port);
    let connect = |name: &str, to: &str, environment: &[(&str, &str)]| {
        let mut command = join(&world, name, to);
        command.envs(environment.iter().copied());
        let log = world.path().join(format!("{name}.log"));
        let mut agent = Server::start(command, &log);
        agent.event("connected");
        no_secrets(&log_of(&world, name));
        agent
    };
    let mut agents = Vec::new();
    for (name, variable) in [("a", "HTTPS_PROXY"), ("b", "https_proxy"), ("c", "ALL_PROXY")] {
        let before = proxy.asked();
        agents.push(connect(name, &far(&world), &[(variable, &url)]));
        assert!(proxy.asked() > before, "{variable} is not used");
    }
    // A command has a clean environment: the proxy's password is not in it.
    let seen = world.run(["run", "--on", "a", "--", "env"]).ok().stdout;
    no_secrets(&seen);

    let before = proxy.asked();
    agents.push(connect("d", &far(&world), &[("HTTPS_PROXY", &url), ("NO_PROXY", "example.net,0.0.0.0/8")]));
    agents.push(connect("e", world.url(), &[("HTTPS_PROXY", &url)]));
    assert_eq!(proxy.asked(), before, "an exception and this machine itself are reached without");

    let mut command = join(&world, "f", &far(&world));
    command.env("ALL_PROXY", "socks5://ann:hush-hush@127.0.0.1:1");
    let socks = fails(command);
    assert!(
        socks.code == 3 && socks.stderr.contains("ALL_PROXY in the environment cannot be used"),
        "{socks:?}"
    );
    for agent in agents {
        agent.kill();
    }
}

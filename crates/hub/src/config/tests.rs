//! Where settings come from, and what is said about wrong ones.

use super::*;

fn load(file: &str, options: HubOptions, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let data = tempfile::tempdir().expect("tempdir");
    std::fs::write(data.path().join(CONFIG_FILE), file).expect("writes");
    let options = HubOptions { data_dir: data.path().to_owned(), ..options };
    Config::load_with(&options, |name| {
        environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn later_sources_win() {
    let file = "listen = \"127.0.0.1:1\"\n[limits]\nsessions = 7\n[limits.link]\nheartbeat_ms = 500\n";
    let config = load(file, HubOptions::default(), &[]).expect("loads");
    assert_eq!((config.listen.as_str(), config.limits.sessions), ("127.0.0.1:1", 7));
    assert_eq!(config.limits.link.heartbeat_ms, 500);
    assert_eq!(config.limits.tokens, Limits::default().tokens);
    let environment = [("DATACENTERED_LISTEN", "127.0.0.1:2")];
    assert_eq!(load(file, HubOptions::default(), &environment).expect("loads").listen, "127.0.0.1:2");
    let options = HubOptions { listen: Some("127.0.0.1:3".into()), ..HubOptions::default() };
    assert_eq!(load(file, options, &environment).expect("loads").listen, "127.0.0.1:3");
}

#[test]
fn without_a_file_there_are_the_defaults() {
    let data = tempfile::tempdir().expect("tempdir");
    let options = HubOptions { data_dir: data.path().to_owned(), ..HubOptions::default() };
    let config = Config::load_with(&options, |_| None).expect("loads");
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.listen_address().expect("parses").port(), 7272);
}

#[test]
fn mistakes_name_their_line() {
    for (file, line, text) in [
        ("listen = \"127.0.0.1:1\"\nlisten_plan = \"x\"\n", 2, "listen_plan"),
        ("[limits]\n# a comment\nsessions = \"many\"\n", 3, "invalid type"),
        ("[limits]\nsessions = 1\nconnections = 0\n", 3, "limits.connections"),
        ("\n\nlisten = \"nowhere\"\n", 3, "nowhere"),
        ("listen_plain = \"0.0.0.0:80\"\n", 1, "loopback"),
        ("[tls]\ncert = \"a.pem\"\n", 2, "tls.key"),
        ("[retention]\nrun_age_ms = 5\n", 2, "run_age_ms"),
        ("a = \n", 1, ""),
        ("origins = [\"https://a.example/\"]\n", 1, "origin"),
        ("[embedded]\nqueue_max = 0\n", 1, "queue_max"),
    ] {
        let error = load(file, HubOptions::default(), &[]).expect_err(file).to_string();
        assert!(error.contains(&format!("hub.toml:{line}: ")), "{file:?}: {error}");
        assert!(error.contains(text), "{file:?}: {error}");
    }
}

#[test]
fn mistakes_elsewhere_name_their_source() {
    let options = HubOptions { listen_plain: Some("192.0.2.1:80".into()), ..HubOptions::default() };
    let error = load("", options, &[]).expect_err("not loopback").to_string();
    assert!(error.starts_with("--listen-plain: ") && error.contains("loopback"), "{error}");
    let error = load("", HubOptions::default(), &[("DATACENTERED_ENGINE", "etcd")]).expect_err("unknown");
    assert!(error.to_string().starts_with("DATACENTERED_ENGINE: "), "{error}");
}

#[test]
fn plain_takes_every_spelling_of_loopback_and_nothing_else() {
    for good in ["127.0.0.1:0", "[::1]:80", "localhost:1", "127.9.9.9:2", "[::ffff:127.0.0.1]:3"] {
        parse_address(good).and_then(require_loopback).expect(good);
    }
    for bad in ["0.0.0.0:1", "[::]:1", ":1", "10.0.0.1:1", "localhost.evil:1", "127.0.0.1"] {
        assert!(parse_address(bad).and_then(require_loopback).is_err(), "{bad}");
    }
}

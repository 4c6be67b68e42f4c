//! From options, environment and configuration to a connection.

use std::path::PathBuf;

use datacentered_client::{Client, ClientConfig, Clock, Fingerprint, HubUrl, Secret, Trust};
use datacentered_proto::Timestamp;

use crate::args::Global;
use crate::contexts::{self, Contexts};
use crate::failure::{Failure, Result};
use crate::secret;

/// The name of the hub's local socket in its data directory.
const SOCKET: &str = "hub.sock";

/// The time of day, for people.
pub(crate) fn now() -> Timestamp {
    Clock::system().wall()
}

/// Connects to the hub that is meant.
pub(crate) async fn connect(global: &Global) -> Result<Client> {
    Ok(Client::connect(config(global)?).await?)
}

/// Takes leave of the hub.
pub(crate) async fn finish<T>(client: Client, result: Result<T>) -> Result<T> {
    client.close().await;
    result
}

/// Everything that a connection needs.
pub(crate) fn config(global: &Global) -> Result<ClientConfig> {
    let chosen = choose(global)?;
    let token = match &global.token {
        Some(given) => Some(secret::token(given)?),
        None => chosen.token,
    };
    let fingerprint = match &global.fingerprint {
        Some(given) => Some(given.clone()),
        None => chosen.fingerprint,
    };
    let trust = match fingerprint {
        Some(text) => Trust::Pin(self::fingerprint(&text)?),
        None => Trust::Nothing,
    };
    let token = token.map(Secret::new);
    Ok(ClientConfig { token, reconnect_timeout: global.reconnect_timeout, ..with_trust(chosen.urls, trust) })
}

/// This program's connection to a hub, without a credential.
pub(crate) fn with_trust(urls: Vec<HubUrl>, trust: Trust) -> ClientConfig {
    let program = concat!("datacentered ", env!("CARGO_PKG_VERSION")).to_owned();
    ClientConfig { trust, program, ..ClientConfig::new(urls) }
}

/// A fingerprint as people write it; colons between the bytes are as good.
pub(crate) fn fingerprint(text: &str) -> Result<Fingerprint> {
    text.replace(':', "").parse().map_err(|error| Failure::usage(format!("'{text}' is {error}")))
}

/// A hub, and what the configuration knows about it.
#[derive(Debug)]
struct Chosen {
    urls: Vec<HubUrl>,
    fingerprint: Option<String>,
    token: Option<String>,
}

fn choose(global: &Global) -> Result<Chosen> {
    // An explicit context is meant even where the environment names a hub.
    if let (Some(given), None) = (&global.hub, &global.context) {
        let urls = parse_urls(given)?;
        let names: Vec<String> = urls.iter().map(ToString::to_string).collect();
        // A hub on this machine's own socket needs no configuration, which may not even be readable.
        let known = if urls.iter().any(HubUrl::is_tls) {
            let path = contexts::path(global.config.as_deref())?;
            Contexts::load(&path)?.with_url(&names).cloned().unwrap_or_default()
        } else {
            contexts::Context::default()
        };
        return Ok(Chosen { urls, fingerprint: known.fingerprint, token: known.token });
    }
    let path = contexts::path(global.config.as_deref())?;
    let contexts = Contexts::load(&path)?;
    if let Some((name, context)) = contexts.pick(global.context.as_deref())? {
        let urls = parse_urls(&context.urls.join(",")).map_err(|failure| {
            Failure::failed(format!("the context '{name}' in {}: {failure}", path.display()))
        })?;
        return Ok(Chosen { urls, fingerprint: context.fingerprint.clone(), token: context.token.clone() });
    }
    let socket = default_data_dir()?.join(SOCKET);
    if !socket.exists() {
        return Err(Failure::unreachable(format!(
            "no hub is chosen, and none runs on this machine ({} does not exist)",
            socket.display()
        ))
        .hint("log in with 'datacentered login URL', or name a hub with --hub; 'datacentered demo' shows everything"));
    }
    Ok(Chosen { urls: vec![HubUrl::Unix { path: socket }], fingerprint: None, token: None })
}

/// A list of hubs; a relative path of a socket counts from here.
pub(crate) fn parse_urls(text: &str) -> Result<Vec<HubUrl>> {
    let absolute = |part: &str| match part.trim().strip_prefix("unix:") {
        Some(path) if !path.starts_with('/') && !path.is_empty() => std::path::absolute(path)
            .map_or_else(|_| part.to_owned(), |path| format!("unix:{}", path.display())),
        _ => part.to_owned(),
    };
    let parts: Vec<String> = text.split(',').map(absolute).collect();
    HubUrl::parse_list(&parts.join(",")).map_err(|error| Failure::usage(error.to_string()))
}

/// The hub's data directory where none is named.
pub(crate) fn default_data_dir() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/datacentered".into());
    }
    contexts::xdg("XDG_STATE_HOME", ".local/state").map(|state| state.join("datacentered/hub")).ok_or_else(
        || {
            Failure::usage("cannot tell where the data directory is: HOME is not set")
                .hint("name it with --data-dir")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    fn global(args: &[&str]) -> Global {
        let args = [&["datacentered"], args, &["host", "list"]].concat();
        crate::args::Cli::try_parse_from(args).expect("parses").global
    }

    fn with_contexts(directory: &Path) -> String {
        let path = directory.join("config.toml");
        let context = contexts::Context {
            urls: vec!["wss://hub.example.net:7272".into()],
            fingerprint: Some("ab".repeat(32)),
            account: None,
            token: Some("dc_known".into()),
        };
        let contexts = Contexts {
            current: Some("production".into()),
            contexts: [("production".into(), context)].into(),
        };
        contexts.save(&path).expect("saves");
        path.display().to_string()
    }

    #[test]
    fn a_url_of_a_context_brings_its_fingerprint_and_token() {
        let directory = tempfile::tempdir().expect("directory");
        let file = with_contexts(directory.path());
        for args in [
            &["--config", &file][..],
            &["--config", &file, "--context", "production"],
            &["--config", &file, "--hub", "https://hub.example.net:7272"],
            &["--config", &file, "--hub", "hub.example.net"],
        ] {
            let config = config(&global(args)).expect("config");
            assert_eq!(config.urls, ["wss://hub.example.net:7272".parse().expect("url")], "{args:?}");
            assert_eq!(config.token, Some(Secret::new("dc_known")), "{args:?}");
            assert!(matches!(config.trust, Trust::Pin(_)), "{args:?}");
        }
        let other = config(&global(&["--config", &file, "--hub", "other:1"])).expect("config");
        assert_eq!((other.token, other.trust), (None, Trust::Nothing));
    }

    #[test]
    fn options_win_over_the_context() {
        let directory = tempfile::tempdir().expect("directory");
        let file = with_contexts(directory.path());
        let pin = "CD:".repeat(31) + "CD";
        let config = config(&global(&["--config", &file, "--token", "dc_mine", "--fingerprint", &pin]))
            .expect("config");
        assert_eq!(config.token, Some(Secret::new("dc_mine")));
        assert_eq!(config.trust, Trust::Pin("cd".repeat(32).parse().expect("fingerprint")));
    }

    #[test]
    fn sockets_by_relative_paths_are_found_from_here() {
        let urls = parse_urls("unix:hub.sock,unix:/run/hub.sock").expect("urls");
        let here = std::env::current_dir().expect("here");
        assert_eq!(
            urls,
            [HubUrl::Unix { path: here.join("hub.sock") }, HubUrl::Unix { path: "/run/hub.sock".into() },]
        );
        assert!(parse_urls("ftp://x").is_err());
    }
}

//! Which proxy leads to which hub: what the configuration names, else what the environment does.

use std::net::IpAddr;

use serde::Deserialize;

use crate::proxy::{Proxy, ProxyError};
use crate::url::{HubUrl, is_loopback};

/// The variables that name a proxy for connections with TLS, in the order in which they win.
const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The variables that name who is reached without.
const EXCEPT: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Most entries of a list of exceptions; later ones are left out.
const MAX_EXCEPT: usize = 1024;

/// A proxy as a configuration names it: a URL, or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProxySetting {
    /// None, whatever the environment says.
    None,
    /// This one.
    Proxy(Proxy),
}

impl TryFrom<String> for ProxySetting {
    type Error = ProxyError;

    fn try_from(text: String) -> Result<Self, ProxyError> {
        if text.trim().eq_ignore_ascii_case("none") { Ok(Self::None) } else { Ok(Self::Proxy(text.parse()?)) }
    }
}

/// A variable of the environment that names no proxy that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} in the environment cannot be used: {error}")]
pub struct VariableError {
    variable: &'static str,
    error: ProxyError,
}

/// The way to hubs.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    proxy: Option<Result<Proxy, VariableError>>,
    except: Vec<Except>,
    /// From the environment, which is meant for the network: never for this machine itself.
    spare_loopback: bool,
}

impl Proxies {
    /// From a configuration and an environment. Where the configuration says anything, the environment is not looked at.
    pub fn new(
        configured: Option<ProxySetting>,
        except: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let list = |texts: &mut dyn Iterator<Item = &str>| {
            texts.filter_map(Except::parse).take(MAX_EXCEPT).collect::<Vec<_>>()
        };
        match configured {
            Some(ProxySetting::None) => return Self::default(),
            Some(ProxySetting::Proxy(proxy)) => {
                let except = list(&mut except.iter().map(String::as_str));
                return Self { proxy: Some(Ok(proxy)), except, spare_loopback: false };
            }
            None => {}
        }
        let set = |name: &&'static str| {
            environment(name).filter(|text| !text.trim().is_empty()).map(|text| (*name, text))
        };
        let proxy = VARIABLES
            .iter()
            .find_map(set)
            .map(|(variable, text)| text.parse::<Proxy>().map_err(|error| VariableError { variable, error }));
        let text = EXCEPT.iter().find_map(set).map(|(_, text)| text).unwrap_or_default();
        let except = list(&mut text.split([',', ' ', '\t']));
        Self { proxy, except, spare_loopback: true }
    }

    /// The proxy for a hub, where there is one.
    ///
    /// # Errors
    /// The environment names one that cannot be used. Told here, so that it hinders nobody who does not need it.
    pub fn for_hub(&self, hub: &HubUrl) -> Result<Option<&Proxy>, VariableError> {
        let (HubUrl::Tls { host, port }, Some(proxy)) = (hub, &self.proxy) else { return Ok(None) };
        let spared = self.spare_loopback && is_loopback(host);
        if spared || self.except.iter().any(|except| except.covers(host, *port)) {
            return Ok(None);
        }
        proxy.as_ref().map(Some).map_err(Clone::clone)
    }
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Except {
    who: Who,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Everyone,
    /// A name and all names below it, lower case.
    Name(String),
    /// All addresses that begin with these bits.
    Network {
        address: IpAddr,
        bits: u8,
    },
}

impl Except {
    /// Reads `*`, `NAME`, `.NAME`, `*.NAME`, an address or a network, with `:PORT` behind or without.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(who) = network(text) {
            return Some(Self { who, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let who = if bare == "*" {
            Who::Everyone
        } else if let Some(network) = network(bare) {
            network
        } else {
            let name = bare.strip_prefix('*').unwrap_or(bare).trim_matches('.').to_ascii_lowercase();
            if name.is_empty() {
                return None;
            }
            Who::Name(name)
        };
        Some(Self { who, port })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        let host = host.trim_end_matches('.');
        match &self.who {
            Who::Everyone => true,
            Who::Name(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Who::Network { address, bits } => host.parse().is_ok_and(|host| same_bits(*address, host, *bits)),
        }
    }
}

fn network(text: &str) -> Option<Who> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some(Who::Network { address, bits })
}

fn same_bits(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hub(text: &str) -> HubUrl {
        text.parse().expect(text)
    }

    fn environment(variables: &[(&str, &str)]) -> Proxies {
        let find = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        Proxies::new(None, &[], find)
    }

    fn way(proxies: &Proxies, to: &str) -> String {
        match proxies.for_hub(&hub(to)) {
            Ok(proxy) => proxy.map_or("direct".into(), ToString::to_string),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_variables_win_in_their_order_and_empty_ones_are_none() {
        let both = environment(&[("HTTPS_PROXY", "http://b:1"), ("ALL_PROXY", "http://c:1")]);
        assert_eq!(way(&both, "hub"), "http://b:1");
        let small = environment(&[("https_proxy", "a:1"), ("HTTPS_PROXY", "http://b:1")]);
        assert_eq!(way(&small, "hub"), "http://a:1");
        let rest = environment(&[("HTTPS_PROXY", " "), ("ALL_PROXY", "http://u:p@c:1")]);
        assert_eq!(way(&rest, "hub"), "http://c:1");
        assert_eq!(way(&environment(&[("HTTP_PROXY", "http://d:1")]), "hub"), "direct");
    }

    #[test]
    fn the_environment_never_leads_to_this_machine_through_a_proxy() {
        let proxies = environment(&[("HTTPS_PROXY", "http://b:1")]);
        for local in ["localhost", "127.0.0.1", "[::1]:7272"] {
            assert_eq!(way(&proxies, local), "direct");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_where_it_is_needed() {
        let proxies = environment(&[("ALL_PROXY", "socks5://u:secret@p:1"), ("NO_PROXY", "near")]);
        assert_eq!(way(&proxies, "near"), "direct");
        let told = way(&proxies, "far");
        assert!(
            told.starts_with("ALL_PROXY in the environment cannot be used") && told.contains("socks5"),
            "{told}"
        );
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn exceptions_by_name_network_and_port() {
        let proxies = environment(&[
            ("HTTPS_PROXY", "http://p:1"),
            (
                "NO_PROXY",
                "one.example, .two.example,*.three.example 10.0.0.0/8,192.0.2.7,[2001:db8::]/32,fd00::/8,port:99,x:y,",
            ),
        ]);
        for direct in [
            "one.example",
            "a.one.example",
            "two.example",
            "x.two.example",
            "y.three.example",
            "10.9.8.7",
            "192.0.2.7",
            "[fd12::1]:7272",
            "port:99",
        ] {
            assert_eq!(way(&proxies, direct), "direct", "{direct}");
        }
        for far in ["someone.example", "11.0.0.1", "192.0.2.8", "port:98", "example", "x"] {
            assert_eq!(way(&proxies, far), "http://p:1", "{far}");
        }
        assert_eq!(way(&environment(&[("HTTPS_PROXY", "p:1"), ("no_proxy", "*")]), "hub"), "direct");
    }

    #[test]
    fn what_is_configured_wins_altogether() {
        let any = |name: &str| Some(if name.ends_with("roxy") { "*" } else { "http://env:1" }.to_owned());
        let setting = |text: &str| Some(ProxySetting::try_from(text.to_owned()).expect(text));
        let proxies = Proxies::new(setting("http://conf:1"), &["near".into()], any);
        assert_eq!((way(&proxies, "hub"), way(&proxies, "near")), ("http://conf:1".into(), "direct".into()));
        assert_eq!(way(&proxies, "127.0.0.1"), "http://conf:1", "somebody asked for it");
        assert_eq!(way(&Proxies::new(setting("none"), &[], any), "hub"), "direct");
        assert_eq!(proxies.for_hub(&hub("unix:/x")), Ok(None));
        assert!(ProxySetting::try_from(String::new()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(list: String, host in "[a-z0-9.]{1,12}", port: u16) {
            if let Some(except) = Except::parse(&list) {
                let _ = except.covers(&host, port);
            }
        }
    }
}

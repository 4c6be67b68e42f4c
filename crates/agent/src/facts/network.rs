//! The host's addresses.

use std::net::IpAddr;

use datacentered_proto::ops::host::Address;

use super::FactsConfig;
use crate::text::clean;

/// The addresses of this host, loopback left out; none where the kernel does not tell.
pub(super) fn addresses(config: &FactsConfig) -> Vec<Address> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    told(interfaces.into_iter().map(|interface| (interface.ip(), interface.name)).collect(), config)
}

/// The best `max_addresses` of them, in an order that does not depend on the kernel's.
///
/// A host of many guests has a link-local address on every guest's interface: those come last, so that the bound cuts
/// them and not the addresses that somebody could dial.
fn told(mut found: Vec<(IpAddr, String)>, config: &FactsConfig) -> Vec<Address> {
    found.retain(|(ip, _)| !ip.is_loopback() && !ip.is_unspecified());
    found.sort_by(|a, b| (is_link_local(a.0), &a.1, a.0).cmp(&(is_link_local(b.0), &b.1, b.0)));
    found.dedup();
    found.truncate(config.max_addresses);
    found
        .into_iter()
        .map(|(ip, name)| Address { interface: clean(&name, config.max_text_bytes), address: ip.to_string() })
        .collect()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_left_out_and_link_local_comes_last() {
        let found = [("127.0.0.1", "lo"), ("fe80::1", "eth0"), ("10.0.0.2", "eth0"), ("2001:db8::1", "br0")]
            .map(|(ip, name)| (ip.parse::<IpAddr>().expect("parses"), name.to_owned()));
        let config = FactsConfig { max_addresses: 3, ..FactsConfig::default() };
        let told = told(found.into(), &config);
        let texts: Vec<_> = told.iter().map(|a| (a.interface.as_str(), a.address.as_str())).collect();
        assert_eq!(texts, [("br0", "2001:db8::1"), ("eth0", "10.0.0.2"), ("eth0", "fe80::1")]);
    }

    #[test]
    fn their_number_is_bounded() {
        let many = (0..200u8).map(|n| (IpAddr::from([10, 0, 0, n]), format!("tap{n}"))).collect();
        assert_eq!(told(many, &FactsConfig::default()).len(), FactsConfig::default().max_addresses);
    }
}

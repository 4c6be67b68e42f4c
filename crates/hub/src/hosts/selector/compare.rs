//! How values are compared: version numbers, numbers with units, addresses and networks.

use std::cmp::Ordering;
use std::net::IpAddr;

/// Compares as version numbers: runs of digits by value, everything else by its bytes.
pub(super) fn compare_versions(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> Vec<(Option<u128>, &str)> {
        let mut out = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let length =
                if digits > 0 { digits } else { rest.bytes().take_while(|b| !b.is_ascii_digit()).count() };
            let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
            out.push((part.parse().ok(), part));
            rest = behind;
        }
        out
    }
    let (a, b) = (parts(a), parts(b));
    for ((number_a, text_a), (number_b, text_b)) in a.iter().zip(&b) {
        let order = match (number_a, number_b) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => text_a.cmp(text_b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// A number with a unit of 1024's powers (`K`, `M`, `G`, `T`, `P`, with or without `B` or `iB`), such as `64G`, `1.5T`
/// or `8`.
pub(super) fn quantity(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        "P" | "PB" | "PIB" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let number: f64 = number.parse().ok()?;
    let scaled = number * (1u64 << shift) as f64;
    // Beyond that a float no longer holds whole numbers.
    (scaled.is_finite() && scaled < 9e15).then_some(scaled as u64)
}

/// Whether an address is the wanted one, or in the wanted network (`10.0.0.0/8`, `2001:db8::/32`).
pub(super) fn address_matches(address: &str, wanted: &str) -> bool {
    // Hosts tell addresses with or without the length of their network.
    let address = address.split(['/', '%']).next().unwrap_or_default();
    let Ok(address) = address.parse::<IpAddr>() else { return address == wanted };
    match network(wanted) {
        Some((network, length)) => prefix(address, length) == prefix(network, length),
        None => wanted.parse::<IpAddr>() == Ok(address),
    }
}

/// Whether a text is an address or a network.
pub(super) fn is_address(text: &str) -> bool {
    network(text).is_some() || text.parse::<IpAddr>().is_ok()
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.trim().parse().ok()?;
    let length: u32 = length.trim().parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// The first bits of an address, and which kind it is of.
fn prefix(address: IpAddr, length: u32) -> (bool, u128) {
    let keep = |bits: u128, width: u32| if length == 0 { 0 } else { bits >> (width.saturating_sub(length)) };
    match address {
        IpAddr::V4(v4) => (true, keep(u32::from(v4).into(), 32)),
        IpAddr::V6(v6) => (false, keep(v6.into(), 128)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(compare_versions("9", "12").is_lt());
        assert!(compare_versions("1.10", "1.9").is_gt());
        assert!(compare_versions("12", "12.1").is_lt());
        assert!(compare_versions("6.1.0-18-amd64", "6.1.0-9-amd64").is_gt());
        assert!(compare_versions("2026-10-01T00:00:00.000Z", "2026-10").is_gt());
    }

    #[test]
    fn quantities() {
        for (text, number) in [
            ("8", 8),
            ("64G", 64 << 30),
            ("64GiB", 64 << 30),
            ("1.5T", 3 << 39),
            ("512 mb", 512 << 20),
            ("0", 0),
            ("2P", 2 << 50),
        ] {
            assert_eq!(quantity(text), Some(number), "{text}");
        }
        for bad in ["", "G", "1X", "-1", "1.2.3", "12.1-1", "99999999999P", "1e5", "ten"] {
            assert_eq!(quantity(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_and_networks() {
        for (address, wanted) in [
            ("10.1.2.3", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/24", "10.1.2.0/24"),
            ("10.1.2.3", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::/32"),
            ("2001:db8::1", "2001:0db8:0::1"),
            ("fe80::1%eth0", "fe80::/10"),
        ] {
            assert!(address_matches(address, wanted), "{address} {wanted}");
        }
        for (address, wanted) in [
            ("11.1.2.3", "10.0.0.0/8"),
            ("10.1.2.3", "::/0"),
            ("10.1.2.3", "10.0.0.0/33"),
            ("nonsense", "10.0.0.0/8"),
            ("", "10.0.0.0/8"),
        ] {
            assert!(!address_matches(address, wanted), "{address} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(a: String, b: String) {
            let _ = (compare_versions(&a, &b), quantity(&a), address_matches(&a, &b), is_address(&a));
        }
    }
}

//! Sizes as people write them (`256M`, `1G`) and as they read them.

/// Why a text is not a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as 512K, 256M or 2G (powers of 1024; a plain number is bytes)")]
pub(crate) struct NotASize;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Reads a size: a whole number and a unit of 1024's powers (`K`, `M`, `G`, `T`, with or without `B` or `iB`).
pub(crate) fn parse(text: &str) -> Result<u64, NotASize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| NotASize)?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(NotASize),
    };
    let bytes = number.checked_mul(1 << shift).ok_or(NotASize)?;
    // Integers on the wire stay below 2^53.
    if bytes < datacentered_proto::limits::MAX_INTEGER { Ok(bytes) } else { Err(NotASize) }
}

/// A size for a person: `1.5 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{bytes} {name}") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("4K", 4096), ("256M", 256 << 20), ("2GiB", 2 << 30), ("1tb", 1 << 40)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "1X", "99999999999999999999", "9000T1", "9999999T"] {
            assert_eq!(parse(text), Err(NotASize), "{text}");
        }
    }

    #[test]
    fn what_people_read() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(16 << 30), "16.0 GiB");
    }

    proptest! {
        #[test]
        fn never_panics(text: String, bytes: u64) {
            let _ = parse(&text);
            let _ = human(bytes);
        }
    }
}

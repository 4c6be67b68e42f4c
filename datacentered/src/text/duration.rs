//! Durations as people write them: `30s`, `5m`, `1h30m`, `1d`.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as 500ms, 30s, 5m, 1h30m or 7d")]
pub(crate) struct NotADuration;

/// Longest duration there is: 100 years. Whatever is longer is a mistake, and stays far from every overflow.
const LONGEST_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// Reads a duration: one or more numbers, each with its unit (`ms`, `s`, `m`, `h`, `d`, `w`).
pub(crate) fn parse(text: &str) -> Result<Duration, NotADuration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(NotADuration);
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(NotADuration)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let number: u64 = number.parse().map_err(|_| NotADuration)?;
        let scale: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(NotADuration),
        };
        total = number.checked_mul(scale).and_then(|part| total.checked_add(part)).ok_or(NotADuration)?;
        rest = tail;
    }
    if total > LONGEST_MS { Err(NotADuration) } else { Ok(Duration::from_millis(total)) }
}

/// The milliseconds that go on the wire.
pub(crate) fn millis(duration: Duration) -> u64 {
    // `parse` keeps every duration of ours far below the limit.
    u64::try_from(duration.as_millis()).unwrap_or(LONGEST_MS)
}

/// A duration for a person: in whole minutes where it has some, else in seconds.
pub(crate) fn human(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        0 => format!("{} ms", duration.as_millis()),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text).map(millis), Ok(ms), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in ["", "5", "s", "-5s", "1.5h", "5 s", "5x", "9999999999999999999s", "200000d", "1h30"] {
            assert_eq!(parse(text), Err(NotADuration), "{text}");
        }
    }

    #[test]
    fn for_people() {
        let told = [600, 90, 5].map(|seconds| human(Duration::from_secs(seconds)));
        assert_eq!(told, ["10 min", "90 s", "5 s"]);
        assert_eq!(human(Duration::from_millis(300)), "300 ms");
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text);
        }

        #[test]
        fn whole_seconds_round_trip(seconds in 0u64..3_000_000_000) {
            prop_assert_eq!(parse(&format!("{seconds}s")).map(millis), Ok(seconds * 1000));
        }
    }
}

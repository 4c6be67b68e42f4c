//! Times for people: `3 min ago`.

use datacentered_proto::Timestamp;

/// How long before `now` a moment was, or how long after it it will be.
pub(crate) fn human(moment: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_millis().saturating_sub(moment.as_millis())) / 1000;
    // Clocks of two machines differ a little: what is a moment ahead is now.
    match seconds {
        -5..=4 => "now".to_owned(),
        5.. => format!("{} ago", span(seconds.unsigned_abs())),
        _ => format!("in {}", span(seconds.unsigned_abs())),
    }
}

/// How long a stretch of milliseconds is.
pub(crate) fn elapsed(ms: i64) -> String {
    let ms = ms.max(0).unsigned_abs();
    if ms < 60_000 { format!("{}.{} s", ms / 1000, ms % 1000 / 100) } else { span(ms / 1000) }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        86_400..172_800 => "1 day".to_owned(),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_is_enough() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let ago = |seconds: i64| human(now.plus_millis(-seconds * 1000), now);
        assert_eq!(ago(0), "now");
        assert_eq!(ago(42), "42 s ago");
        assert_eq!(ago(200), "3 min ago");
        assert_eq!(ago(7300), "2 h ago");
        assert_eq!(ago(90_000), "1 day ago");
        assert_eq!(ago(10 * 86_400), "10 days ago");
        assert_eq!(ago(-120), "in 2 min");
        let ends = human(Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
        assert!(ends.ends_with(" days ago"), "{ends}");
    }

    #[test]
    fn stretches() {
        assert_eq!(elapsed(1240), "1.2 s");
        assert_eq!(elapsed(-3), "0.0 s");
        assert_eq!(elapsed(125_000), "2 min");
    }
}

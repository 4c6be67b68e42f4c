//! Windows of the week, in the host's local time: `mon-fri 08:00-18:00`, `sat,sun`, `22:00-06:00`.

use super::question::LocalTime;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Some hours on some days. One whose end is not behind its begin lasts into the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// One bit for each day on which it begins, Monday first.
    days: u8,
    /// Minute of the day at which it begins.
    begin: u16,
    /// Minute of the day before which it ends; up to a whole day.
    end: u16,
}

impl Window {
    /// Reads `[DAYS] [HH:MM-HH:MM]`, at least one of both.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("`{text}`: {what}; write it as `mon-fri 08:00-18:00`, `sat,sun` or `22:00-06:00`")
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, hours) = match words.as_slice() {
            [one] if one.starts_with(|c: char| c.is_ascii_digit()) => (None, Some(*one)),
            [one] => (Some(*one), None),
            [days, hours] => (Some(*days), Some(*hours)),
            _ => return Err(wrong("days and hours are two words")),
        };
        let days = match days {
            Some(days) => read_days(days).map_err(|what| wrong(&what))?,
            None => 0x7f,
        };
        let Some(hours) = hours else { return Ok(Self { days, begin: 0, end: DAY }) };
        let times = hours.split_once('-').and_then(|(a, b)| Some((read_minute(a)?, read_minute(b)?)));
        let (begin, end) = times.ok_or_else(|| wrong("hours are from 00:00 to 24:00"))?;
        if begin == end || begin == DAY {
            return Err(wrong("these hours are empty; leave them out for the whole day"));
        }
        Ok(Self { days, begin, end })
    }

    /// Whether a moment is in it.
    pub(super) fn contains(self, at: LocalTime) -> bool {
        let begins_on = |day: u8| self.days & (1 << (day % 7)) != 0;
        let (today, yesterday) = (begins_on(at.weekday), begins_on(at.weekday + 6));
        if self.begin < self.end {
            today && (self.begin..self.end).contains(&at.minute)
        } else {
            (today && at.minute >= self.begin) || (yesterday && at.minute < self.end)
        }
    }
}

fn read_days(text: &str) -> Result<u8, String> {
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (read_day(first)?, read_day(last)?);
        // `fri-mon` goes round the end of the week.
        let length = (last + 7 - first) % 7;
        for step in 0..=length {
            days |= 1 << ((first + step) % 7);
        }
    }
    Ok(days)
}

/// A day's number, Monday being 0.
pub(super) fn read_day(text: &str) -> Result<u8, String> {
    let found = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    found.map(|at| at as u8).ok_or_else(|| format!("`{}` is none of {}", text.escape_debug(), DAYS.join(" ")))
}

/// `HH:MM` as the minute of a day, 24:00 included.
pub(super) fn read_minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= DAY).then_some(all)
}

/// A moment as people write it.
pub(super) fn show(at: LocalTime) -> String {
    let day = DAYS.get(usize::from(at.weekday)).copied().unwrap_or("?");
    format!("{day} {:02}:{:02}", at.minute / 60, at.minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> LocalTime {
        let (day, time) = text.split_once(' ').expect("a day and a time");
        LocalTime { weekday: read_day(day).expect("a day"), minute: read_minute(time).expect("a time") }
    }

    fn contains(window: &str, moment: &str) -> bool {
        Window::parse(window).expect(window).contains(at(moment))
    }

    #[test]
    fn begin_is_in_and_end_is_not() {
        let window = "mon-fri 08:00-18:00";
        for (moment, inside) in [
            ("mon 07:59", false),
            ("mon 08:00", true),
            ("fri 17:59", true),
            ("fri 18:00", false),
            ("sat 12:00", false),
        ] {
            assert_eq!(contains(window, moment), inside, "{moment}");
        }
        assert!(contains("tue 20:00-24:00", "tue 23:59") && !contains("tue 20:00-24:00", "wed 00:00"));
    }

    #[test]
    fn windows_cross_midnight_with_the_day_on_which_they_begin() {
        let window = "fri 22:00-06:00";
        for (moment, inside) in [
            ("fri 05:00", false),
            ("fri 21:59", false),
            ("fri 22:00", true),
            ("sat 00:00", true),
            ("sat 05:59", true),
            ("sat 06:00", false),
            ("sat 22:30", false),
        ] {
            assert_eq!(contains(window, moment), inside, "{moment}");
        }
        // And the end of the week.
        assert!(contains("sun 22:00-06:00", "mon 03:00") && !contains("sun 22:00-06:00", "sun 03:00"));
        assert!(contains("22:00-06:00", "wed 03:00") && !contains("22:00-06:00", "wed 12:00"));
    }

    #[test]
    fn days_are_lists_and_ranges() {
        assert!(contains("sat,sun", "sun 00:00") && !contains("sat,sun", "fri 23:59"));
        assert!(contains("FRI-mon", "sun 12:00") && !contains("fri-mon", "tue 12:00"));
        assert!(contains("mon,wed-thu 10:00-11:00", "thu 10:30"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in [
            "",
            "monday",
            "mon 8-18",
            "8:00-18:00",
            "08:00-24:01",
            "08:60-09:00",
            "mon 08:00",
            "08:00-08:00",
            "24:00-06:00",
            "mon 08:00-18:00 x",
            "mon-",
            ",",
        ] {
            assert!(Window::parse(bad).is_err(), "{bad}");
        }
        let error = Window::parse("mon-fry 08:00-18:00").expect_err("is refused");
        assert!(error.contains("`fry`") && error.contains("mon-fri 08:00-18:00"), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = Window::parse(&text);
        }

        #[test]
        fn across_midnight_is_the_two_halves(begin in 1u16..DAY, cut in 1u16..DAY, weekday in 0u8..7, minute in 0u16..DAY, days in 1u8..128) {
            let end = cut % begin;
            prop_assume!(end > 0);
            let at = LocalTime { weekday, minute };
            let whole = Window { days, begin, end }.contains(at);
            let evening = Window { days, begin, end: DAY }.contains(at);
            // The morning after: the days moved on by one.
            let morning = Window { days: ((days << 1) | (days >> 6)) & 0x7f, begin: 0, end }.contains(at);
            prop_assert_eq!(whole, evening || morning);
        }
    }
}

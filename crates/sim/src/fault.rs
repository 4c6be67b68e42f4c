//! What goes wrong on purpose.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest duration of a fault: a day.
const LONGEST: Duration = Duration::from_hours(24);

/// Most output of a flooding job, in bytes: 1 GiB, what a job may keep.
const MOST_OUTPUT: u64 = 1 << 30;

/// One thing that goes wrong on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every answer comes this late.
    Delay(Duration),
    /// The connection breaks without a word, about this often.
    Disconnect(Duration),
    /// Reports jobs that it does not have, and journals that go back.
    Lie,
    /// Every job writes this many bytes as fast as it may, and is reported over and over until then.
    Flood(u64),
    /// Its clock is ahead by this much.
    Skew(Duration),
}

impl Fault {
    /// The word for it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Disconnect(_) => "disconnect",
            Self::Lie => "lie",
            Self::Flood(_) => "flood",
            Self::Skew(_) => "skew",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(by) | Self::Disconnect(by) | Self::Skew(by) => {
                write!(f, "{}={}ms", self.kind(), by.as_millis())
            }
            Self::Flood(bytes) => write!(f, "{}={bytes}", self.kind()),
            Self::Lie => f.write_str(self.kind()),
        }
    }
}

/// A text that is not a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFault {
    /// No such kind.
    #[error("expected delay[=D], disconnect[=D], lie, flood[=SIZE] or skew[=D]")]
    Kind,
    /// The argument does not fit the kind.
    #[error("'{kind}' takes a duration up to 24h such as 50ms, 5s or 1h")]
    Duration {
        /// The kind.
        kind: &'static str,
    },
    /// Not a size.
    #[error("'flood' takes a size up to 1G such as 64K or 16M")]
    Size,
    /// An argument that has no meaning.
    #[error("'lie' takes no argument")]
    Argument,
}

impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Self, NotAFault> {
        let (kind, argument) = match text.split_once('=') {
            Some((kind, argument)) => (kind, Some(argument)),
            None => (text, None),
        };
        let duration = |kind, default: Duration| match argument {
            None => Ok(default),
            Some(text) => duration(text).filter(|d| *d <= LONGEST).ok_or(NotAFault::Duration { kind }),
        };
        match kind {
            "delay" => Ok(Self::Delay(duration("delay", Duration::from_millis(50))?)),
            "disconnect" => {
                let every = duration("disconnect", Duration::from_secs(5))?;
                // Less would be a host that never gets to say anything.
                Ok(Self::Disconnect(every.max(Duration::from_millis(10))))
            }
            "skew" => Ok(Self::Skew(duration("skew", Duration::from_hours(1))?)),
            "lie" if argument.is_some() => Err(NotAFault::Argument),
            "lie" => Ok(Self::Lie),
            "flood" => {
                let bytes = argument.map_or(Some(4 << 20), size);
                bytes.filter(|bytes| *bytes <= MOST_OUTPUT).map(Self::Flood).ok_or(NotAFault::Size)
            }
            _ => Err(NotAFault::Kind),
        }
    }
}

/// A whole number and its unit.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(scale)?))
}

/// A whole number and a unit of 1024's powers.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// The faults of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every answer comes this late.
    pub delay: Option<Duration>,
    /// The connection breaks about this often.
    pub disconnect: Option<Duration>,
    /// It lies.
    pub lie: bool,
    /// Every job writes this many bytes as fast as it may.
    pub flood: Option<u64>,
    /// Its clock is ahead by this much.
    pub skew: Option<Duration>,
}

impl Faults {
    /// All of these; of two of one kind the later counts.
    pub fn all(faults: &[Fault]) -> Self {
        let mut all = Self::default();
        for fault in faults {
            match *fault {
                Fault::Delay(by) => all.delay = Some(by),
                Fault::Disconnect(every) => all.disconnect = Some(every),
                Fault::Lie => all.lie = true,
                Fault::Flood(bytes) => all.flood = Some(bytes),
                Fault::Skew(by) => all.skew = Some(by),
            }
        }
        all
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write() {
        let parsed = |text: &str| text.parse::<Fault>();
        assert_eq!(parsed("delay=20ms"), Ok(Fault::Delay(Duration::from_millis(20))));
        assert_eq!(parsed("disconnect"), Ok(Fault::Disconnect(Duration::from_secs(5))));
        assert_eq!(parsed("lie"), Ok(Fault::Lie));
        assert_eq!(parsed("flood=16M"), Ok(Fault::Flood(16 << 20)));
        assert_eq!(parsed("skew"), Ok(Fault::Skew(Duration::from_hours(1))));
        assert_eq!(parsed("delay=soon"), Err(NotAFault::Duration { kind: "delay" }));
        assert_eq!(parsed("skew=25h"), Err(NotAFault::Duration { kind: "skew" }));
        assert_eq!(parsed("flood=2G"), Err(NotAFault::Size));
        assert_eq!(parsed("lie=1"), Err(NotAFault::Argument));
        assert_eq!(parsed("rain"), Err(NotAFault::Kind));
    }

    #[test]
    fn several_faults_are_one_hosts() {
        let all = Faults::all(&[Fault::Lie, Fault::Flood(1), Fault::Flood(2)]);
        assert_eq!(all, Faults { lie: true, flood: Some(2), ..Faults::default() });
        assert!(all.any() && !Faults::all(&[]).any());
    }

    proptest! {
        #[test]
        fn never_panics(text: String, kind in "(delay|flood|skew|disconnect)=.*") {
            let _ = text.parse::<Fault>();
            let _ = kind.parse::<Fault>();
        }

        #[test]
        fn what_is_shown_can_be_written(ms in 10u64..86_400_000, bytes in 0u64..(1 << 30)) {
            for fault in [Fault::Delay(Duration::from_millis(ms)), Fault::Disconnect(Duration::from_millis(ms)),
                          Fault::Flood(bytes), Fault::Lie] {
                prop_assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
    }
}

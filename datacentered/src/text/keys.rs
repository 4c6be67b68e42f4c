//! Keys as people write them, `ctrl-],d`, and finding them among what is typed.

/// Most keys in a row.
const MOST: usize = 8;

/// Keys in a row, as the bytes that a terminal sends for them. None never match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys(Vec<u8>);

/// Why a text does not name keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected keys such as ctrl-],d or ctrl-p,ctrl-q, or none")]
pub(crate) struct NotKeys;

/// Reads keys: `ctrl-X` or a character each, with commas between.
pub(crate) fn parse(text: &str) -> Result<Keys, NotKeys> {
    if text == "none" {
        return Ok(Keys(Vec::new()));
    }
    let keys: Vec<u8> = text.split(',').map(key).collect::<Option<_>>().ok_or(NotKeys)?;
    if keys.is_empty() || keys.len() > MOST { Err(NotKeys) } else { Ok(Keys(keys)) }
}

fn key(text: &str) -> Option<u8> {
    let control = text.strip_prefix("ctrl-");
    let [byte] = control.unwrap_or(text).as_bytes() else { return None };
    match (control, byte.to_ascii_uppercase()) {
        (None, _) => byte.is_ascii_graphic().then_some(*byte),
        (Some(_), upper @ b'@'..=b'_') => Some(upper & 0x1f),
        (Some(_), _) => None,
    }
}

impl std::fmt::Display for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" then ")?;
            }
            match byte {
                0..0x20 => write!(f, "Ctrl-{}", char::from(byte | 0x40))?,
                byte => write!(f, "{}", char::from(*byte))?,
            }
        }
        Ok(())
    }
}

impl Keys {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Finds keys in what is typed. The first of them are held back until it is clear whether the rest follows.
#[derive(Debug)]
pub(crate) struct Finder {
    keys: Keys,
    matched: usize,
}

impl Finder {
    /// Looks for these.
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What goes on of these bytes, and whether the keys were found; nothing behind them goes on.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut passed = Vec::with_capacity(bytes.len() + self.matched);
        for byte in bytes {
            if keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(keys.get(..self.matched).unwrap_or_default());
            self.matched = usize::from(keys.first() == Some(byte));
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_people_write_them() {
        assert_eq!(parse("ctrl-],d"), Ok(Keys(vec![0x1d, b'd'])));
        assert_eq!(parse("ctrl-p,ctrl-Q"), Ok(Keys(vec![0x10, 0x11])));
        assert_eq!(parse("~"), Ok(Keys(vec![b'~'])));
        assert!(parse("none").expect("keys").is_empty());
        for wrong in ["", ",", "ctrl-", "ctrl-1", "abc", "é", "a,b,c,d,e,f,g,h,i"] {
            assert_eq!(parse(wrong), Err(NotKeys), "{wrong}");
        }
        assert_eq!(parse("ctrl-],d").expect("keys").to_string(), "Ctrl-] then d");
    }

    #[test]
    fn only_the_whole_of_them_is_found() {
        let mut finder = Finder::new(parse("ctrl-],d").expect("keys"));
        assert_eq!(finder.pass(b"abd"), (b"abd".to_vec(), false));
        assert_eq!(finder.pass(b"x\x1d"), (b"x".to_vec(), false));
        assert_eq!(finder.pass(b"y"), (b"\x1dy".to_vec(), false));
        assert_eq!(finder.pass(b"\x1d\x1dd..."), (b"\x1d".to_vec(), true));
        let mut none = Finder::new(parse("none").expect("keys"));
        assert_eq!(none.pass(b"\x1dd"), (b"\x1dd".to_vec(), false));
    }
}

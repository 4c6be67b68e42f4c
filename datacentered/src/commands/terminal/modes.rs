//! Which modes a program has set in a terminal: to set them again where one comes back, and to leave one's own terminal
//! as it was.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Longest control sequence that is looked at.
const MAX_SEQUENCE: usize = 64;

/// The other screen.
const ALTERNATE: [u16; 3] = [47, 1047, 1049];

/// Modes that a program may leave behind: cursor keys, the mouse, focus, the other screen, pasting.
const KNOWN: [u16; 15] = [1, 9, 47, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1047, 1049, 2004];

/// What the emulator does not keep of these.
const NOT_EMULATED: [u16; 11] = [9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004];

#[derive(Debug, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    Sequence(Vec<u8>),
}

/// The modes, read out of the bytes as they pass.
#[derive(Debug, Default)]
pub(super) struct Modes {
    state: State,
    set: BTreeSet<u16>,
    keypad: bool,
    cursor_hidden: bool,
    margins: bool,
    colours: bool,
}

impl Modes {
    /// Bytes pass.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = match std::mem::take(&mut self.state) {
                State::Ground | State::Sequence(_) if *byte == 0x1b => State::Escape,
                State::Ground => State::Ground,
                State::Escape => self.escape(*byte),
                State::Sequence(sequence) if (0x40..0x7f).contains(byte) => {
                    self.sequence(&sequence, *byte);
                    State::Ground
                }
                State::Sequence(sequence) if sequence.len() >= MAX_SEQUENCE => State::Ground,
                State::Sequence(mut sequence) => {
                    sequence.push(*byte);
                    State::Sequence(sequence)
                }
            };
        }
    }

    fn escape(&mut self, byte: u8) -> State {
        match byte {
            b'[' => return State::Sequence(Vec::new()),
            0x1b => return State::Escape,
            b'=' => self.keypad = true,
            b'>' => self.keypad = false,
            b'c' => *self = Self::default(),
            _ => {}
        }
        State::Ground
    }

    fn sequence(&mut self, sequence: &[u8], end: u8) {
        match (sequence, end) {
            ([b'?', modes @ ..], b'h' | b'l') => {
                let modes = std::str::from_utf8(modes).unwrap_or_default();
                for mode in modes.split(';').filter_map(|mode| mode.parse::<u16>().ok()) {
                    self.mode(mode, end == b'h');
                }
            }
            ([b'!'], b'p') => {
                (self.keypad, self.cursor_hidden, self.margins, self.colours) = Default::default();
                self.set.remove(&1);
            }
            ([], b'r') => self.margins = false,
            ([b'0'..=b'9' | b';', ..], b'r') => self.margins = true,
            ([] | [b'0'], b'm') => self.colours = false,
            ([b'0'..=b'9' | b';' | b':', ..], b'm') => self.colours = true,
            _ => {}
        }
    }

    fn mode(&mut self, mode: u16, on: bool) {
        if mode == 25 {
            self.cursor_hidden = !on;
        } else if on && KNOWN.contains(&mode) {
            self.set.insert(mode);
        } else if ALTERNATE.contains(&mode) {
            // Whichever entered the other screen, any of them leaves it.
            self.set.retain(|other| !ALTERNATE.contains(other));
        } else {
            self.set.remove(&mode);
        }
    }

    /// What sets again those modes that an emulator's dump leaves out.
    pub(super) fn again(&self) -> String {
        let mut text = String::new();
        for mode in self.set.iter().filter(|mode| NOT_EMULATED.contains(mode)) {
            write!(text, "\x1b[?{mode}h").ok();
        }
        if self.keypad {
            text.push_str("\x1b=");
        }
        text
    }

    /// What takes everything back that was set.
    pub(super) fn undo(&self) -> String {
        let mut text = String::new();
        if self.margins {
            // Setting them moves the cursor, so that it has to be kept.
            text.push_str("\x1b7\x1b[r\x1b8");
        }
        for mode in &self.set {
            write!(text, "\x1b[?{mode}l").ok();
        }
        if self.keypad {
            text.push_str("\x1b>");
        }
        if self.cursor_hidden {
            text.push_str("\x1b[?25h");
        }
        if self.colours {
            text.push_str("\x1b[0m");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed(bytes: &[u8]) -> Modes {
        let mut modes = Modes::default();
        modes.pass(bytes);
        modes
    }

    #[test]
    fn what_an_editor_sets_is_set_again_and_undone() {
        let editor =
            b"\x1b[?1049h\x1b[22;0;0t\x1b[?1h\x1b=\x1b[?2004h\x1b[?1000;1006h\x1b[1;24r\x1b[?25l\x1b[31mx";
        let modes = passed(editor);
        assert_eq!(modes.again(), "\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b=");
        assert_eq!(
            modes.undo(),
            "\x1b7\x1b[r\x1b8\x1b[?1l\x1b[?1000l\x1b[?1006l\x1b[?1049l\x1b[?2004l\x1b>\x1b[?25h\x1b[0m"
        );
        let gone = b"\x1b[?1047l\x1b[?1l\x1b>\x1b[?2004l\x1b[?1000;1006l\x1b[r\x1b[?25h\x1b[m";
        let modes = passed(&[&editor[..], gone].concat());
        assert_eq!((modes.again(), modes.undo()), (String::new(), String::new()));
        assert_eq!(passed(&[&editor[..], b"\x1bc"].concat()).undo(), "");
    }

    proptest! {
        /// However the bytes are cut, the same is found; and nothing panics.
        #[test]
        fn pieces_do_not_matter(
            bytes in proptest::collection::vec(prop_oneof![
                Just(0x1bu8), Just(b'['), Just(b'?'), Just(b'h'), Just(b'l'), Just(b'1'), Just(b';'), any::<u8>(),
            ], 0..200),
            cut in 0usize..200,
        ) {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut modes = passed(first);
            modes.pass(second);
            prop_assert_eq!(modes.undo(), passed(&bytes).undo());
        }
    }
}

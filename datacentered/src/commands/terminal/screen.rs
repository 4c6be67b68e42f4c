//! The screen of a terminal that one comes back to: the end of its recording, through an emulator of its size.

use std::time::Duration;

use datacentered_client::{OutputEvent, OutputStream};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::job::Window;

use super::modes::Modes;
use super::raw::DEFAULT_WINDOW;
use super::recording::Marks;
use super::utf8::Utf8;
use crate::failure::Result;

/// Bytes of the recording that are looked at.
pub(super) const TAIL: u64 = 256 * 1024;

/// Most bytes that are read before the screen is shown, however fast they come.
const MOST: u64 = 4 * TAIL;

/// Largest window that is emulated: the host says what its size is, and every cell takes memory.
const LARGEST: Window = Window { cols: 1024, rows: 512 };

/// How long the first piece may take.
const FIRST: Duration = Duration::from_secs(2);

/// A pause this long means that all there was has come.
const PAUSE: Duration = Duration::from_millis(80);

/// A screen.
pub(super) struct Screen {
    emulator: avt::Terminal,
    text: Utf8,
    marks: Marks,
    /// Modes that the program has set.
    pub(super) modes: Modes,
}

impl Default for Screen {
    fn default() -> Self {
        let Window { cols, rows } = DEFAULT_WINDOW;
        Self {
            emulator: emulator(cols, rows),
            text: Utf8::default(),
            marks: Marks::default(),
            modes: Modes::default(),
        }
    }
}

fn emulator(cols: u16, rows: u16) -> avt::Terminal {
    // It fails for a size of zero only, and then with the usual one it does not.
    avt::Terminal::new(cols.into(), rows.into())
        .or_else(|_| avt::Terminal::new(80, 24))
        .unwrap_or_else(|_| unreachable!("80x24 is a size"))
}

impl Screen {
    /// Reads from the output what there is now. `end` is where its record ended a moment ago, as far as that is known.
    pub(super) async fn read(output: &mut OutputStream, end: u64) -> Result<Self> {
        let mut screen = Self::default();
        let mut begin = None;
        loop {
            let behind = output.position() < end;
            let patience = if behind || begin.is_none() { FIRST } else { PAUSE };
            let Ok(event) = tokio::time::timeout(patience, output.next()).await else { break };
            match event? {
                Some(OutputEvent::Bytes { kind, offset, bytes }) => {
                    screen.pass(kind, &bytes);
                    let begin = *begin.get_or_insert(offset);
                    if offset - begin > MOST {
                        break;
                    }
                }
                Some(OutputEvent::Gap { .. }) => {}
                Some(OutputEvent::End { .. }) | None => break,
            }
        }
        Ok(screen)
    }

    fn pass(&mut self, kind: Kind, bytes: &[u8]) {
        if kind == Kind::Mark {
            for mark in self.marks.pass(bytes).into_iter().filter(|mark| mark.window.is_valid()) {
                self.resize(mark.window);
            }
            return;
        }
        self.marks.forget();
        self.modes.pass(bytes);
        self.emulator.feed(self.text.pass(bytes).as_str());
    }

    fn resize(&mut self, window: Window) {
        let size = (usize::from(window.cols.min(LARGEST.cols)), usize::from(window.rows.min(LARGEST.rows)));
        if self.emulator.size() != size {
            self.emulator.resize(size.0, size.1);
        }
    }

    /// What brings a window of this size, whatever is in it, to this screen. What was in it moves up.
    pub(super) fn paint(&mut self, window: Window) -> Vec<u8> {
        self.resize(window);
        let down = "\n".repeat(window.rows.into());
        // The emulator speaks in single control characters, which few terminals understand in UTF-8.
        let dump = self.emulator.dump().replace('\u{9b}', "\x1b[").replace('\u{90}', "\x1bP");
        let mut paint =
            format!("\x1b[{};1H{down}\x1b[H{dump}{}", window.rows, self.modes.again()).into_bytes();
        paint.extend_from_slice(self.text.begun());
        paint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ops::terminal::Mark;
    use proptest::prelude::*;

    fn shown(emulator: &avt::Terminal) -> (Vec<String>, Option<(usize, usize)>) {
        (
            emulator.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect(),
            emulator.cursor().position(),
        )
    }

    #[test]
    fn a_full_screen_program_is_painted_with_its_modes() {
        let window = Window { cols: 40, rows: 10 };
        let mut screen = Screen::default();
        screen.pass(Kind::Mark, &Mark { at_ms: 0, window }.encode());
        screen.pass(
            Kind::Terminal,
            "$ vi\r\n\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h\x1b[H\x1b[2Jh\u{e9}llo \x1b[31mred\x1b[5;7H"
                .as_bytes(),
        );
        screen.pass(Kind::Terminal, &"€".as_bytes()[..1]);
        let paint = screen.paint(window);
        assert!(paint.ends_with(&"€".as_bytes()[..1]), "the character that was begun goes on");
        let paint = String::from_utf8_lossy(&paint);
        assert!(
            !paint.contains('\u{9b}') && paint.contains("\x1b[?2004h") && paint.contains("\x1b="),
            "{paint:?}"
        );
        let mut other = emulator(40, 10);
        other.feed("something\r\nelse");
        other.feed(paint.trim_end_matches(char::REPLACEMENT_CHARACTER));
        assert_eq!(shown(&other), shown(&screen.emulator));
        assert_eq!(shown(&other).1, Some((6, 4)));
        assert_eq!(other.active_screen_kind(), avt::ScreenKind::Alternate);
        other.feed("\x1b[?1049l");
        assert_eq!(shown(&other).0[0], "$ vi");
    }

    proptest! {
        /// Whatever a host prints, and whatever it says about windows, nothing panics.
        #[test]
        fn hostile_bytes_do_no_harm(
            pieces in proptest::collection::vec(
                (any::<bool>(), prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..40),
                    "[\\x1b\\[;0-9A-Za-z?界\r\n]{0,40}".prop_map(String::into_bytes),
                ]), 0..30),
            cols in 1u16..60, rows in 1u16..30,
        ) {
            let mut screen = Screen::default();
            for (mark, bytes) in pieces {
                screen.pass(if mark { Kind::Mark } else { Kind::Terminal }, &bytes);
            }
            screen.paint(Window { cols, rows });
        }
    }
}

//! The terminal that this process runs in: its size, and raw mode with its way back whatever happens.

use std::io::IsTerminal;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use datacentered_proto::ops::job::Window;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was before; none while it is so.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Puts the terminal back as it was.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

/// Raw mode on standard input, until it is dropped or the process panics.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// Enters raw mode where standard input is a terminal.
    pub(super) fn enter() -> Option<Self> {
        static HOOK: Once = Once::new();
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok()?;
        HOOK.call_once(|| {
            let told = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                told(info);
            }));
        });
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let raw = Self(());
        set().then_some(raw)
    }

    /// Enters it again: a shell that had stopped this process has put its own modes back.
    #[expect(clippy::unused_self, reason = "only who is in raw mode enters it again")]
    pub(super) fn again(&self) {
        set();
    }
}

/// Raw mode, as long as there is a way back.
fn set() -> bool {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(mut modes) = before else { return false };
    modes.make_raw();
    tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &modes).is_ok()
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// The size of the window, where there is one.
pub(super) fn window() -> Option<Window> {
    let sizes = [
        tcgetwinsize(rustix::stdio::stdout()),
        tcgetwinsize(rustix::stdio::stdin()),
        tcgetwinsize(rustix::stdio::stderr()),
    ];
    sizes.into_iter().find_map(Result::ok).map(|size| usable(size.ws_col, size.ws_row))
}

/// The size that a program gets where nobody knows one.
pub(super) const DEFAULT_WINDOW: Window = Window { cols: 80, rows: 24 };

/// Some parents leave a terminal at 0x0: no program can work with that.
fn usable(cols: u16, rows: u16) -> Window {
    if cols == 0 || rows == 0 {
        return DEFAULT_WINDOW;
    }
    Window { cols: cols.min(Window::MAX), rows: rows.min(Window::MAX) }
}

/// Whether somebody types.
pub(super) fn typed() -> bool {
    std::io::stdin().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_make_no_sense_are_usual_ones() {
        for (cols, rows) in [(0, 0), (0, 24), (80, 0)] {
            assert_eq!(usable(cols, rows), DEFAULT_WINDOW);
        }
        assert_eq!(usable(100, 9999), Window { cols: 100, rows: Window::MAX });
    }
}

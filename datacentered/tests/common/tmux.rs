//! A window of tmux: what a person sees who runs the program in a terminal.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{World, wait_until};

/// One window, with a command in it. Its tmux server is its own and goes with it.
#[derive(Debug)]
pub(crate) struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// Runs the program with these arguments in a window; behind it its exit code is printed.
    pub(crate) fn run(world: &World, name: &str, cols: u16, rows: u16, args: &[&str]) -> Self {
        let socket = world.path().join(format!("tmux-{name}"));
        let program = world.program();
        let mut words: Vec<String> = vec!["exec 2>&1;".into()];
        let socket_url = world.socket();
        for (variable, value) in program.get_envs() {
            words.push(match value {
                Some(value) => format!("export {}={};", quoted(variable), quoted(value)),
                None => format!("unset {};", quoted(variable)),
            });
        }
        words.push(format!("export DATACENTERED_HUB={};", quoted(socket_url.as_ref())));
        words.push(quoted(program.get_program()));
        words.extend(args.iter().map(|arg| quoted(arg.as_ref())));
        words.push("; echo \"ended with $?\"; exec sleep 1000".into());
        let line = words.join(" ");
        let tmux = Self { socket };
        let (cols, rows) = (cols.to_string(), rows.to_string());
        tmux.call(&["-u", "-f", "/dev/null", "new-session", "-d", "-x", &cols, "-y", &rows, &line]);
        tmux.call(&["set", "-g", "status", "off"]);
        tmux.call(&["resize-window", "-x", &cols, "-y", &rows]);
        tmux
    }

    fn call(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").arg("-S").arg(&self.socket).args(args);
        let output = command.output().expect("tmux is installed: scripts/setup.sh test");
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types text.
    pub(crate) fn text(&self, text: &str) {
        self.call(&["send-keys", "-l", text]);
    }

    /// Presses keys, such as `Enter` or `C-]`.
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.call(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    pub(crate) fn line(&self, text: &str) {
        self.text(text);
        self.keys(&["Enter"]);
    }

    /// Gives the window another size.
    pub(crate) fn resize(&self, cols: u16, rows: u16) {
        self.call(&["resize-window", "-x", &cols.to_string(), "-y", &rows.to_string()]);
    }

    /// What is on the screen, line by line, without blanks at their ends.
    pub(crate) fn screen(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.call(&["capture-pane", "-p"]).lines().map(|line| line.trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// Where the cursor is, from zero: column and row; and whether the other screen is shown.
    pub(crate) fn cursor(&self) -> String {
        self.call(&["display-message", "-p", "#{cursor_x},#{cursor_y} #{alternate_on}"]).trim().to_owned()
    }

    /// Waits until something is on the screen.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait(text, |screen| screen.iter().any(|line| line.contains(text)));
    }

    /// Waits until one line of the screen is exactly this.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) {
        self.wait(text, |screen| screen.iter().any(|line| line == text));
    }

    #[track_caller]
    fn wait(&self, what: &str, so: impl Fn(&[String]) -> bool) {
        let began = std::time::Instant::now();
        while !so(&self.screen()) {
            assert!(
                began.elapsed() < super::PATIENCE,
                "never on the screen: {what}\n{}",
                self.screen().join("\n")
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Waits until nothing has changed for a moment.
    pub(crate) fn wait_until_quiet(&self) {
        let mut before = (Vec::new(), String::new());
        wait_until("the screen is quiet", || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            let now = (self.screen(), self.cursor());
            std::mem::replace(&mut before, now.clone()) == now
        });
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").arg("-S").arg(&self.socket).arg("kill-server");
        // It may have ended by itself.
        command.output().ok();
    }
}

fn quoted(word: &std::ffi::OsStr) -> String {
    let word = Path::new(word).display().to_string();
    format!("'{}'", word.replace('\'', r"'\''"))
}

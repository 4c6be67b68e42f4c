//! Secrets on their way in: from a file, from standard input, or typed without being shown.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::failure::{Failure, Result};

/// Most bytes of a secret.
const LONGEST: u64 = 16 * 1024;

/// A token as it was given: `T`, `@FILE` or `-`.
pub(crate) fn token(given: &str) -> Result<String> {
    let token = match from_elsewhere(given)? {
        Some(token) => token,
        None => given.to_owned(),
    };
    if token.is_empty() { Err(Failure::usage("the token is empty")) } else { Ok(token) }
}

/// A password: from `@FILE` or `-`, else asked on the terminal (twice where `new`).
pub(crate) fn password(given: Option<&str>, prompt: &str, new: bool) -> Result<String> {
    if let Some(given) = given {
        return from_elsewhere(given)?.ok_or_else(|| {
            Failure::usage("a password on the command line can be read by everyone on this machine")
                .hint("give it as --password @FILE, or --password - for standard input")
        });
    }
    let password = ask_hidden(&format!("{prompt}: "))?;
    if new && ask_hidden("The same again: ")? != password {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(password)
}

/// What `@FILE` or `-` stand for.
fn from_elsewhere(given: &str) -> Result<Option<String>> {
    let text = match given.strip_prefix('@') {
        Some(file) => read(File::open(file))
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", Path::new(file).display())))?,
        None if given == "-" => read(Ok(io::stdin()))
            .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?,
        None => return Ok(None),
    };
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn read(source: io::Result<impl Read>) -> io::Result<String> {
    let mut text = String::new();
    source?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Asks a question on the terminal; the answer is shown as it is typed.
pub(crate) fn ask(question: &str) -> Result<String> {
    let mut terminal = terminal()?;
    answer(&mut terminal, question).map_err(no_answer)
}

fn ask_hidden(question: &str) -> Result<String> {
    let mut terminal = terminal()?;
    let shown = termios::tcgetattr(&terminal).map_err(|error| no_answer(error.into()))?;
    let mut hidden: Termios = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    termios::tcsetattr(&terminal, OptionalActions::Flush, &hidden)
        .map_err(|error| no_answer(error.into()))?;
    let answer = answer(&mut terminal, question);
    let restored = termios::tcsetattr(&terminal, OptionalActions::Flush, &shown);
    let answer = answer.map_err(no_answer)?;
    restored.map_err(|error| no_answer(error.into()))?;
    Ok(answer)
}

fn terminal() -> Result<File> {
    fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Failure::usage("there is no terminal to ask on")
            .hint("give the answer as an option instead: see --help")
    })
}

fn answer(terminal: &mut File, question: &str) -> io::Result<String> {
    terminal.write_all(question.as_bytes())?;
    let mut line = String::new();
    BufReader::new(terminal.take(LONGEST)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn no_answer(error: io::Error) -> Failure {
    Failure::usage(format!("cannot ask on the terminal: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_files() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("token");
        fs::write(&path, "dc_abc\n").expect("writes");
        let given = format!("@{}", path.display());
        assert_eq!(token(&given).expect("reads"), "dc_abc");
        assert_eq!(token("dc_x").expect("literal"), "dc_x");
        assert!(token("@/nowhere/at/all").is_err());
        assert_eq!(password(Some(&given), "", false).expect("reads"), "dc_abc");
    }

    #[test]
    fn a_password_never_stands_on_the_command_line() {
        let failure = password(Some("hunter2"), "", false).expect_err("refused");
        assert!(!failure.message.contains("hunter2"));
    }
}

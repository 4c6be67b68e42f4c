//! Reading the settings file, with the line of every mistake.

use std::io::Read as _;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::ConfigError;

/// The file's text; empty where there is no file.
pub(super) fn read(path: &Path, max: u64) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    let read = file.take(max + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > max {
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("larger than {max} bytes"),
        )));
    }
    Ok(text)
}

/// Reads the settings.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.get(..start).unwrap_or(text).matches('\n').count();
        ConfigError::File { path: path.to_owned(), line, message: error.message().trim().to_owned() }
    })
}

/// The line on which a setting such as `limits.sessions` stands, as far as it can be told; else the first.
pub(super) fn line_of(text: &str, key: &str) -> usize {
    let mut table = String::new();
    let mut table_line = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            table.clear();
            table.push_str(name.trim_end_matches(|c: char| c != ']').trim_matches(['[', ']', ' ']));
            if table == key {
                table_line = Some(index + 1);
            }
        } else if let Some((name, _)) = line.split_once('=') {
            let name = name.trim().trim_matches('"');
            let full = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
            if full == key {
                return index + 1;
            }
        }
    }
    table_line.unwrap_or(1)
}

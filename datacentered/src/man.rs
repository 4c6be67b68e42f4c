//! Man pages, made from the same definitions as the help: one for the program and one for each of its commands.
//!
//! It is a module without ties to the rest, because the agent's pages are made by it too (`datacentered-agent`,
//! `examples/man.rs`), and the small program for hosts shall not carry it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use clap::{Arg, Command};

/// A page: the name of its file and what stands in it.
#[derive(Debug)]
pub(crate) struct Page {
    /// Such as `datacentered-run.1`.
    pub(crate) file: String,
    /// In the language of man pages.
    pub(crate) text: String,
}

/// Every page of a program, itself first. Commands that help does not show have none.
pub(crate) fn pages(mut program: Command, section: &str) -> Vec<Page> {
    program.build();
    let mut pages = Vec::new();
    add(&mut program, section, None, &mut pages);
    pages
}

/// Writes every page of a program into a directory.
pub(crate) fn write(program: Command, section: &str, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for page in pages(program, section) {
        std::fs::write(directory.join(page.file), page.text)?;
    }
    Ok(())
}

fn add(command: &mut Command, section: &str, above: Option<&str>, pages: &mut Vec<Page>) {
    let name = command.get_name();
    let name = above.map_or_else(|| name.to_owned(), |above| format!("{above}-{name}"));
    let shown: Vec<String> = command
        .get_subcommands()
        .filter(|inner| is_shown(inner))
        .map(|inner| inner.get_name().to_owned())
        .collect();
    let text = text(command, &name, section);
    pages.push(Page { file: format!("{name}.{section}"), text });
    for inner in shown {
        if let Some(inner) = command.find_subcommand_mut(&inner) {
            add(inner, section, Some(&name), pages);
        }
    }
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn text(command: &mut Command, name: &str, section: &str) -> String {
    let usage = command.render_usage().to_string();
    let command = &*command;
    let version = env!("CARGO_PKG_VERSION");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let long = command.get_long_about().map_or_else(|| about.clone(), ToString::to_string);
    let mut page =
        format!(".TH \"{}\" \"{section}\" \"\" \"DataCentered {version}\" \"DataCentered\"\n", escape(name));
    section_of(&mut page, "NAME", &format!("{name} - {}", about.lines().next().unwrap_or_default()));
    page.push_str(".SH SYNOPSIS\n.nf\n");
    for line in usage.trim_start_matches("Usage:").lines().map(str::trim).filter(|line| !line.is_empty()) {
        line_of(&mut page, line);
    }
    page.push_str(".fi\n");
    section_of(&mut page, "DESCRIPTION", &long);
    let (places, options): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(|arg| !arg.is_hide_set()).partition(|arg| arg.is_positional());
    for (heading, arguments) in [("ARGUMENTS", places), ("OPTIONS", options)] {
        if !arguments.is_empty() {
            let _ = writeln!(page, ".SH {heading}");
        }
        for argument in arguments {
            argument_of(&mut page, argument);
        }
    }
    let mut inner = command.get_subcommands().filter(|inner| is_shown(inner)).peekable();
    if inner.peek().is_some() {
        page.push_str(".SH COMMANDS\n");
    }
    for inner in inner {
        let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, ".TP\n\\fB{}\\fR({section})", escape(&format!("{name}-{}", inner.get_name())));
        line_of(&mut page, &about);
    }
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        page.push_str(&after_help(&after.to_string()));
    }
    page
}

fn section_of(page: &mut String, heading: &str, text: &str) {
    let _ = writeln!(page, ".SH {heading}");
    for line in text.lines() {
        if line.is_empty() { page.push_str(".PP\n") } else { line_of(page, line) }
    }
}

/// One option or argument: how it is written, what it does, what it is where it is left out.
fn argument_of(page: &mut String, argument: &Arg) {
    let mut forms: Vec<String> = Vec::new();
    forms.extend(argument.get_short().map(|short| format!("-{short}")));
    forms.extend(argument.get_long().map(|long| format!("--{long}")));
    let value = argument.get_action().takes_values().then(|| {
        let names = argument.get_value_names().unwrap_or_default();
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    });
    let form = match (forms.join(", "), value) {
        (forms, None) => forms,
        (forms, Some(value)) if forms.is_empty() => value,
        (forms, Some(value)) => format!("{forms} {value}"),
    };
    let _ = writeln!(page, ".TP\n\\fB{}\\fR", escape(&form));
    let mut help =
        argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() && !argument.is_hide_possible_values_set() {
        let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        let _ = write!(help, " [possible values: {}]", names.join(", "));
    }
    let defaults = argument.get_default_values();
    if argument.get_action().takes_values() && !defaults.is_empty() && !argument.is_hide_default_value_set() {
        let defaults: Vec<_> = defaults.iter().map(|value| value.to_string_lossy()).collect();
        let _ = write!(help, " [default: {}]", defaults.join(" "));
    }
    for line in help.lines().filter(|line| !line.is_empty()) {
        line_of(page, line);
    }
}

fn line_of(page: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{}", escape(line));
}

/// What stands below the options: examples as they are typed, the rest as notes.
fn after_help(text: &str) -> String {
    let mut page = String::new();
    let mut noted = false;
    for part in text.split("\n\n") {
        if let Some(examples) = part.strip_prefix("Examples:\n") {
            page.push_str(".SH EXAMPLES\n.nf\n");
            for line in examples.lines() {
                line_of(&mut page, line);
            }
            page.push_str(".fi\n");
            noted = false;
        } else {
            page.push_str(if noted { ".PP\n" } else { ".SH NOTES\n" });
            for line in part.lines() {
                line_of(&mut page, line);
            }
            noted = true;
        }
    }
    page
}

/// A line that means itself.
fn escape(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_themselves() {
        assert_eq!(escape(".SH -o 'a\\b'"), "\\&.SH \\-o \\(aqa\\eb\\(aq");
        assert_eq!(
            after_help("Examples:\n  a --b\n\nOne\ntwo.\n\nThree."),
            ".SH EXAMPLES\n.nf\n  a \\-\\-b\n.fi\n.SH NOTES\nOne\ntwo.\n.PP\nThree.\n"
        );
    }
}

//! From TOML to rules; every mistake with its line.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::PolicyError;
use super::question::Kind;
use super::rules::{Action, Otherwise, Policy, Rule};
use super::window::Window;

/// Most rules of a policy.
const MAX_RULES: usize = 1024;

/// Most entries of one list of a rule.
const MAX_LIST: usize = 1024;

/// Longest entry of a list, in bytes.
const MAX_ENTRY: usize = 1024;

/// Longest reason, in bytes: it has to fit into the evidence of a job.
const MAX_REASON: usize = 200;

type Texts = Option<Spanned<Vec<Spanned<String>>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    // Not optional: an empty file, such as one that an editor has not written yet, has to be a mistake.
    default: Spanned<Action>,
    reason: Option<Spanned<String>>,
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    allow: Option<Spanned<Vec<Kind>>>,
    refuse: Option<Spanned<Vec<Kind>>>,
    users: Texts,
    commands: Texts,
    scripts: Option<bool>,
    env: Option<Spanned<Vec<Spanned<String>>>>,
    times: Texts,
    reason: Option<Spanned<String>>,
}

/// A mistake at a place in the text.
struct Mistake {
    at: usize,
    message: String,
}

impl Mistake {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// Reads a policy; `path` is for what it says.
pub(super) fn policy(path: &Path, text: &str) -> Result<Policy, PolicyError> {
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let wrong = |mistake: Mistake| PolicyError::Parse {
        path: path.to_owned(),
        line: line(mistake.at),
        message: mistake.message,
    };
    let file: FileText = toml::from_str(text).map_err(|error| {
        let message = match error.message() {
            "missing field `default`" => {
                "there is no default; write `default = \"allow\"` or `default = \"refuse\"`"
            }
            other => other,
        };
        wrong(Mistake::new(error.span().map_or(0, |span| span.start), message))
    })?;
    if let Some(first_over) = file.rule.get(MAX_RULES) {
        let message = format!("more than {MAX_RULES} rules; join some");
        return Err(wrong(Mistake::new(first_over.span().start, message)));
    }
    let default = Otherwise {
        line: line(file.default.span().start),
        action: *file.default.get_ref(),
        reason: reason(file.reason).map_err(wrong)?,
    };
    let rules = file.rule.into_iter().map(|rule| {
        let at = rule.span().start;
        read_rule(at, line(at), rule.into_inner()).map_err(wrong)
    });
    Ok(Policy { path: path.to_owned(), default, rules: rules.collect::<Result<_, _>>()? })
}

fn read_rule(at: usize, line: usize, rule: RuleText) -> Result<Rule, Mistake> {
    let (action, kinds) = match (rule.allow, rule.refuse) {
        (Some(kinds), None) => (Action::Allow, kinds),
        (None, Some(kinds)) => (Action::Refuse, kinds),
        (None, None) => {
            return Err(Mistake::new(
                at,
                "the rule does nothing; give it `allow = [...]` or `refuse = [...]`",
            ));
        }
        (Some(_), Some(refuse)) => {
            let message = "a rule either allows or refuses; make two of it, the first that matches decides";
            return Err(Mistake::new(refuse.span().start, message));
        }
    };
    if kinds.get_ref().is_empty() {
        return Err(Mistake::new(
            kinds.span().start,
            "the list is empty; name \"exec\", \"terminal\" or both",
        ));
    }
    if let (Action::Refuse, Some(env)) = (action, &rule.env) {
        let message = "`env` is for rules that allow: the variables that an allowed command may set";
        return Err(Mistake::new(env.span().start, message));
    }
    let times = match list(rule.times)? {
        None => None,
        Some(texts) => {
            let read = |text: Spanned<String>| {
                Window::parse(text.get_ref()).map_err(|message| Mistake::new(text.span().start, message))
            };
            Some(texts.into_iter().map(read).collect::<Result<_, _>>()?)
        }
    };
    Ok(Rule {
        line,
        action,
        kinds: kinds.into_inner(),
        users: plain(list(rule.users)?),
        commands: plain(list(rule.commands)?),
        scripts: rule.scripts,
        env: plain(list(rule.env)?),
        times,
        reason: reason(rule.reason)?,
    })
}

fn list(texts: Texts) -> Result<Option<Vec<Spanned<String>>>, Mistake> {
    let Some(texts) = texts else { return Ok(None) };
    let at = texts.span().start;
    let texts = texts.into_inner();
    if texts.is_empty() {
        return Err(Mistake::new(
            at,
            "an empty list matches nothing; leave the line out to match everything",
        ));
    }
    if texts.len() > MAX_LIST {
        return Err(Mistake::new(
            at,
            format!("the list has more than {MAX_LIST} entries; make two rules of it"),
        ));
    }
    for text in &texts {
        if text.get_ref().is_empty() || text.get_ref().len() > MAX_ENTRY {
            let message = format!("an entry has 1 to {MAX_ENTRY} bytes");
            return Err(Mistake::new(text.span().start, message));
        }
    }
    Ok(Some(texts))
}

fn plain(texts: Option<Vec<Spanned<String>>>) -> Option<Vec<String>> {
    texts.map(|texts| texts.into_iter().map(Spanned::into_inner).collect())
}

fn reason(text: Option<Spanned<String>>) -> Result<Option<String>, Mistake> {
    let Some(text) = text else { return Ok(None) };
    if text.get_ref().len() > MAX_REASON {
        let message = format!("the reason has more than {MAX_REASON} bytes; say it shorter");
        return Err(Mistake::new(text.span().start, message));
    }
    Ok(Some(text.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "default = \"allow\"\n\n[[rule]]\n";

    fn refused(text: &str) -> (usize, String) {
        match policy(Path::new("/p"), text) {
            Err(PolicyError::Parse { line, message, .. }) => (line, message),
            other => panic!("{other:?} for {text}"),
        }
    }

    #[test]
    fn mistakes_are_found_by_line() {
        for (text, line, words) in [
            ("", 1, "there is no default"),
            ("default = \"maybe\"\n", 1, "unknown variant `maybe`"),
            ("x\n", 1, ""),
            (&format!("{HEAD}refuse = [\"exec\"]\ncomands = [\"x\"]\n"), 5, "unknown field `comands`"),
            (&format!("{HEAD}refuse = [\"exec\",\n  \"guest\"]\n"), 5, "unknown variant `guest`"),
            (&format!("{HEAD}reason = \"x\"\n"), 3, "the rule does nothing"),
            (&format!("{HEAD}allow = [\"exec\"]\nrefuse = [\"exec\"]\n"), 5, "either allows or refuses"),
            (&format!("{HEAD}refuse = []\n"), 4, "the list is empty"),
            (&format!("{HEAD}refuse = [\"exec\"]\nusers = []\n"), 5, "leave the line out"),
            (&format!("{HEAD}refuse = [\"exec\"]\nusers = [\"a\",\n\"\"]\n"), 6, "1 to 1024 bytes"),
            (
                &format!("{HEAD}refuse = [\"exec\"]\ntimes = [\n \"mon 08:00-18:00\",\n \"mon 8-18\",\n]\n"),
                7,
                "`mon 8-18`",
            ),
            (&format!("{HEAD}refuse = [\"exec\"]\nenv = [\"A\"]\n"), 5, "`env` is for rules that allow"),
            (&format!("{HEAD}refuse = [\"exec\"]\nreason = \"{}\"\n", "x".repeat(201)), 5, "say it shorter"),
        ] {
            let (found, message) = refused(text);
            assert!(found == line && message.contains(words), "{text}\n{found}: {message}");
        }
    }

    #[test]
    fn rules_carry_the_lines_of_their_headers() {
        let text = format!("{HEAD}refuse = [\"exec\"]\n# two\n[[rule]]\n# three\nallow = [\"terminal\"]\n");
        let policy = policy(Path::new("/p"), &text).expect("is valid");
        assert_eq!(policy.rules.iter().map(|rule| rule.line).collect::<Vec<_>>(), [3, 6]);
        assert_eq!((policy.default.line, policy.len(), policy.is_empty()), (1, 2, false));
    }

    #[test]
    fn the_shipped_example_is_valid() {
        let example = include_str!("../../../../packaging/config/policy.toml");
        assert!(policy(Path::new("policy.toml"), example).expect("is valid").is_empty());
        let uncommented: String = example
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        assert!(policy(Path::new("policy.toml"), &uncommented).expect("is valid").len() >= 3);
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = policy(Path::new("/p"), &text);
        }
    }
}

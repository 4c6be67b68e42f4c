//! Selectors: which hosts a request is for.
//!
//! One selector is terms joined by commas. Bare words are names or globs and are alternatives; expressions are facts or
//! labels in the Kubernetes form and are joined by and: `web-*,db1,role=kvm` is (web-* or db1) and role=kvm. `all`
//! stands for every host. Several selectors are a union. The whole of it, for people: `docs/selectors.md`.

mod compare;
mod facts;
mod glob;
mod parse;

use std::collections::BTreeMap;

use datacentered_proto::ops::host::Facts;

use compare::{address_matches, compare_versions, is_address, quantity};
use facts::{Kind, Values};
pub(crate) use glob::glob_matches;
use parse::{parse_expression, parse_name, split_terms};

/// Longest selector, in bytes.
pub const MAX_SELECTOR: usize = 4096;

/// Most selectors in one request.
pub const MAX_SELECTORS: usize = 64;

/// Most terms in one selector.
const MAX_TERMS: usize = 256;

/// Why a text is not a selector, with where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector '{selector}': {problem}")]
pub struct InvalidSelector {
    selector: String,
    problem: String,
}

/// What a selector looks at.
#[derive(Debug, Clone, Copy)]
pub struct HostTraits<'a> {
    /// The host's name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its facts.
    pub facts: &'a Facts,
    /// Whether it is online.
    pub online: bool,
}

/// A parsed selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    names: Vec<NamePattern>,
    expressions: Vec<Expression>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NamePattern {
    All,
    Literal(String),
    Glob(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Expression {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Compare(Comparison, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Selector {
    /// Reads one selector.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let invalid =
            |problem: String| InvalidSelector { selector: text.chars().take(80).collect(), problem };
        if text.len() > MAX_SELECTOR {
            return Err(invalid(format!("longer than {MAX_SELECTOR} bytes")));
        }
        let terms = split_terms(text).map_err(invalid)?;
        if terms.len() > MAX_TERMS {
            return Err(invalid(format!("more than {MAX_TERMS} terms")));
        }
        let mut selector = Self { text: text.to_owned(), names: Vec::new(), expressions: Vec::new() };
        for term in terms {
            let term = term.trim();
            if term.is_empty() {
                return Err(invalid("empty term; write names, globs or expressions joined by commas".into()));
            }
            match parse_expression(term).map_err(invalid)? {
                Some(expression) => selector.expressions.push(expression),
                None => selector.names.push(parse_name(term).map_err(invalid)?),
            }
        }
        Ok(selector)
    }

    /// Whether it is one literal name and nothing else.
    pub fn literal(&self) -> Option<&str> {
        match (self.names.as_slice(), self.expressions.as_slice()) {
            ([NamePattern::Literal(name)], []) => Some(name),
            _ => None,
        }
    }

    /// Literal names in it that must exist for the selector to make sense.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            NamePattern::Literal(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Refuses what can match nothing: a key that is neither a fact nor a label of any host and looks like a slip of
    /// the finger, or a fact that is compared with what it never is.
    pub fn check(&self, is_label: impl Fn(&str) -> bool) -> Result<(), InvalidSelector> {
        let wrong = |expression: &Expression| expression.problem().filter(|_| !is_label(&expression.key));
        match self.expressions.iter().find_map(wrong) {
            Some(problem) => Err(InvalidSelector { selector: self.text.chars().take(80).collect(), problem }),
            None => Ok(()),
        }
    }

    /// Whether the host is selected.
    pub fn matches(&self, host: &HostTraits<'_>) -> bool {
        let named = self.names.is_empty()
            || self.names.iter().any(|pattern| match pattern {
                NamePattern::All => true,
                NamePattern::Literal(name) => name == host.name,
                NamePattern::Glob(glob) => glob_matches(glob, host.name),
            });
        named && self.expressions.iter().all(|expression| expression.matches(host))
    }
}

impl Expression {
    fn matches(&self, host: &HostTraits<'_>) -> bool {
        // Labels win: they are the administrator's words.
        if let Some(label) = host.labels.get(&self.key) {
            return self.test.of_text(Kind::Text, std::slice::from_ref(label));
        }
        let Some((name, kind)) = facts::known(&self.key) else { return self.test.of_nothing() };
        match facts::values(name, host) {
            None => self.test.of_nothing(),
            Some(Values::Texts(texts)) => self.test.of_text(kind, &texts),
            Some(Values::Numbers(numbers)) => self.test.of_numbers(&numbers),
        }
    }

    /// What is wrong with it where its key is no label.
    fn problem(&self) -> Option<String> {
        let wanted = match &self.test {
            Test::Exists | Test::Missing => &[],
            Test::In(values) | Test::NotIn(values) => values.as_slice(),
            Test::Compare(_, value) => std::slice::from_ref(value),
        };
        let Some((_, kind)) = facts::known(&self.key) else {
            let near = facts::near(&self.key);
            return (!near.is_empty()).then(|| {
                format!(
                    "'{}' is neither a fact nor a label of any host; near it are the facts {}",
                    self.key,
                    near.join(", ")
                )
            });
        };
        let ordered = matches!(self.test, Test::Compare(..));
        let unfit = |value: &&String| match kind {
            Kind::Text => false,
            Kind::Number => quantity(value).is_none(),
            Kind::Address => ordered || !is_address(value),
        };
        let value = wanted.iter().find(unfit)?;
        let value = value.escape_debug();
        Some(match kind {
            Kind::Address => format!(
                "'{}' is compared with addresses and networks, such as {}=10.0.0.0/8, not with '{value}'",
                self.key, self.key
            ),
            _ => format!("'{}' is a number, such as 8 or 64G; '{value}' is none", self.key),
        })
    }
}

impl Test {
    /// Of a host that has no such value.
    fn of_nothing(&self) -> bool {
        matches!(self, Self::Missing | Self::NotIn(_))
    }

    fn of_text(&self, kind: Kind, values: &[String]) -> bool {
        let same = |value: &String, wanted: &String| match kind {
            Kind::Address => address_matches(value, wanted),
            _ => value == wanted || wanted.contains('*') && glob_matches(wanted, value),
        };
        let any = |wanted: &Vec<String>| values.iter().any(|value| wanted.iter().any(|one| same(value, one)));
        match self {
            Self::Exists => true,
            Self::Missing => false,
            Self::In(wanted) => any(wanted),
            Self::NotIn(wanted) => !any(wanted),
            Self::Compare(comparison, wanted) => values.iter().any(|value| {
                comparison.holds(match (quantity(value), quantity(wanted)) {
                    // A label may carry a size; whole versions such as 12.10 are compared part by part.
                    (Some(value), Some(limit)) if wanted.ends_with(|c: char| c.is_ascii_alphabetic()) => {
                        value.cmp(&limit)
                    }
                    _ => compare_versions(value, wanted),
                })
            }),
        }
    }

    fn of_numbers(&self, values: &[u64]) -> bool {
        let any = |wanted: &[String]| {
            values.iter().any(|value| wanted.iter().any(|one| quantity(one) == Some(*value)))
        };
        match self {
            Self::Exists => true,
            Self::Missing => false,
            Self::In(wanted) => any(wanted),
            Self::NotIn(wanted) => !any(wanted),
            Self::Compare(comparison, wanted) => quantity(wanted)
                .is_some_and(|limit| values.iter().any(|value| comparison.holds(value.cmp(&limit)))),
        }
    }
}

impl Comparison {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests;

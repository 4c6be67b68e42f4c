//! Selectors: which hosts a request is for.
//!
//! One selector is terms joined by commas. Bare words are names or globs and are alternatives; expressions are facts or
//! labels in the Kubernetes form and are joined by and: `web-*,db1,role=kvm` is (web-* or db1) and role=kvm. `all`
//! stands for every host. Several selectors are a union.

use std::collections::BTreeMap;

use datacentered_proto::ops::host::Facts;

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
        let mut selector = Self { names: Vec::new(), expressions: Vec::new() };
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

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Result<Vec<&str>, String> {
    let mut terms = Vec::new();
    let mut depth = 0usize;
    let mut start = 0;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1).ok_or("a ')' without its '('")?,
            b',' if depth == 0 => {
                terms.push(text.get(start..index).unwrap_or_default());
                start = index + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err("a '(' without its ')'".into());
    }
    terms.push(text.get(start..).unwrap_or_default());
    Ok(terms)
}

fn parse_name(term: &str) -> Result<NamePattern, String> {
    if term == "all" || term == "*" {
        return Ok(NamePattern::All);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.*?[]:".contains(c);
    if let Some(wrong) = term.chars().find(|c| !plain(*c)) {
        return Err(format!("'{}' cannot stand in a name or glob", wrong.escape_debug()));
    }
    Ok(if term.contains(['*', '?']) {
        NamePattern::Glob(term.into())
    } else {
        NamePattern::Literal(term.into())
    })
}

fn check_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if key.is_empty() || !key.chars().all(plain) {
        return Err(format!("'{}' is not a label or fact", key.escape_debug()));
    }
    Ok(key.into())
}

fn parse_expression(term: &str) -> Result<Option<Expression>, String> {
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Some(Expression { key: check_key(key)?, test: Test::Missing }));
    }
    if let Some((head, list)) = term.split_once('(') {
        let list = list.strip_suffix(')').ok_or("text behind the ')'")?;
        let values: Vec<String> = list.split(',').map(|value| value.trim().to_owned()).collect();
        let head = head.trim();
        if let Some(key) = head.strip_suffix(" notin") {
            return Ok(Some(Expression { key: check_key(key)?, test: Test::NotIn(values) }));
        }
        if let Some(key) = head.strip_suffix(" in") {
            return Ok(Some(Expression { key: check_key(key)?, test: Test::In(values) }));
        }
        return Err("before '(' stands 'KEY in' or 'KEY notin'".into());
    }
    for (sign, comparison) in [
        ("!=", None),
        (">=", Some(Comparison::GreaterOrEqual)),
        ("<=", Some(Comparison::LessOrEqual)),
        ("==", None),
        ("=", None),
        (">", Some(Comparison::Greater)),
        ("<", Some(Comparison::Less)),
    ] {
        if let Some((key, value)) = term.split_once(sign) {
            let value = value.trim().to_owned();
            let test = match (sign, comparison) {
                (_, Some(comparison)) => Test::Compare(comparison, value),
                ("!=", _) => Test::NotIn(vec![value]),
                _ => Test::In(vec![value]),
            };
            return Ok(Some(Expression { key: check_key(key)?, test }));
        }
    }
    if let Some(key) = term.strip_suffix('?').filter(|key| !key.is_empty() && key.contains('.')) {
        return Ok(Some(Expression { key: check_key(key)?, test: Test::Exists }));
    }
    Ok(None)
}

/// The fact or label that a key names; labels win.
fn value_of(key: &str, host: &HostTraits<'_>) -> Option<String> {
    if let Some(label) = host.labels.get(key) {
        return Some(label.clone());
    }
    let facts = host.facts;
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    match key {
        "name" => text(host.name),
        "online" => Some(host.online.to_string()),
        "hostname" => text(&facts.hostname),
        "os" | "os.id" => text(&facts.os_id),
        "os.version" => text(&facts.os_version),
        "os.name" => text(&facts.os_name),
        "kernel" => text(&facts.kernel),
        "arch" => text(&facts.arch),
        "cpu.model" => text(&facts.cpu_model),
        "cpus" => Some(facts.cpus.to_string()),
        "memory" => Some(facts.memory_bytes.to_string()),
        "virtualisation" | "virt" => text(&facts.virtualisation),
        "agent.version" => text(&facts.agent_version),
        _ => None,
    }
}

impl Expression {
    fn matches(&self, host: &HostTraits<'_>) -> bool {
        let value = value_of(&self.key, host);
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(&value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(&value)),
            Test::Compare(comparison, wanted) => value.is_some_and(|value| {
                let order = compare_versions(&value, wanted);
                match comparison {
                    Comparison::Less => order.is_lt(),
                    Comparison::LessOrEqual => order.is_le(),
                    Comparison::Greater => order.is_gt(),
                    Comparison::GreaterOrEqual => order.is_ge(),
                }
            }),
        }
    }
}

/// Compares as version numbers: runs of digits by value, everything else by its bytes.
fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    fn parts(text: &str) -> Vec<(Option<u128>, &str)> {
        let mut out = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let length =
                if digits > 0 { digits } else { rest.bytes().take_while(|b| !b.is_ascii_digit()).count() };
            let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
            out.push((part.parse().ok(), part));
            rest = behind;
        }
        out
    }
    let (a, b) = (parts(a), parts(b));
    for ((number_a, text_a), (number_b, text_b)) in a.iter().zip(&b) {
        let order = match (number_a, number_b) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => text_a.cmp(text_b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// `*` is any run of characters, `?` any one. Linear in practice: one backtrack point.
pub(crate) fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(&byte) if byte == b'?' || Some(&byte) == name.get(n) => {
                g += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(selector: &str, name: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let facts = Facts { os_version: "12".into(), os_id: "debian".into(), cpus: 8, ..Facts::default() };
        let host = HostTraits { name, labels: &labels, facts: &facts, online: true };
        Selector::parse(selector).expect("parses").matches(&host)
    }

    #[test]
    fn names_are_alternatives_and_expressions_are_joined() {
        let kvm = &[("role", "kvm")];
        assert!(matches("all", "x", &[]));
        assert!(matches("web-*,db1", "web-7", &[]));
        assert!(matches("web-*,db1", "db1", &[]));
        assert!(!matches("web-*,db1", "db2", &[]));
        assert!(matches("web-*,db1,role=kvm", "db1", kvm));
        assert!(!matches("web-*,db1,role=kvm", "db1", &[]));
        assert!(matches("role=kvm", "anything", kvm));
        assert!(matches("region in (us, eu)", "x", &[("region", "eu")]));
        assert!(!matches("region in (us,eu)", "x", &[("region", "asia")]));
        assert!(matches("region notin (us,eu)", "x", &[]));
        assert!(matches("role!=kvm", "x", &[("role", "lxc")]));
        assert!(matches("!role", "x", &[]));
        assert!(matches("os.version>=12,os=debian,cpus>4", "x", &[]));
        assert!(!matches("os.version<9", "x", &[]));
        assert!(matches("os.version>9", "x", &[]));
        assert!(matches("online=true", "x", &[]));
        assert!(matches("w?b", "web", &[]) && !matches("w?b", "wb", &[]));
    }

    #[test]
    fn wrong_ones_say_what_is_wrong() {
        for bad in ["", ",", "a,,b", "a b", "x in us", "x (a)", "(", ")", "=a", "a$", "in (a)", "a in (b) c"]
        {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
        assert!(Selector::parse(&"a".repeat(MAX_SELECTOR + 1)).is_err());
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(compare_versions("9", "12").is_lt());
        assert!(compare_versions("1.10", "1.9").is_gt());
        assert!(compare_versions("12", "12.1").is_lt());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String) {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn a_glob_of_stars_matches_everything(name in "[a-z0-9-]{0,40}", stars in 1usize..5) {
            prop_assert!(glob_matches(&"*".repeat(stars), &name));
        }

        #[test]
        fn globs_agree_with_a_simple_model(glob in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn model(glob: &[u8], name: &[u8]) -> bool {
                match (glob.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => model(rest, name) || (!name.is_empty() && model(glob, &name[1..])),
                    (Some((b'?', g)), Some((_, n))) => model(g, n),
                    (Some((a, g)), Some((b, n))) => a == b && model(g, n),
                    _ => false,
                }
            }
            prop_assert_eq!(glob_matches(&glob, &name), model(glob.as_bytes(), name.as_bytes()));
        }
    }
}

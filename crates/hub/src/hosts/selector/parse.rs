//! From text to terms.

use super::{Comparison, Expression, NamePattern, Test};

/// Splits at commas outside parentheses.
pub(super) fn split_terms(text: &str) -> Result<Vec<&str>, String> {
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

pub(super) fn parse_name(term: &str) -> Result<NamePattern, String> {
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

pub(super) fn parse_expression(term: &str) -> Result<Option<Expression>, String> {
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
    if let Some(key) = term.strip_suffix(" exists") {
        return Ok(Some(Expression { key: check_key(key)?, test: Test::Exists }));
    }
    if let Some(key) = term.strip_suffix('?').filter(|key| !key.is_empty() && key.contains('.')) {
        return Ok(Some(Expression { key: check_key(key)?, test: Test::Exists }));
    }
    Ok(None)
}

//! Whether a selector names one host literally. Matching itself is the hub's.

/// The host that the selectors name literally: exactly one selector, and that one bare word.
///
/// Globs, expressions, several words and `all` choose hosts instead of naming one; the hub resolves those.
pub(crate) fn literal(selectors: &[String]) -> Option<&str> {
    let [selector] = selectors else { return None };
    let word = selector.trim();
    let bare = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@');
    (!word.is_empty() && word != "all" && word.chars().all(bare)).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(selectors: &[&str], expected: Option<&str>) {
        let selectors: Vec<String> = selectors.iter().map(|&s| s.to_owned()).collect();
        assert_eq!(literal(&selectors), expected, "{selectors:?}");
    }

    #[test]
    fn one_bare_word_is_literal() {
        check(&["web1"], Some("web1"));
        check(&[" web1 "], Some("web1"));
        check(&["node-3.rack.example.net"], Some("node-3.rack.example.net"));
        check(&["0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f"], Some("0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f"));
    }

    #[test]
    fn everything_else_chooses() {
        for selector in [
            "all",
            "",
            "web-*",
            "web?",
            "web[12]",
            "web1,db1",
            "web1,",
            "role=kvm",
            "region in (us,eu)",
            "os.version>=12",
            "os.version<12",
            "!role",
            "db1,role=kvm",
            "role!=kvm",
        ] {
            check(&[selector], None);
        }
        check(&["web1", "web2"], None);
        check(&["web1", "web1"], None);
        check(&[], None);
    }

    proptest! {
        #[test]
        fn what_has_an_operator_is_never_literal(left: String, right: String, op in "[=<>!*?,()\\[\\] ]") {
            // Blanks around the word do not count, so the operator stands between two letters.
            let selectors = [format!("{left}a{op}b{right}")];
            prop_assert_eq!(literal(&selectors), None);
        }
    }
}

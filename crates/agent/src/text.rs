//! Text of other programs, made fit for logs and tables.

/// Text fit for a terminal and a table: no control characters, no space around it, at most `max` bytes.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.trim().chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_taken_out_and_length_is_bounded() {
        assert_eq!(clean(" a\x1b[31mb\n\0c ", 64), "a[31mbc");
        assert_eq!(clean("ééé", 5), "éé");
    }

    proptest! {
        #[test]
        fn never_longer_and_never_with_controls(text: String, max in 0usize..64) {
            let out = clean(&text, max);
            prop_assert!(out.len() <= max && !out.chars().any(char::is_control));
        }
    }
}

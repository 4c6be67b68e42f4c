//! Globs over bytes: `*` is any bytes (also `/` and spaces), `?` one byte, all else itself.

/// Whether `glob` matches all of `text`. At most the product of their lengths in steps.
pub(super) fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    // Where to go on when what follows the last star did not fit.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (g, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_cross_everything() {
        assert!(matches(b"/sbin/*", b"/sbin/a/b c"));
        assert!(matches(b"rm *", b"rm -rf /"));
        assert!(!matches(b"rm *", b"rm"));
        assert!(matches(b"rm*", b"rm"));
        assert!(matches(b"py*n?", b"python3"));
        assert!(!matches(b"", b"x") && matches(b"", b""));
    }

    proptest! {
        #[test]
        fn agrees_with_a_simple_model(glob in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn model(glob: &[u8], text: &[u8]) -> bool {
                match (glob.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => model(rest, text) || (!text.is_empty() && model(glob, &text[1..])),
                    (Some((b'?', g)), Some((_, t))) => model(g, t),
                    (Some((a, g)), Some((b, t))) => a == b && model(g, t),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(glob.as_bytes(), text.as_bytes()), model(glob.as_bytes(), text.as_bytes()));
        }
    }
}

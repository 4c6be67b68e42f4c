//! Globs on names.

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

    proptest! {
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

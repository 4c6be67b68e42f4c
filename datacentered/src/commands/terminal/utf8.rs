//! Text out of bytes that come in pieces.

/// Keeps the beginning of a character until the rest of it has come. What is no text becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    begun: Vec<u8>,
}

impl Utf8 {
    /// The text that is whole now.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut rest = all.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    return text;
                }
                Err(error) => {
                    let (whole, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(whole));
                    let Some(len) = error.error_len() else {
                        self.begun = bad.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = bad.get(len..).unwrap_or_default();
                }
            }
        }
    }

    /// Nothing follows: a character that was begun stays one that nobody knows.
    pub(super) fn end(&mut self) -> String {
        let begun = std::mem::take(&mut self.begun);
        String::from_utf8_lossy(&begun).into_owned()
    }

    /// The beginning of a character whose rest has not come.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_is_the_same(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                "[aä€😀]{0,20}".prop_map(String::into_bytes),
            ],
            size in 1usize..6,
        ) {
            let mut utf8 = Utf8::default();
            let mut text = String::new();
            for piece in bytes.chunks(size) {
                text.push_str(&utf8.pass(piece));
                prop_assert!(utf8.begun().len() < 4);
            }
            text.push_str(&utf8.end());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}

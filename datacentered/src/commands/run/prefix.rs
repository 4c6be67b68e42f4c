//! Lines of many hosts: each behind its host's name, whole, and never more than a limit kept of a line without an end.

/// Longest line that is kept until its end comes; a longer one is cut into lines of this length.
const LONGEST_LINE: usize = 16 * 1024;

/// One output stream of one host.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes; appends the lines that are complete now to `out`, each behind `prefix`.
    pub(crate) fn push(&mut self, prefix: &[u8], mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            out.extend_from_slice(prefix);
            out.append(&mut self.partial);
            out.extend_from_slice(line);
            bytes = rest;
        }
        while self.partial.len() + bytes.len() > LONGEST_LINE {
            let (part, rest) = bytes.split_at(LONGEST_LINE - self.partial.len());
            out.extend_from_slice(prefix);
            out.append(&mut self.partial);
            out.extend_from_slice(part);
            out.push(b'\n');
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
    }

    /// The end of the stream: a line without an end gets one.
    pub(crate) fn finish(&mut self, prefix: &[u8], out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            out.extend_from_slice(prefix);
            out.append(&mut self.partial);
            out.push(b'\n');
        }
        self.partial = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(b"web1 | ", piece, &mut out);
        }
        lines.finish(b"web1 | ", &mut out);
        out
    }

    #[test]
    fn lines_are_put_together_before_they_are_printed() {
        assert_eq!(through(&[b"a", b"b\nc", b"\n\n"]), b"web1 | ab\nweb1 | c\nweb1 | \n");
        assert_eq!(through(&[b"no end"]), b"web1 | no end\n");
        assert_eq!(through(&[]), b"");
        assert_eq!(through(&[b"\xff\x00\n"]), b"web1 | \xff\x00\n");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for _ in 0..100 {
            lines.push(b"", &[b'x'; 4000], &mut out);
            assert!(lines.partial.len() <= LONGEST_LINE);
        }
        lines.finish(b"", &mut out);
        out.retain(|byte| *byte == b'x');
        assert_eq!(out.len(), 400_000);
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(0usize..400, 0..20),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            pieces.push(&text[from..]);
            prop_assert_eq!(through(&pieces), through(&[&text]));
        }

        #[test]
        fn nothing_but_prefixes_is_added(text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400)) {
            let (mut lines, mut out) = (Lines::default(), Vec::new());
            lines.push(b"", &text, &mut out);
            out.extend_from_slice(&lines.partial);
            prop_assert_eq!(out, text);
        }
    }
}

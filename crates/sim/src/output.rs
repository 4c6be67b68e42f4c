//! What simulated commands print: bytes that follow from where they stand, so that nothing has to be kept.

use std::sync::OnceLock;

use bytes::Bytes;

/// One line of it.
const LINE: &[u8; 64] = b"the quick brown fox jumps over the lazy dog, and does it again.\n";

/// Handed out at once at most, in bytes.
const PIECE: usize = 64 * 1024;

/// The bytes from offset `from` on; empty from `total` on.
pub(crate) fn piece(from: u64, total: u64) -> Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| Bytes::from(LINE.repeat(PIECE / LINE.len() + 1)));
    let begin = (from % LINE.len() as u64) as usize;
    let length = total.saturating_sub(from).min(PIECE as u64) as usize;
    pattern.slice(begin..begin + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_back_gets_the_same_bytes() {
        let total = 3 * PIECE as u64 + 17;
        let mut whole = Vec::new();
        while whole.len() < total as usize {
            whole.extend_from_slice(&piece(whole.len() as u64, total));
        }
        assert_eq!(whole.len() as u64, total);
        assert!(whole.chunks(LINE.len()).all(|line| LINE.starts_with(line)));
        for from in [0, 1, 63, 64, 70_001, total - 1] {
            let again = piece(from, total);
            assert_eq!(again, whole[from as usize..from as usize + again.len()]);
        }
        assert!(piece(total, total).is_empty() && piece(total + 5, total).is_empty());
    }
}

//! Which stream numbers may still be used on a link.

use std::collections::BTreeSet;

use datacentered_proto::Error;

/// Numbers that the other side has skipped and may still use, because answers overtake each other. Older ones count as used.
const MAX_SKIPPED: usize = 1024;

/// The stream numbers of one link: ours to give and the other side's to check.
#[derive(Debug)]
pub(crate) struct Numbers {
    next_own: u32,
    peer_parity: u32,
    peer_highest: Option<u32>,
    peer_skipped: BTreeSet<u32>,
}

impl Numbers {
    /// For the side that dialled (odd numbers) or the other (even).
    pub(crate) fn new(dialled: bool) -> Self {
        let (next_own, peer_parity) = if dialled { (1, 0) } else { (2, 1) };
        Self { next_own, peer_parity, peer_highest: None, peer_skipped: BTreeSet::new() }
    }

    /// A fresh number of ours; none when all two thousand million are used.
    pub(crate) fn own(&mut self) -> Option<u32> {
        let number = self.next_own;
        self.next_own = number.checked_add(2)?;
        Some(number)
    }

    /// Marks a number of the other side as used, or says why it cannot be used.
    pub(crate) fn take(&mut self, number: u32) -> Result<(), Error> {
        if number == 0 || number % 2 != self.peer_parity {
            return Err(Error::invalid(format!(
                "stream {number} is not the caller's to give: who dialled uses odd numbers, the other side even ones"
            )));
        }
        let first = if self.peer_parity == 0 { 2 } else { 1 };
        let used =
            || Error::invalid(format!("stream {number} was used before on this link; take a higher number"));
        match self.peer_highest {
            Some(highest) if number <= highest => {
                if !self.peer_skipped.remove(&number) {
                    return Err(used());
                }
            }
            highest => {
                let from = highest.map_or(first, |highest| highest.saturating_add(2));
                // Only the newest are remembered, so that a jump over millions costs nothing.
                let oldest = number.saturating_sub(2 * MAX_SKIPPED as u32);
                let from = if oldest > from { oldest } else { from };
                self.peer_skipped.extend((from..number).step_by(2));
                while self.peer_skipped.len() > MAX_SKIPPED {
                    self.peer_skipped.pop_first();
                }
                self.peer_highest = Some(number);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn own_numbers_are_odd_for_who_dialled() {
        let (mut dialled, mut accepted) = (Numbers::new(true), Numbers::new(false));
        assert_eq!((dialled.own(), dialled.own()), (Some(1), Some(3)));
        assert_eq!((accepted.own(), accepted.own()), (Some(2), Some(4)));
    }

    #[test]
    fn overtaking_is_fine_and_reuse_is_not() {
        let mut numbers = Numbers::new(false);
        for number in [5, 1, 3, 9, 7] {
            numbers.take(number).expect("fresh");
        }
        for number in [1, 3, 5, 7, 9, 0, 2, 4] {
            assert!(numbers.take(number).is_err(), "{number}");
        }
        numbers.take(u32::MAX).expect("a jump");
        assert!(numbers.peer_skipped.len() <= MAX_SKIPPED);
        assert!(numbers.take(11).is_err(), "too old");
        numbers.take(u32::MAX - 2).expect("just skipped");
    }

    proptest! {
        #[test]
        fn no_number_twice(sequence in proptest::collection::vec(0u32..200, 0..300)) {
            let mut numbers = Numbers::new(true);
            let mut seen = HashSet::new();
            for number in sequence {
                let fresh = number != 0 && number % 2 == 0 && seen.insert(number);
                prop_assert_eq!(numbers.take(number).is_ok(), fresh);
            }
        }
    }
}

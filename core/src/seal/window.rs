//! Which packet numbers were seen: what makes a recorded packet worthless.
//!
//! As the anti-replay window of IPsec ([RFC 6479]), over a range wide enough for packets that come
//! over links of different speed. Numbers below the window count as seen.
//!
//! [RFC 6479]: https://www.rfc-editor.org/rfc/rfc6479

use super::PacketNumber;

/// Packet numbers, up to the newest, that are told apart. At 10,000 packets a second, a link may be
/// slower than another by 400 ms before what it brings counts as seen.
const WIDTH: u64 = 4_096;

const WORDS: usize = (WIDTH / 64) as usize;

/// The packet numbers seen.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    newest: PacketNumber,
    bits: [u64; WORDS],
}

impl Window {
    /// A window in which everything up to `newest` counts as seen: what it looked like before a
    /// restart is not known any more.
    pub(crate) fn after(newest: PacketNumber) -> Self {
        let mut window = Self {
            newest,
            bits: [u64::MAX; WORDS],
        };
        let (word, bit) = Self::place(newest.0);
        if let Some(bits) = window.bits.get_mut(word) {
            // Those above the newest in its word are still to come.
            *bits = bit | (bit - 1);
        }
        window
    }

    fn place(number: u64) -> (usize, u64) {
        let word = usize::try_from(number / 64 % WORDS as u64).unwrap_or(0);
        (word, 1 << (number % 64))
    }

    /// Notes a number. Returns whether it was not seen before.
    pub(crate) fn note(&mut self, number: PacketNumber) -> bool {
        let (number, newest) = (number.0, self.newest.0);
        if number > newest {
            // A word is cleared when it is entered; what is above the newest in its own is clear.
            let (first, last) = (newest / 64 + 1, number / 64);
            for word in first..=last.min(first.saturating_add(WORDS as u64 - 1)) {
                if let Some(bits) = self.bits.get_mut(Self::place(word.saturating_mul(64)).0) {
                    *bits = 0;
                }
            }
            self.newest = PacketNumber(number);
        } else if newest - number >= WIDTH - 64 {
            return false;
        }
        let (word, bit) = Self::place(number);
        let Some(bits) = self.bits.get_mut(word) else {
            return false;
        };
        let unseen = *bits & bit == 0;
        *bits |= bit;
        unseen
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_new_once_and_only_within_the_window(
            start in 0u64..200,
            steps in proptest::collection::vec(0u64..20_000, 1..400),
        ) {
            let mut window = Window::after(PacketNumber(start));
            let mut seen: BTreeSet<u64> = (0..=start).collect();
            let mut newest = start;
            for number in steps {
                let expected = number > newest || (newest - number < WIDTH - 64 && !seen.contains(&number));
                prop_assert_eq!(window.note(PacketNumber(number)), expected, "{} after {}", number, newest);
                seen.insert(number);
                newest = newest.max(number);
            }
        }

        #[test]
        fn neighbours_are_told_apart(mut numbers in proptest::collection::vec(0u64..300, 1..300)) {
            let mut window = Window::after(PacketNumber(0));
            let mut seen = BTreeSet::from([0]);
            for number in numbers.drain(..) {
                prop_assert_eq!(window.note(PacketNumber(number)), seen.insert(number));
            }
        }
    }
}

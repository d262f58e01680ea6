//! The number two people compare to know that they talk to each other and to nobody in between.
//!
//! Made as [Signal's numeric fingerprint] is: each peer's key is hashed again and again, 30 digits
//! are taken of the result, and the two halves stand in the order of the peers' ids, so that both
//! see the same 60 digits.
//!
//! ```text
//!   h = BLAKE3("outlive safety number" ‖ version ‖ key), then 5,200 times h = BLAKE3(h ‖ key)
//!   half = six groups: each the next 5 bytes of h, as a big-endian number, modulo 100,000
//! ```
//!
//! Whoever wants to stand in between needs a key whose 30 digits are those of another: 2^100 tries,
//! each of them 5,200 hashes, so 2^112 steps. BLAKE3 serves as well here as Signal's SHA-512: what
//! counts is that nobody finds a second input, and this crate needs no second hash for it.
//!
//! [Signal's numeric fingerprint]: https://signal.org/blog/safety-number-updates/

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::PeerId;

const CONTEXT: &[u8] = b"outlive safety number";

/// Version of the way the number is made. Two devices with different versions show different
/// numbers, never the same by accident.
const VERSION: u8 = 1;

/// How often each half is hashed again: it makes every try of an attacker as much dearer.
const ROUNDS: u32 = 5_200;

/// Digits in a group.
const GROUP: usize = 5;

/// Groups in one peer's half.
const HALF_GROUPS: usize = 6;

/// Digits in one peer's half.
const HALF: usize = GROUP * HALF_GROUPS;

/// Why a text is no safety number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SafetyNumberError {
    /// It has not as many digits.
    #[error("a safety number has 60 digits, this one has {0}")]
    Length(usize),
    /// The character at this place is neither a digit nor space.
    #[error("character {0} of the safety number is no digit")]
    Character(usize),
}

/// What two people read to each other, or see on both screens: 60 digits in 12 groups.
///
/// ```
/// # use outlive_core::{Identity, SafetyNumber};
/// let [alice, bob] = [1, 2].map(|n| Identity::from_seed([n; 32]).peer_id());
/// let shown = SafetyNumber::of(alice, bob).to_string();
/// assert_eq!(shown.parse(), Ok(SafetyNumber::of(bob, alice)));
/// ```
#[derive(Clone, Copy, Eq)]
pub struct SafetyNumber([u8; 2 * HALF]);

impl SafetyNumber {
    /// The number of two peers, whichever comes first.
    #[must_use]
    pub fn of(one: PeerId, other: PeerId) -> Self {
        let mut digits = [0; 2 * HALF];
        let (first, second) = digits.split_at_mut(HALF);
        first.copy_from_slice(&half(one.min(other)));
        second.copy_from_slice(&half(one.max(other)));
        Self(digits)
    }

    /// The groups of five digits, in order.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        // The digits are ASCII, so no group is left out.
        self.0
            .chunks(GROUP)
            .filter_map(|group| std::str::from_utf8(group).ok())
    }
}

/// The digits of one peer.
fn half(peer: PeerId) -> [u8; HALF] {
    let key = peer.as_bytes();
    let mut hash = blake3::Hasher::new()
        .update(CONTEXT)
        .update(&[VERSION])
        .update(key)
        .finalize();
    for _ in 0..ROUNDS {
        hash = blake3::Hasher::new()
            .update(hash.as_bytes())
            .update(key)
            .finalize();
    }
    let mut digits = [b'0'; HALF];
    let numbers = hash.as_bytes().chunks_exact(GROUP);
    for (group, bytes) in digits.chunks_exact_mut(GROUP).zip(numbers) {
        let mut number = bytes
            .iter()
            .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        for digit in group.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    digits
}

/// Takes the same time wherever two numbers differ, so that it can stand behind an input that an
/// attacker may try again and again.
impl PartialEq for SafetyNumber {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, group) in self.groups().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{group}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafetyNumber({self})")
    }
}

impl FromStr for SafetyNumber {
    type Err = SafetyNumberError;

    /// Reads 60 digits, with white space between them as one likes.
    fn from_str(text: &str) -> Result<Self, SafetyNumberError> {
        let mut digits = [0; 2 * HALF];
        let mut count = 0;
        for (at, character) in text.chars().enumerate() {
            if character.is_whitespace() {
                continue;
            }
            let digit = character.is_ascii_digit().then_some(character as u8);
            let digit = digit.ok_or(SafetyNumberError::Character(at + 1))?;
            if let Some(place) = digits.get_mut(count) {
                *place = digit;
            }
            count += 1;
        }
        if count == digits.len() {
            Ok(Self(digits))
        } else {
            Err(SafetyNumberError::Length(count))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    fn peer(n: u8) -> PeerId {
        Identity::from_seed([n; 32]).peer_id()
    }

    #[test]
    fn both_see_the_same_number() {
        assert_eq!(
            SafetyNumber::of(peer(1), peer(2)),
            SafetyNumber::of(peer(2), peer(1))
        );
    }

    #[test]
    fn somebody_in_between_shows() {
        let right = SafetyNumber::of(peer(1), peer(2));
        assert_ne!(SafetyNumber::of(peer(1), peer(3)), right);
        assert_ne!(SafetyNumber::of(peer(3), peer(2)), right);
    }

    #[test]
    fn the_number_of_two_peers_never_changes() {
        // What every client has to agree on.
        let protocol = include_str!("../../docs/PROTOCOL.md");
        let number = SafetyNumber::of(peer(1), peer(2));
        let vector = format!(
            "
{}
{}
{number}
",
            peer(1),
            peer(2)
        );
        assert!(protocol.contains(&vector), "{vector}");
    }

    #[test]
    fn it_has_twelve_groups_of_five_digits() {
        let number = SafetyNumber::of(peer(1), peer(2));
        assert_eq!(number.groups().count(), 12);
        assert!(number.groups().all(|group| group.len() == 5));
        assert_eq!(number.to_string().len(), 71);
    }

    #[test]
    fn it_is_read_with_any_space_between_the_digits() {
        let number = SafetyNumber::of(peer(1), peer(2));
        let text = number.to_string();
        assert_eq!(text.replace(' ', "").parse(), Ok(number));
        assert_eq!(text.replace(' ', "\n ").parse(), Ok(number));
    }

    #[test]
    fn a_typo_says_where_it_is() {
        let text = SafetyNumber::of(peer(1), peer(2)).to_string();
        let parse = |text: &str| text.parse::<SafetyNumber>();
        assert_eq!(parse(&text[1..]), Err(SafetyNumberError::Length(59)));
        assert_eq!(
            parse(&format!("{text}1")),
            Err(SafetyNumberError::Length(61))
        );
        assert_eq!(
            parse(&text.replacen(' ', "-", 1)),
            Err(SafetyNumberError::Character(6))
        );
    }

    #[test]
    fn one_changed_digit_is_another_number() {
        let number = SafetyNumber::of(peer(1), peer(2));
        for at in 0..2 * HALF {
            let mut other = number;
            other.0[at] = if other.0[at] == b'9' { b'0' } else { b'9' };
            assert_ne!(number, other, "digit {at}");
        }
    }
}

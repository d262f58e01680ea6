//! Randomness as an input: a stream expanded from one seed.

use zeroize::Zeroizing;

use crate::seal::{Locator, Secret, StartId};
use crate::{EnvelopeId, Epoch, MessageId, ResumeId};

/// Random numbers from a 32-byte seed, by BLAKE3 in its extendable mode.
///
/// Whoever drives an engine draws the seed from the operating system, anew at every start of the
/// process; the same seed gives the same numbers, which is what makes a simulation repeatable.
///
/// The key is replaced at each draw, so what is in memory tells what will be drawn, and nothing of
/// what was ([fast key erasure](https://blog.cr.yp.to/20170723-random.html)).
// A copy would draw the same: only a search through all stories of a test goes on from one state in
// many ways.
#[cfg_attr(feature = "sabotage", derive(Clone))]
pub struct Entropy {
    key: Zeroizing<[u8; 32]>,
}

impl Entropy {
    /// The stream that `seed` stands for.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            key: Zeroizing::new(seed),
        }
    }

    /// Fills `bytes`.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        let mut reader = blake3::Hasher::new_keyed(&self.key)
            .update(b"outlive entropy")
            .finalize_xof();
        reader.fill(bytes);
        reader.fill(&mut *self.key);
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A secret key, or the seed of one.
    pub fn secret(&mut self) -> Secret {
        Secret::new(self.bytes())
    }

    /// A name for keys.
    pub fn locator(&mut self) -> Locator {
        Locator(u64::from_le_bytes(self.bytes()))
    }

    /// A name for this start of the process.
    pub fn start(&mut self) -> StartId {
        StartId(self.bytes())
    }

    /// A new epoch.
    pub fn epoch(&mut self) -> Epoch {
        Epoch(u64::from_le_bytes(self.bytes()))
    }

    /// A name for a message.
    pub fn message_id(&mut self) -> MessageId {
        MessageId(self.bytes())
    }

    /// A name for a Resume.
    pub fn resume_id(&mut self) -> ResumeId {
        ResumeId(u64::from_le_bytes(self.bytes()))
    }

    /// A number to count envelopes from, with room for more than anybody ever sends.
    pub fn envelope(&mut self) -> EnvelopeId {
        EnvelopeId(u64::from_le_bytes(self.bytes()) >> 1)
    }

    /// Eight bytes for a Ping.
    pub fn token(&mut self) -> [u8; 8] {
        self.bytes()
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_no_draw_repeats_another() {
        let (mut one, mut other) = (Entropy::from_seed([7; 32]), Entropy::from_seed([7; 32]));
        let drawn: Vec<[u8; 16]> = (0..64).map(|_| one.bytes()).collect();
        for (at, bytes) in drawn.iter().enumerate() {
            assert_eq!(*bytes, other.bytes::<16>());
            assert!(!drawn[..at].contains(bytes));
        }
    }

    #[test]
    fn what_was_drawn_can_not_be_computed_from_what_is_left() {
        let mut entropy = Entropy::from_seed([7; 32]);
        let drawn: [u8; 32] = entropy.bytes();
        let mut thief = Entropy {
            key: entropy.key.clone(),
        };
        assert_ne!(*entropy.key, [7; 32]);
        assert_ne!(*entropy.key, drawn);
        assert_ne!(thief.bytes(), drawn);
    }
}

//! Randomness as an input: a stream expanded from one seed.

use crate::seal::{Locator, Secret, StartId};
use crate::{Epoch, MessageId, ResumeId};

/// Random numbers from a 32-byte seed, by BLAKE3 in its extendable mode.
///
/// Whoever drives an engine draws the seed from the operating system, anew at every start of the
/// process; the same seed gives the same numbers, which is what makes a simulation repeatable.
#[derive(Clone)]
pub struct Entropy {
    reader: blake3::OutputReader,
}

impl Entropy {
    /// The stream that `seed` stands for.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            reader: blake3::Hasher::new_keyed(&seed)
                .update(b"outlive entropy")
                .finalize_xof(),
        }
    }

    /// Fills `bytes`.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.reader.fill(bytes);
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

//! What stands for a sender that the relay is not told of: a slot in the mailbox, and the token
//! that opens it.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{PeerId, seal::Secret};

/// Leave to put envelopes into a mailbox without saying from whom. The recipient draws it and gives
/// it to whom it likes; it names nobody. As text it is lower-case base32, 52 characters.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryToken(Secret);

impl DeliveryToken {
    /// The token with these bytes: 32 random ones.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }

    /// What the relay keeps of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(*blake3::hash(self.as_bytes()).as_bytes())
    }

    /// The token as text, for a contact. Who has it can fill the mailbox, as far as the relay's
    /// limits go.
    #[must_use]
    pub fn to_text(&self) -> String {
        BASE32_NOPAD.encode(self.as_bytes()).to_lowercase()
    }
}

impl fmt::Debug for DeliveryToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryToken(…)")
    }
}

/// The text is no delivery token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is no delivery token; one has 52 characters, a to z and 2 to 7")]
pub struct TokenError;

impl FromStr for DeliveryToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let alphabet = |c: char| matches!(c, 'a'..='z' | '2'..='7');
        if !text.chars().all(alphabet) {
            return Err(TokenError);
        }
        let decoded = BASE32_NOPAD.decode(text.to_uppercase().as_bytes());
        let bytes = <[u8; 32]>::try_from(decoded.map_err(|_| TokenError)?);
        Ok(Self::from_bytes(bytes.map_err(|_| TokenError)?))
    }
}

/// The BLAKE3 hash of a [`DeliveryToken`]: enough to know it again, not enough to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenHash(pub [u8; 32]);

/// Stands in a mailbox where a sender's id would: 32 random bytes that a sender draws once for each
/// recipient. It links the envelopes of one sender to each other, and to nobody's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub [u8; 32]);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD.encode(&self.0).to_lowercase();
        write!(f, "Slot({}…)", text.get(..8).unwrap_or_default())
    }
}

/// Under whose name envelopes are in a mailbox. A slot that has the bytes of a peer's id is another
/// sender than that peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sender {
    /// A peer that the relay authenticated.
    Peer(PeerId),
    /// Somebody with a token.
    Slot(Slot),
}

impl From<PeerId> for Sender {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_through_text_and_is_not_shown() {
        let token = DeliveryToken::from_bytes([7; 32]);
        let text = token.to_text();
        assert_eq!((text.len(), text.parse()), (52, Ok(token.clone())));
        assert_eq!(format!("{token:?}"), "DeliveryToken(…)");
        for wrong in ["", &text[1..], &text.to_uppercase(), &format!("{text}a")] {
            assert_eq!(wrong.parse::<DeliveryToken>(), Err(TokenError));
        }
    }
}

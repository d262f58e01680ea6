//! Who a peer is: an Ed25519 key pair, named by its public half.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Why a text or a run of bytes names no peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// A peer id in text has 52 characters.
    #[error("a peer id has 52 characters, this text has {0}; copy it again, all of it")]
    Length(usize),
    /// The character at this place is not of the base32 alphabet.
    #[error("character {0} of the peer id is none of a-z and 2-7; copy it again, all of it")]
    Character(usize),
    /// The bytes are no Ed25519 public key: a typo, most likely.
    #[error("this is no peer's public key: something in it is wrong; copy it again, all of it")]
    Key,
}

/// The signature does not belong to this peer and this statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature is not this peer's")]
pub struct BadSignature;

/// A peer: a device, named by its Ed25519 public key.
///
/// As text it is lower-case base32 ([RFC 4648]) without padding, 52 characters; so it is in formats that
/// people read, such as JSON, and in others the 32 bytes.
///
/// ```
/// # use outlive_core::{Identity, PeerId};
/// let peer = Identity::from_seed([7; 32]).peer_id();
/// assert_eq!(peer.to_string().parse::<PeerId>(), Ok(peer));
/// ```
///
/// [RFC 4648]: https://www.rfc-editor.org/rfc/rfc4648#section-6
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = Cow::<str>::deserialize(deserializer)?;
            text.parse().map_err(D::Error::custom)
        } else {
            // Not looked at, which takes longer than all else that is done to an envelope: one that is no
            // key names a mailbox that nobody can sign in at, and a session that nobody answers in.
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

impl PeerId {
    /// The peer with this public key.
    ///
    /// # Errors
    /// [`PeerIdError::Key`] if the bytes are no point of the curve, or one of small order, which
    /// anybody could sign for.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, PeerIdError> {
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(PeerIdError::Key),
        }
    }

    /// The public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks that this peer signed `statement`.
    ///
    /// # Errors
    /// [`BadSignature`] if it did not.
    pub fn verify(&self, statement: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(statement, &Signature::from_bytes(signature)))
            .map_err(|_| BadSignature)
    }

    /// The key for exchanges that belongs to this peer's signing key: the same point on the
    /// Montgomery form of the curve ([RFC 7748], section 4.1).
    ///
    /// [RFC 7748]: https://www.rfc-editor.org/rfc/rfc7748#section-4.1
    pub(crate) fn exchange_key(&self) -> [u8; 32] {
        // A `PeerId` is a point of the curve; one that were none would open nothing.
        VerifyingKey::from_bytes(&self.0)
            .map(|key| key.to_montgomery().to_bytes())
            .unwrap_or_default()
    }

    /// The first eight characters: enough for a log line, not for an address.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_lowercase())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({}…)", self.short())
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    /// Space around it is not part of it: it comes with what is copied.
    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let text = text.trim();
        let count = text.chars().count();
        if count != 52 {
            return Err(PeerIdError::Length(count));
        }
        let alphabet = |c: char| matches!(c, 'a'..='z' | '2'..='7');
        if let Some(wrong) = text.chars().position(|c| !alphabet(c)) {
            return Err(PeerIdError::Character(wrong + 1));
        }
        let decoded = BASE32_NOPAD
            .decode(text.to_uppercase().as_bytes())
            .map_err(|_| PeerIdError::Key)?;
        let bytes = <[u8; 32]>::try_from(decoded).map_err(|_| PeerIdError::Key)?;
        Self::from_bytes(bytes)
    }
}

/// The key pair of the local peer. Its secret half is wiped from memory when dropped and never
/// shown by `Debug`.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The identity with this 32-byte secret. Draw it from the operating system's randomness and
    /// keep it: who has it is this peer.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(&seed),
        }
    }

    /// The secret, for storing it.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.key.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.key.verifying_key().to_bytes())
    }

    /// The secret half of [`PeerId::exchange_key`].
    pub(crate) fn exchange_secret(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.key.to_scalar_bytes())
    }

    /// Signs `statement`. Callers put a text of their own before what they sign, so that a
    /// signature for one purpose is none for another.
    #[must_use]
    pub fn sign(&self, statement: &[u8]) -> [u8; 64] {
        self.key.sign(statement).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}…)", self.peer_id().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        Identity::from_seed([n; 32]).peer_id()
    }

    #[test]
    fn a_peer_id_survives_the_way_through_text() {
        for n in 0..50 {
            let text = peer(n).to_string();
            assert_eq!(text.len(), 52);
            assert_eq!(text.parse(), Ok(peer(n)));
        }
    }

    #[test]
    fn space_around_a_peer_id_is_none_of_it() {
        assert_eq!(format!(" {}\r\n", peer(1)).parse(), Ok(peer(1)));
    }

    #[test]
    fn a_peer_id_is_text_to_people_and_bytes_to_machines() {
        let json = serde_json::to_string(&peer(1)).unwrap();
        assert_eq!(json, format!("\"{}\"", peer(1)));
        assert_eq!(serde_json::from_str::<PeerId>(&json).unwrap(), peer(1));
        let nobody = BASE32_NOPAD.encode(&[0; 32]).to_lowercase();
        let refused = serde_json::from_str::<PeerId>(&format!("\"{nobody}\""));
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("no peer's public key")
        );
        let bytes = postcard::to_allocvec(&peer(1)).unwrap();
        assert_eq!(bytes, peer(1).as_bytes());
        assert_eq!(postcard::from_bytes::<PeerId>(&bytes), Ok(peer(1)));
    }

    #[test]
    fn a_typo_in_a_peer_id_says_where_it_is() {
        let text = peer(1).to_string();
        assert_eq!(text[1..].parse::<PeerId>(), Err(PeerIdError::Length(51)));
        assert_eq!(
            format!("{}!", &text[..51]).parse::<PeerId>(),
            Err(PeerIdError::Character(52))
        );
        assert_eq!(
            text.to_uppercase().parse::<PeerId>(),
            Err(PeerIdError::Character(1))
        );
    }

    #[test]
    fn a_key_of_small_order_is_nobody() {
        assert_eq!(PeerId::from_bytes([0; 32]), Err(PeerIdError::Key));
    }

    #[test]
    fn a_signature_counts_for_its_statement_and_peer_only() {
        let identity = Identity::from_seed([3; 32]);
        let signature = identity.sign(b"statement");
        assert_eq!(identity.peer_id().verify(b"statement", &signature), Ok(()));
        assert_eq!(
            identity.peer_id().verify(b"statemenT", &signature),
            Err(BadSignature)
        );
        assert_eq!(peer(4).verify(b"statement", &signature), Err(BadSignature));
    }

    #[test]
    fn debug_shows_no_secret() {
        let identity = Identity::from_seed([3; 32]);
        assert!(format!("{identity:?}").len() < 24);
    }
}

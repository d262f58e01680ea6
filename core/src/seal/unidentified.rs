//! A packet that does not say from whom it is to anybody but its recipient.
//!
//! ```text
//! packet  = kind | Noise N message
//! payload = sender packet              32, the rest
//! ```
//!
//! It travels over a connection to the relay that is nobody's, as in Signal's sealed sender; the
//! packet inside is sealed as ever, and proves who sent it. What names the sender here is a claim
//! until that packet opens.

use bytes::{BufMut, Bytes};

use super::{KIND_UNIDENTIFIED, OpenError, SealError, noise};
use crate::{Entropy, Identity, PeerId};

/// Bytes that this adds to a packet.
pub(crate) const UNIDENTIFIED_BYTES: usize = 1 + noise::UNIDENTIFIED_BYTES + 32;

/// Wraps a packet from `sender` so that only `recipient` sees from whom it is.
///
/// # Errors
/// [`SealError`] if it is larger than a packet may be.
pub fn wrap(
    sender: &PeerId,
    recipient: &PeerId,
    packet: &[u8],
    entropy: &mut Entropy,
) -> Result<Bytes, SealError> {
    let mut payload = Vec::with_capacity(packet.len() + 32);
    payload.put_slice(sender.as_bytes());
    payload.put_slice(packet);
    let message =
        noise::seal_unidentified(recipient, &entropy.secret(), &payload).map_err(|_| SealError)?;
    let mut wrapped = Vec::with_capacity(message.len() + 1);
    wrapped.put_u8(KIND_UNIDENTIFIED);
    wrapped.put_slice(&message);
    Ok(wrapped.into())
}

/// The claimed sender of a wrapped packet (with its kind byte), and the packet.
///
/// # Errors
/// [`OpenError`] if it was not wrapped for us, or names no peer.
pub fn unwrap(recipient: &Identity, wrapped: &[u8]) -> Result<(PeerId, Bytes), OpenError> {
    let (kind, message) = wrapped.split_first().ok_or(OpenError::Empty)?;
    if *kind != KIND_UNIDENTIFIED {
        return Err(OpenError::Kind(*kind));
    }
    let payload = noise::open_unidentified(recipient, message).map_err(|_| OpenError::Forged)?;
    let mut payload = Bytes::from(payload);
    let sender = payload
        .first_chunk::<32>()
        .and_then(|bytes| PeerId::from_bytes(*bytes).ok())
        .ok_or(OpenError::Forged)?;
    Ok((sender, payload.split_off(32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u8) -> Identity {
        Identity::from_seed([n; 32])
    }

    #[test]
    fn only_the_recipient_learns_who_sent_a_packet() {
        let (sender, recipient) = (identity(1).peer_id(), identity(2).peer_id());
        let mut entropy = Entropy::from_seed([3; 32]);
        let wrapped = wrap(&sender, &recipient, b"packet", &mut entropy).unwrap();
        assert_eq!(wrapped.len(), 6 + UNIDENTIFIED_BYTES);
        assert!(!wrapped.windows(32).any(|part| part == sender.as_bytes()));
        assert_eq!(
            unwrap(&identity(2), &wrapped),
            Ok((sender, Bytes::from("packet")))
        );
        assert_eq!(unwrap(&identity(1), &wrapped), Err(OpenError::Forged));
        for at in 0..wrapped.len() {
            let mut changed = wrapped.to_vec();
            changed[at] ^= 2;
            assert!(unwrap(&identity(2), &changed).is_err(), "byte {at}");
            assert!(unwrap(&identity(2), &wrapped[..at]).is_err());
        }
    }

    #[test]
    fn a_packet_of_any_size_can_be_wrapped() {
        let largest = crate::limits::PACKET_BYTES - UNIDENTIFIED_BYTES;
        let (sender, recipient) = (identity(1).peer_id(), identity(2).peer_id());
        let mut entropy = Entropy::from_seed([3; 32]);
        let wrapped = wrap(&sender, &recipient, &vec![0; largest], &mut entropy).unwrap();
        assert_eq!(wrapped.len(), crate::limits::PACKET_BYTES);
    }
}

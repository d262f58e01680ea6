//! A packet under keys that both peers have.
//!
//! ```text
//! packet = kind locator phase start number | sealed frames, tag
//!          1    8       4     8     8        (little-endian; the header is associated data)
//! ```
//!
//! The key of a packet is that of its phase, mixed with `start`: a name that a peer draws at each
//! start of its process. So no number is ever used twice under one key, not even by a store that
//! was restored from a backup or copied.

use bytes::{BufMut, Bytes};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};

use super::secret::Secret;
use super::{KIND_SEALED, Locator, OpenError, PacketNumber, Phase, StartId};

const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + 8 + 4 + 8 + 8;

/// Bytes that sealing adds to frames.
pub(crate) const SEALED_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// What stands readable before the sealed frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Under which keys the receiver finds it.
    pub(crate) locator: Locator,
    /// Which of their phases.
    pub(crate) phase: Phase,
    /// Which start of the sender's process.
    pub(crate) start: StartId,
    /// Its number: never used twice under one key.
    pub(crate) number: PacketNumber,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[..];
        rest.put_u8(KIND_SEALED);
        rest.put_u64_le(self.locator.0);
        rest.put_u32_le(self.phase.0);
        rest.put_slice(&self.start.0);
        rest.put_u64_le(self.number.0);
        bytes
    }

    /// Splits a packet into its header and the rest.
    ///
    /// # Errors
    /// [`OpenError::Short`] if it is shorter than a header and a tag.
    pub(crate) fn split(packet: &Bytes) -> Result<(Self, &[u8]), OpenError> {
        let (header, body) = packet
            .split_first_chunk::<HEADER_BYTES>()
            .filter(|(_, body)| body.len() >= TAG_BYTES)
            .ok_or(OpenError::Short(packet.len()))?;
        let [_, rest @ ..] = header;
        let (locator, rest) = rest.split_first_chunk().ok_or(OpenError::Empty)?;
        let (phase, rest) = rest.split_first_chunk().ok_or(OpenError::Empty)?;
        let (start, rest) = rest.split_first_chunk().ok_or(OpenError::Empty)?;
        let (number, _) = rest.split_first_chunk().ok_or(OpenError::Empty)?;
        let header = Self {
            locator: Locator(u64::from_le_bytes(*locator)),
            phase: Phase(u32::from_le_bytes(*phase)),
            start: StartId(*start),
            number: PacketNumber(u64::from_le_bytes(*number)),
        };
        Ok((header, body))
    }
}

/// The key of the packets of one phase and start.
pub(crate) fn packet_key(phase: &Secret, start: StartId) -> Secret {
    phase.derive(b"outlive packet key v1\0", &start.0)
}

/// The secret of a phase, from the chain at it.
pub(crate) fn phase_secret(chain: &Secret) -> Secret {
    chain.derive(b"outlive phase v1\0", &[])
}

/// The chain at the next phase. The one before can't be found from it.
pub(crate) fn next_chain(chain: &Secret) -> Secret {
    chain.derive(b"outlive next phase v1\0", &[])
}

fn cipher(key: &Secret) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.bytes().into())
}

/// As in Noise: four bytes of zero, then the number, little-endian.
pub(super) fn nonce(number: u64) -> Nonce {
    let mut nonce = Nonce::default();
    if let Some(place) = nonce.get_mut(4..) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    nonce
}

/// Seals frames under `key`, which is the one of the header's phase and start.
///
/// # Errors
/// [`SealError`](super::SealError) if there are more of them than the cipher takes, far beyond a
/// packet.
pub(crate) fn seal(key: &Secret, header: Header, frames: &[u8]) -> Result<Bytes, super::SealError> {
    let header_bytes = header.to_bytes();
    let mut packet = Vec::with_capacity(frames.len() + SEALED_BYTES);
    packet.put_slice(&header_bytes);
    packet.put_slice(frames);
    let body = packet.get_mut(HEADER_BYTES..).ok_or(super::SealError)?;
    let tag = cipher(key)
        .encrypt_inout_detached(&nonce(header.number.0), &header_bytes, body.into())
        .map_err(|_| super::SealError)?;
    packet.put_slice(&tag);
    Ok(packet.into())
}

/// The frames of a packet whose header was split off.
///
/// # Errors
/// [`OpenError::Forged`] if nobody with this key sealed it, or a byte of it was changed.
pub(crate) fn open(key: &Secret, header: Header, body: &[u8]) -> Result<Bytes, OpenError> {
    let (frames, tag) = body
        .split_last_chunk::<TAG_BYTES>()
        .ok_or(OpenError::Short(body.len()))?;
    let mut frames = frames.to_vec();
    cipher(key)
        .decrypt_inout_detached(
            &nonce(header.number.0),
            &header.to_bytes(),
            (&mut frames[..]).into(),
            &Tag::from(*tag),
        )
        .map_err(|_| OpenError::Forged)?;
    Ok(frames.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        locator: Locator(7),
        phase: Phase(1),
        start: StartId([3; 8]),
        number: PacketNumber(9),
    };

    #[test]
    fn a_packet_opens_only_as_it_was_sealed() {
        let key = packet_key(&phase_secret(&Secret::new([1; 32])), HEADER.start);
        let packet = seal(&key, HEADER, b"frames").unwrap();
        assert_eq!(packet.len(), 6 + SEALED_BYTES);
        let (header, body) = Header::split(&packet).unwrap();
        assert_eq!(header, HEADER);
        assert_eq!(open(&key, header, body).unwrap(), &b"frames"[..]);
        for at in 0..packet.len() {
            let mut bytes = packet.to_vec();
            bytes[at] ^= 0x10;
            let bytes = Bytes::from(bytes);
            let (header, body) = Header::split(&bytes).unwrap();
            // The kind has no place in the parsed header; whoever splits has looked at it.
            if at > 0 {
                assert_eq!(
                    open(&key, header, body),
                    Err(OpenError::Forged),
                    "byte {at}"
                );
            }
        }
        for length in 0..packet.len() {
            let cut = packet.slice(..length);
            if let Ok((header, body)) = Header::split(&cut) {
                assert_eq!(open(&key, header, body), Err(OpenError::Forged));
            }
        }
    }

    #[test]
    fn two_starts_of_a_process_have_no_key_in_common() {
        let phase = phase_secret(&Secret::new([1; 32]));
        assert_ne!(
            packet_key(&phase, StartId([1; 8])),
            packet_key(&phase, StartId([2; 8]))
        );
    }
}

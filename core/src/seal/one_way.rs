//! A packet sealed by itself, for a peer with whom there are no keys yet, or not any more.
//!
//! ```text
//! packet  = kind | Noise X message
//! payload = start number frames        8, 8 (little-endian), the rest
//! ```
//!
//! The number begins with the wall clock, as the timestamp of a WireGuard initiation does: even a
//! peer that lost everything else sends what is newer than all it ever sent, and a recorded packet
//! is known to be old. Where a clock went back, the packet counts as old, and the receiver begins a
//! handshake of its own, which proves that the sender is there.

use bytes::{BufMut, Bytes};

use super::{KIND_ONE_WAY, OpenError, PacketNumber, SealError, StartId, noise};
use crate::{Entropy, Identity, PeerId, WallTime};

const PREFIX_BYTES: usize = 8 + 8;

/// Bytes that sealing one way adds to frames.
pub(crate) const ONE_WAY_PACKET_BYTES: usize = 1 + noise::ONE_WAY_BYTES + PREFIX_BYTES;

/// Bits that count the packets of one millisecond.
const PER_MILLISECOND: u32 = 20;

/// Seals packets one by one.
#[derive(Debug)]
pub struct OneWay {
    start: StartId,
    next: PacketNumber,
}

impl OneWay {
    /// For a process that starts now.
    #[must_use]
    pub const fn new(start: StartId) -> Self {
        Self {
            start,
            next: PacketNumber(0),
        }
    }

    /// Seals `frames` from `identity` to `peer`, at `now`.
    ///
    /// # Errors
    /// [`SealError`] if they are more than a packet holds.
    pub fn seal(
        &mut self,
        identity: &Identity,
        peer: &PeerId,
        frames: &[u8],
        entropy: &mut Entropy,
        now: WallTime,
    ) -> Result<Bytes, SealError> {
        let next = self.next.0.max(now.0 << PER_MILLISECOND);
        self.next = PacketNumber(next.saturating_add(1));
        let mut payload = Vec::with_capacity(frames.len() + PREFIX_BYTES);
        payload.put_slice(&self.start.0);
        payload.put_u64_le(self.next.0);
        payload.put_slice(frames);
        let message = noise::seal_one_way(identity, peer, &entropy.secret(), &payload)
            .map_err(|_| SealError)?;
        let mut packet = Vec::with_capacity(message.len() + 1);
        packet.put_u8(KIND_ONE_WAY);
        packet.put_slice(&message);
        Ok(packet.into())
    }
}

/// An opened one-way packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedOneWay {
    /// The start of the sender's process.
    pub start: StartId,
    /// Its number.
    pub number: PacketNumber,
    /// The frames.
    pub frames: Bytes,
}

impl OpenedOneWay {
    /// When it was sealed, by the sender's clock.
    #[must_use]
    pub const fn sealed_at(&self) -> WallTime {
        WallTime(self.number.0 >> PER_MILLISECOND)
    }
}

/// Opens a one-way packet from `peer` (with its kind byte).
///
/// # Errors
/// [`OpenError`] if `peer` did not seal it for us.
pub fn open_one_way(
    identity: &Identity,
    peer: &PeerId,
    packet: &[u8],
) -> Result<OpenedOneWay, OpenError> {
    let (_, message) = packet.split_first().ok_or(OpenError::Empty)?;
    if packet.len() < ONE_WAY_PACKET_BYTES {
        return Err(OpenError::Short(packet.len()));
    }
    let payload = noise::open_one_way(identity, peer, message).map_err(|_| OpenError::Forged)?;
    let mut payload = Bytes::from(payload);
    if payload.len() < PREFIX_BYTES {
        return Err(OpenError::Short(packet.len()));
    }
    let prefix = payload.split_to(PREFIX_BYTES);
    let (start, number) = prefix.split_first_chunk().ok_or(OpenError::Empty)?;
    let number = number.first_chunk().ok_or(OpenError::Empty)?;
    Ok(OpenedOneWay {
        start: StartId(*start),
        number: PacketNumber(u64::from_le_bytes(*number)),
        frames: payload,
    })
}

//! Sealing: between two peers every packet is encrypted and authenticated, on every transport.
//!
//! ```text
//!   frames ─▶ keys shared?  yes ─▶ sealed packet   (kind 2)
//!                           no ──▶ one-way packet  (kind 3), with the handshake riding along
//! ```
//!
//! Keys belong to the session and live in its record, so a reconnect costs no handshake. They are
//! made by Noise IK, whose two messages travel as frames; until they exist a packet is sealed by
//! itself with Noise X. What opens says two things: who sent it, and whether it is *fresh*. A packet
//! that is not fresh may be a recorded one: of it only counts what is taken once whatever happens,
//! segments and handshakes. `docs/SECURITY.md` tells what this promises and what not,
//! `docs/PROTOCOL.md` the bytes.

pub(crate) mod association;
pub(crate) mod keys;
pub(crate) mod noise;
pub(crate) mod one_way;
pub(crate) mod packet;
mod primitives;
pub(crate) mod secret;
mod unidentified;
pub(crate) mod window;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use association::{Answer, Association, Chain, OldPhase};
pub use keys::{Keys, OpenedPacket, Pending};
pub use noise::{ONE_WAY, SHARED, UNIDENTIFIED};
pub use one_way::{OneWay, OpenedOneWay, open_one_way};
pub use secret::Secret;
pub use unidentified::{unwrap, wrap};

/// Header byte of a packet whose frames are readable: in tests and benchmarks only.
pub const KIND_PLAIN: u8 = 0x01;

/// Header byte of a packet under shared keys.
pub const KIND_SEALED: u8 = 0x02;

/// Header byte of a packet that was sealed by itself.
pub const KIND_ONE_WAY: u8 = 0x03;

/// Header byte of a packet around another, that hides from whom it is.
pub const KIND_UNIDENTIFIED: u8 = 0x04;

/// Bytes that sealing adds at most.
pub(crate) const OVERHEAD: usize = one_way::ONE_WAY_PACKET_BYTES + unidentified::UNIDENTIFIED_BYTES;

/// Names keys in the packets that are sealed under them. Drawn by the receiver of the packets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Locator(#[serde(with = "postcard::fixint::le")] pub u64);

impl std::fmt::Debug for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Locator({:016x})", self.0)
    }
}

/// Number of a phase of keys, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Phase(pub u32);

/// Number of a packet within a session, from 1. Grows for ever, across restarts too (I8).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PacketNumber(pub u64);

/// Random name of one start of a peer's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StartId(pub [u8; 8]);

/// Why a packet did not open. Nothing of it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No bytes at all.
    #[error("the packet is empty")]
    Empty,
    /// Fewer bytes than any packet of its kind has.
    #[error("the packet has {0} bytes, too few for its kind")]
    Short(usize),
    /// Sealed in a way this version does not know, or not at all.
    #[error("the packet is of kind {0:#04x}, which is not accepted here")]
    Kind(u8),
    /// Sealed under keys that are not here: one of both peers has lost them.
    #[error("the packet is sealed under keys that are not here; new ones are being agreed on")]
    UnknownKeys,
    /// Not sealed by the peer, or changed on its way.
    #[error("the packet was not sealed by the peer, or was changed on its way")]
    Forged,
}

/// The packet could not be sealed. Only for sizes no packet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the packet can't be sealed")]
pub struct SealError;

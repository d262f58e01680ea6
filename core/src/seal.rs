//! The seam every packet passes on its way in and out.
//!
//! What travels between two peers is a packet: a header byte that names how its body is sealed,
//! then the body. Today's only sealer leaves frames readable ([`Plain`]); encryption takes its
//! place here without the engine noticing.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Why a packet did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No bytes at all.
    #[error("the packet is empty")]
    Empty,
    /// Sealed in a way this version does not know.
    #[error("the packet is of kind {0:#04x}, which is unknown here")]
    Kind(u8),
}

/// Turns frames into packets and packets into frames.
pub trait Sealer: Send {
    /// The packet that carries `frames`.
    fn seal(&mut self, frames: &[u8]) -> Bytes;

    /// The frames that `packet` carries.
    ///
    /// # Errors
    /// [`OpenError`] if it does not open; nothing of it may then be used.
    fn open(&mut self, packet: Bytes) -> Result<Bytes, OpenError>;

    /// Bytes a packet has beyond its frames.
    fn overhead(&self) -> usize;
}

/// Header byte of a packet whose frames are readable.
pub const KIND_PLAIN: u8 = 0x01;

/// The sealer that seals nothing: frames behind one header byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Sealer for Plain {
    fn seal(&mut self, frames: &[u8]) -> Bytes {
        let mut packet = BytesMut::with_capacity(frames.len() + 1);
        packet.put_u8(KIND_PLAIN);
        packet.put_slice(frames);
        packet.freeze()
    }

    fn open(&mut self, packet: Bytes) -> Result<Bytes, OpenError> {
        match packet.first() {
            None => Err(OpenError::Empty),
            Some(&KIND_PLAIN) => Ok(packet.slice(1..)),
            Some(&other) => Err(OpenError::Kind(other)),
        }
    }

    fn overhead(&self) -> usize {
        1
    }
}

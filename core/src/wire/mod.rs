//! The wire format: frames in packets between two peers, messages between a peer and its relay.
//!
//! Everything is [postcard]: integers are little-endian base-128 varints, byte strings and lists
//! carry their length in front, an option is a byte 0 or 1 and then its value. `docs/PROTOCOL.md`
//! tells it byte by byte. Nothing here panics or allocates beyond the input's size, whatever the
//! bytes (I9).
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

pub mod file;
pub mod frame;
pub mod packet;
pub(crate) mod padding;
pub mod relay;
pub mod request;
mod sign_in;
pub mod signal;
mod unidentified;

use thiserror::Error;

/// Why bytes are no packet, frame or relay message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end in the middle of a value, or a value is not what its type allows.
    #[error("{what} does not decode: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What the decoder said.
        reason: postcard::Error,
    },
    /// A frame kind that a peer must understand, and we don't.
    #[error("frame kind {0} is unknown and not optional; the peer speaks a newer version")]
    UnknownFrame(u8),
    /// A frame's body is shorter or longer than its length says.
    #[error("{0} has a wrong length")]
    Length(&'static str),
    /// Something is larger than the protocol allows.
    #[error("{what} has {size} bytes or items, {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A value that no honest peer sends.
    #[error("{0}")]
    Invalid(&'static str),
}

impl WireError {
    pub(crate) const fn malformed(what: &'static str) -> impl Fn(postcard::Error) -> Self {
        move |reason| Self::Malformed { what, reason }
    }
}

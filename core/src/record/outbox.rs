//! A segment that the peer has not acknowledged.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Record;
use crate::{Digest, MessageId, TransferId, WallTime};

/// A segment in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRecord {
    /// The message it belongs to.
    pub id: MessageId,
    /// Which segment of the message, from 0.
    pub index: u32,
    /// How many segments the message has.
    pub count: u32,
    /// The channel's tally before the message's first segment.
    pub before: Tally,
    /// The channel's tally up to and with this segment.
    pub tally: Tally,
    /// When the message was sent.
    pub sent: WallTime,
    /// When it expires.
    pub expires: WallTime,
    /// Whether it is still to be delivered.
    pub state: OutboxState,
    /// Its payload; empty once the message has ended, and only the beginning of one that is
    /// elsewhere.
    pub payload: Bytes,
}

/// What has gone through a channel up to some position. Kept with each segment, so that the
/// position of an acknowledgement is enough to go on from, however much it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The sum over all segments.
    pub digest: Digest,
    /// Bytes of their payloads. A tombstone may count for more than its segment had.
    pub bytes: u64,
}

impl Tally {
    /// The tally after one more segment of `bytes` bytes.
    #[must_use]
    pub fn with(self, id: MessageId, index: u32, bytes: usize) -> Self {
        Self {
            digest: self.digest.with(id, index),
            bytes: self.bytes.saturating_add(bytes as u64),
        }
    }
}

impl OutboxRecord {
    /// The record with all of its payload in it, once `content` was read from where it says.
    #[must_use]
    pub fn filled(self, content: &[u8]) -> Self {
        let payload = [&self.payload[..], content].concat().into();
        Self {
            state: OutboxState::Live,
            payload,
            ..self
        }
    }

    /// The tombstone of segment `index` of the same message.
    #[must_use]
    pub fn tombstone(&self, index: u32) -> Self {
        let mut tally = self.before;
        for earlier in 0..=index {
            tally = tally.with(self.id, earlier, crate::limits::SEGMENT_BYTES);
        }
        Self {
            index,
            tally,
            state: OutboxState::Tombstone,
            payload: Bytes::new(),
            ..self.clone()
        }
    }

    /// Whether this is its message's last segment.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.index.saturating_add(1) >= self.count
    }
}

/// Whether a segment is still to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboxState {
    /// It is.
    Live,
    /// It is not: the peer is told to skip it. Stays in the outbox until the peer has.
    Tombstone,
    /// It is, and the rest of its payload is not here but in the file of a transfer. Whoever drives
    /// the engine puts it in when it reads the record.
    External {
        /// Whose file.
        transfer: TransferId,
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
}

impl Record for OutboxRecord {
    const WHAT: &'static str = "a segment in the outbox";
}

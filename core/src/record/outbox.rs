//! A segment that the peer has not acknowledged.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Record;
use crate::limits::{MESSAGE_SEGMENTS, SEGMENT_BYTES};
use crate::{Digest, MessageId, Position, StoreTime, TransferId, WallTime};

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
    pub expires: StoreTime,
    /// Whether it is still to be delivered.
    pub state: OutboxState,
    /// The key under which it is sent once, as its [`OnceRecord`](super::OnceRecord) is kept.
    pub once: Option<[u8; 32]>,
    /// Its payload; empty once the message has ended, and only the beginning of one that is
    /// elsewhere.
    pub payload: Bytes,
}

/// Bytes in a row of a file that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Whose file.
    pub transfer: TransferId,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
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
    /// The segments of a message whose payload goes on in `extent`, from the first on, and which
    /// part of that is the content of each.
    pub(crate) fn segments(&self, extent: Extent) -> impl Iterator<Item = (Self, Extent)> {
        let (mut beginning, mut tally, mut done) = (self.payload.clone(), self.before, 0);
        (0..self.count.min(MESSAGE_SEGMENTS)).map(move |index| {
            let payload = std::mem::take(&mut beginning);
            tally = tally.with(self.id, index, payload.len());
            let room = (SEGMENT_BYTES as u64).saturating_sub(payload.len() as u64);
            let part = Extent {
                offset: extent.offset.saturating_add(done),
                length: room.min(extent.length.saturating_sub(done)),
                ..extent
            };
            done = done.saturating_add(part.length);
            let segment = Self {
                index,
                tally,
                payload,
                ..*self
            };
            (segment, part)
        })
    }

    /// What this record, found at `at`, says of the segment at `position`, if it does.
    pub(crate) fn of(&self, at: Position, position: Position) -> Option<Self> {
        match self.state {
            OutboxState::External(extent) => {
                let index = position.0.checked_sub(self.first(at).0)?;
                let mut segments = self.segments(extent);
                segments
                    .nth(usize::try_from(index).ok()?)
                    .map(|(segment, _)| segment)
            }
            OutboxState::Live | OutboxState::Tombstone => (at == position).then(|| self.clone()),
        }
    }

    /// The position of its message's first segment, if this one is at `at`.
    pub(crate) const fn first(&self, at: Position) -> Position {
        at.minus(self.index as u64)
    }

    /// The tombstone of segment `index` of the same message.
    #[must_use]
    pub fn tombstone(&self, index: u32) -> Self {
        let mut tally = self.before;
        for earlier in 0..=index {
            tally = tally.with(self.id, earlier, SEGMENT_BYTES);
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
    /// It is, and the rest of its message's payload is not here but in a file. The record stands for
    /// all segments of the message, in the place of the last one.
    External(Extent),
}

impl Record for OutboxRecord {
    const WHAT: &'static str = "a segment in the outbox";
}

//! A segment that arrived and waits for others: for earlier ones, or for the rest of its message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Record, RecordError, decode};
use crate::{Digest, MessageId, Seq};

/// A waiting segment, or the word that some will never come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentRecord<P = Bytes> {
    /// A segment.
    Data {
        /// The message it belongs to.
        id: MessageId,
        /// Which segment of the message, from 0.
        index: u32,
        /// How many segments the message has.
        count: u32,
        /// Whether it may have come before under another epoch.
        redelivered: bool,
        /// Its payload.
        payload: P,
    },
    /// From here up to and with `last` nothing will come.
    Skip {
        /// The last of them.
        last: Seq,
        /// The sum over them.
        digest: Digest,
    },
    /// A segment of which the rest is not here but in the file that it is a part of. Whoever drives
    /// the engine writes it down so in place of [`Data`](Self::Data), once the file has the rest.
    Placed {
        /// The message it belongs to.
        id: MessageId,
        /// Which segment of the message, from 0.
        index: u32,
        /// How many segments the message has.
        count: u32,
        /// Whether it may have come before under another epoch.
        redelivered: bool,
        /// The beginning of its payload.
        beginning: P,
        /// Bytes of the rest.
        placed: u32,
    },
}

impl SegmentRecord {
    /// Reads a stored value. What it has of a payload stays where it is in that.
    ///
    /// # Errors
    /// [`RecordError`] if the bytes are not such a record.
    pub fn from_shared(value: &Bytes) -> Result<Self, RecordError> {
        let record: SegmentRecord<&[u8]> = decode(Self::WHAT, Self::FORMAT, value)?;
        Ok(match record {
            SegmentRecord::Data {
                id,
                index,
                count,
                redelivered,
                payload,
            } => Self::Data {
                id,
                index,
                count,
                redelivered,
                payload: value.slice_ref(payload),
            },
            SegmentRecord::Skip { last, digest } => Self::Skip { last, digest },
            SegmentRecord::Placed {
                id,
                index,
                count,
                redelivered,
                beginning,
                placed,
            } => Self::Placed {
                id,
                index,
                count,
                redelivered,
                beginning: value.slice_ref(beginning),
                placed,
            },
        })
    }
}

impl Record for SegmentRecord {
    const WHAT: &'static str = "a waiting segment";
}

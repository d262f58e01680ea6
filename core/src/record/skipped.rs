//! A message the app gave up on.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Record;
use crate::limits::{SKIP_REASON_BYTES, SKIPPED_BYTES};
use crate::{Epoch, MessageId, Position, Seq, WallTime};

/// Number of a skipped message on its channel, from 0. Never reused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SkipNumber(pub u64);

/// What is kept of a message that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedRecord {
    /// The message.
    pub id: MessageId,
    /// Its place in the inbox.
    pub position: Position,
    /// The sender's epoch under which it came.
    pub epoch: Epoch,
    /// The seq of its last segment.
    pub last: Seq,
    /// When it was complete here.
    pub received: WallTime,
    /// When it was skipped.
    pub skipped: WallTime,
    /// How often it was handed to the app.
    pub attempts: u32,
    /// Why it was skipped, as the app said.
    pub reason: String,
    /// Bytes of its payload.
    pub bytes: u64,
    /// How the payload begins.
    pub head: Bytes,
}

impl SkippedRecord {
    /// Shortens the reason and the payload to what is kept of them.
    #[must_use]
    pub fn shortened(self) -> Self {
        let end = |(at, character): (usize, char)| at + character.len_utf8();
        let ends = self.reason.char_indices().map(end);
        let end = ends.take_while(|end| *end <= SKIP_REASON_BYTES).last();
        let kept = self.reason.get(..end.unwrap_or(0));
        Self {
            reason: kept.unwrap_or_default().to_owned(),
            // A copy: the head would keep the whole payload in memory.
            head: Bytes::copy_from_slice(self.head.get(..SKIPPED_BYTES).unwrap_or(&self.head)),
            ..self
        }
    }
}

impl Record for SkippedRecord {
    const WHAT: &'static str = "the record of a skipped message";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let record = SkippedRecord {
            id: MessageId([1; 16]),
            position: Position(1),
            epoch: Epoch(1),
            last: Seq(1),
            received: WallTime(1),
            skipped: WallTime(2),
            attempts: 3,
            reason: format!("a{}", "\u{20ac}".repeat(SKIP_REASON_BYTES)),
            bytes: 1 << 20,
            head: Bytes::from(vec![7; 1 << 20]),
        };
        let short = record.clone().shortened();
        assert_eq!(short.reason.len(), SKIP_REASON_BYTES);
        assert!(record.reason.starts_with(&short.reason));
        assert_eq!((short.head.len(), short.bytes), (SKIPPED_BYTES, 1 << 20));
        assert_eq!(short.clone().shortened(), short);
    }
}

//! How often the app had a message in hand, and what it gave up on.
//!
//! The first time a message is handed out costs no write. Every further time is written down before
//! the app has the message (I4), so that a message on which the app crashes shows how often it was
//! tried.

use bytes::Bytes;

use super::Engine;
use crate::limits::SKIPPED_RECORDS;
use crate::record::{InboxRecord, Key, Record, SkipNumber, SkippedRecord};
use crate::{ChannelId, Now, Position};

/// A message the app gives up on.
#[derive(Clone, Copy, Debug)]
pub struct Skipped<'a> {
    /// Its record; the payload in it is not needed.
    pub record: &'a InboxRecord,
    /// Its payload, as far as it is in the inbox.
    pub payload: &'a Bytes,
    /// Bytes of all of it.
    pub bytes: u64,
    /// How often the app had it in hand.
    pub attempts: u32,
    /// Why it gives up.
    pub reason: &'a str,
}

impl Engine {
    /// As [`hand`](Self::hand), for the `attempts`-th time. The app may have the message only when
    /// the batch that the next [`poll`](Self::poll) asks for is written.
    pub fn hand_again(
        &mut self,
        channel: ChannelId,
        position: Position,
        record: &InboxRecord,
        attempts: u32,
    ) -> bool {
        let here = self.hand(channel, position, record);
        if here {
            let key = Key::Inbox(self.peer, channel, position).to_bytes();
            let record = InboxRecord {
                attempts,
                ..record.clone()
            };
            self.writes.batch().put(key, record.to_bytes());
        }
        here
    }

    /// The app gives up on a message that it has in hand: it is committed, and in the same batch a
    /// record of it is written. Nothing happens if the app has it not.
    pub fn skip(&mut self, channel: ChannelId, position: Position, skipped: Skipped<'_>, now: Now) {
        let bytes = skipped.bytes;
        if self.hands.hold(skipped.record.epoch, channel, position)
            && let Some(inbox) = self.live.inboxes.get_mut(&channel)
        {
            let number = inbox.skip;
            inbox.skip = SkipNumber(number.0.saturating_add(1));
            let record = SkippedRecord {
                id: skipped.record.id,
                position,
                epoch: skipped.record.epoch,
                last: skipped.record.last,
                received: skipped.record.received,
                skipped: now.wall,
                attempts: skipped.attempts,
                reason: skipped.reason.to_owned(),
                bytes,
                head: skipped.payload.clone(),
            };
            let key = |number| Key::Skipped(self.peer, channel, SkipNumber(number)).to_bytes();
            let batch = self.writes.batch();
            batch.put(key(number.0), record.shortened().to_bytes());
            if let Some(oldest) = number.0.checked_sub(SKIPPED_RECORDS) {
                batch.delete(key(oldest));
            }
        }
        self.commit(channel, position, skipped.record, bytes, now);
    }
}

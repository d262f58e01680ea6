//! A message that arrived and that the app has not committed.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Gap, Record};
use crate::{Epoch, MessageId, Seq, WallTime};

/// A message in the inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRecord {
    /// The message.
    pub id: MessageId,
    /// The sender's epoch under which it came.
    pub epoch: Epoch,
    /// The seq of its last segment.
    pub last: Seq,
    /// What was missing between the message before it, of the same epoch, and this one.
    pub gap: Option<Gap>,
    /// Whether it may have come before under another epoch.
    pub redelivered: bool,
    /// Number of the process start in which it came. After a restart it may have been in the app's
    /// hands before.
    pub start: u32,
    /// How often it was in the app's hands, from the second time on; 0 before. The first time is
    /// not written down.
    pub attempts: u32,
    /// When it was complete here.
    pub received: WallTime,
    /// Its payload.
    pub body: InboxBody,
}

/// Where the payload of a message is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InboxBody {
    /// Here.
    Inline(Bytes),
    /// In that many segments of their own, the last of which is the message's last; so a large
    /// payload is written once.
    Segments(u32),
}

impl InboxRecord {
    /// For the how-manieth time the app gets it now, when `before` tells whether it may have had it
    /// in hand already.
    #[must_use]
    pub fn attempt(&self, before: bool) -> u32 {
        self.attempts.max(u32::from(before)).saturating_add(1)
    }
}

impl Record for InboxRecord {
    const WHAT: &'static str = "a message in the inbox";
}

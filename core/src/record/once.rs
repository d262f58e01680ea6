//! What a `send_once` key stands for.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::{ChannelId, MessageId, Position};

/// The message that was sent under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnceRecord {
    /// The message.
    pub id: MessageId,
    /// Its channel.
    pub channel: ChannelId,
    /// Its first segment in the outbox.
    pub first: Position,
    /// One past its last segment.
    pub end: Position,
}

impl OnceRecord {
    /// The name under which a key is kept: keys may be of any length.
    #[must_use]
    pub fn hash(key: &[u8]) -> [u8; 32] {
        *blake3::hash(key).as_bytes()
    }
}

impl Record for OnceRecord {
    const WHAT: &'static str = "the record of an idempotent send";
}

//! What a `send_once` key stands for.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Record;
use crate::transport::Refusal;
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
    /// How it ended, if it did before it was delivered.
    pub ended: Option<Ending>,
}

/// Why a message ended before it was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ending {
    /// Its time was over.
    #[error("the message expired before it was delivered")]
    Expired,
    /// The app took it back.
    #[error("the message was taken back")]
    Cancelled,
    /// A relay refused it for good.
    #[error("the message was refused: {0}")]
    Refused(Refusal),
    /// What was to be sent lies in a file that is gone, or is not what it was.
    #[error("the file that the message is part of is gone or has changed")]
    Unreadable,
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

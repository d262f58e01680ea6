//! Files on their way: what each side remembers of a transfer until it is over.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::Position;
use crate::wire::file::{FileInfo, StopReason};

/// A file that is being sent. Its content stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendingFileRecord {
    /// Where it lies.
    pub path: String,
    /// What the peer was told of it.
    pub info: FileInfo,
    /// When it was last changed, in nanoseconds since 1970, as of when it was offered.
    pub modified: i128,
    /// The position of its first message.
    pub first: Position,
    /// One past the position of its last.
    pub end: Position,
    /// Set when it was given up, until nothing of it is left in the outbox.
    pub stopped: Option<StopReason>,
    /// Whether the peer knows that it was given up, or will hear it from the outbox.
    pub told: bool,
}

/// A file that is being received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivingFileRecord {
    /// What the peer told of it.
    pub info: FileInfo,
    /// The directory it is for.
    pub directory: String,
    /// Where its parts are put until it is whole.
    pub part: String,
    /// What it is called once it is, from just before that.
    pub whole: Option<String>,
}

impl Record for SendingFileRecord {
    const WHAT: &'static str = "a file that is being sent";
}

impl Record for ReceivingFileRecord {
    const WHAT: &'static str = "a file that is being received";
}

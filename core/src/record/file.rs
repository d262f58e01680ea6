//! Files on their way: what each side remembers of a transfer until it is over.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::wire::file::{FileInfo, StopReason};
use crate::{Epoch, Position};

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
    /// Whether it is still to arrive.
    pub state: SendingState,
}

/// Whether a file is to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendingState {
    /// The peer has yet to say how it ended.
    Going {
        /// The peer's epoch that was heard of last when the file began.
        asked: Option<Epoch>,
    },
    /// It was given up. Kept until nothing of it is left in the outbox, and the peer knows.
    Stopped {
        /// Why.
        reason: StopReason,
        /// Whether the peer knows, or will hear it from the outbox.
        told: bool,
    },
    /// All of it has come, and what the peer knew of it may be lost. The peer was asked, and has yet to
    /// say how it ended.
    Asked {
        /// The peer's epoch that was heard of last by then.
        heard: Option<Epoch>,
        /// One past the position of the question.
        end: Position,
    },
}

impl SendingState {
    /// Why it was given up, if it was.
    #[must_use]
    pub const fn stopped(&self) -> Option<StopReason> {
        match self {
            Self::Going { .. } | Self::Asked { .. } => None,
            Self::Stopped { reason, .. } => Some(*reason),
        }
    }
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
    /// Whether it is whole.
    pub state: ReceivingState,
}

/// How far a file has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceivingState {
    /// Parts of it are to come.
    Coming,
    /// It is whole and was checked, and is about to be renamed to this path. Something else may lie
    /// there.
    Naming(String),
    /// It was received under this path. What became of it since is none of our concern.
    Received(String),
}

impl Record for SendingFileRecord {
    const WHAT: &'static str = "a file that is being sent";
}

impl Record for ReceivingFileRecord {
    const WHAT: &'static str = "a file that is being received";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> FileInfo {
        FileInfo {
            name: "a".to_owned(),
            size: 1,
            hash: [9; 32],
        }
    }

    /// What earlier versions wrote in place of a state: an optional reason, and whether the peer
    /// knows it.
    #[test]
    fn a_file_that_an_earlier_version_was_sending_goes_on() {
        let earlier: [(&[u8], _); 3] = [
            (&[0, 0], SendingState::Going { asked: None }),
            (&[1, 0, 0], stopped(false)),
            (&[1, 0, 1], stopped(true)),
        ];
        for (tail, state) in earlier {
            let record = SendingFileRecord {
                path: "/a".to_owned(),
                info: info(),
                modified: 1,
                first: Position(1),
                end: Position(2),
                state,
            };
            assert!(record.to_bytes().ends_with(&[&[1, 2], tail].concat()));
        }
    }

    const fn stopped(told: bool) -> SendingState {
        let reason = StopReason::Declined;
        SendingState::Stopped { reason, told }
    }

    /// What earlier versions wrote in place of a state: an optional path.
    #[test]
    fn a_file_that_an_earlier_version_was_receiving_goes_on() {
        let earlier: [(&[u8], _); 2] = [
            (&[0], ReceivingState::Coming),
            (&[1, 2, b'/', b'a'], ReceivingState::Naming("/a".to_owned())),
        ];
        for (tail, state) in earlier {
            let record = ReceivingFileRecord {
                info: info(),
                directory: "/".to_owned(),
                part: "/p".to_owned(),
                state,
            };
            assert!(
                record
                    .to_bytes()
                    .ends_with(&[&[2, b'/', b'p'], tail].concat())
            );
        }
    }
}

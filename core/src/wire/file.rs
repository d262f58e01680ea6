//! Files: what the messages of [`ChannelId::FILES`](crate::ChannelId::FILES) and
//! [`ChannelId::FILE_REPLIES`](crate::ChannelId::FILE_REPLIES) hold.
//!
//! ```text
//! message = version kind transfer body    version, kind: u8, transfer: 16 bytes
//! ```
//!
//! The sender says Begin, then Parts that follow each other from offset 0 to the end of the file, or
//! Stop; the receiver says Done or Stop, on the channel of replies. A kind that is not known is no
//! error: the message is committed and passed over, so that later versions can say more. What
//! follows a body other than that of a Part is left for later versions to use and skipped.

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::WireError;
use crate::TransferId;
use crate::limits::{FILE_BYTES, FILE_NAME_BYTES};

/// The version of the messages.
pub const VERSION: u8 = 1;

/// One message about a file.
#[derive(Clone, PartialEq, Eq)]
pub enum FileMessage {
    /// A file comes.
    Begin(TransferId, FileInfo),
    /// A part of it.
    Part {
        /// Of which file.
        transfer: TransferId,
        /// Where in the file it belongs.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The rest of it will not come, or is not wanted.
    Stop(TransferId, StopReason),
    /// All of it is there, and is what was promised.
    Done(TransferId),
}

/// What is known of a file before it comes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// What its sender calls it. Not to be trusted: it may hold anything.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// The BLAKE3 hash of its content.
    pub hash: [u8; 32],
}

/// Why a file is not sent or taken to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum StopReason {
    /// The receiver does not want it.
    #[error("the receiver does not want it")]
    Declined,
    /// One of both has changed its mind.
    #[error("it was called off")]
    Cancelled,
    /// The file is gone at its sender, or is not what it was when it was offered.
    #[error("it is gone at its sender, or has changed since it was offered; send it again")]
    Changed,
    /// What came is not what was promised.
    #[error("what came is not what was promised")]
    Corrupt,
    /// The receiver can't keep it.
    #[error("the receiver can't keep it")]
    Failed,
    /// Its time was over, or a relay refused it for good.
    #[error("it could not be delivered in time; send it again")]
    Expired,
    /// A reason that this version does not know.
    #[error("the peer stopped it, for a reason that this version does not know")]
    Other,
}

impl StopReason {
    /// The number that names it on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Declined => 1,
            Self::Cancelled => 2,
            Self::Changed => 3,
            Self::Corrupt => 4,
            Self::Failed => 5,
            Self::Expired => 6,
            Self::Other => 0,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Declined,
            2 => Self::Cancelled,
            3 => Self::Changed,
            4 => Self::Corrupt,
            5 => Self::Failed,
            6 => Self::Expired,
            _ => Self::Other,
        }
    }
}

const BEGIN: u8 = 1;
const PART: u8 = 2;
const STOP: u8 = 3;
const DONE: u8 = 4;

fn head(kind: u8, transfer: TransferId) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind];
    bytes.extend_from_slice(&transfer.0);
    bytes
}

/// What stands before the bytes of a part.
#[must_use]
pub fn part_head(transfer: TransferId, offset: u64) -> Bytes {
    let mut bytes = head(PART, transfer);
    bytes.put_u64_le(offset);
    bytes.into()
}

impl FileMessage {
    /// The transfer it is about.
    #[must_use]
    pub const fn transfer(&self) -> TransferId {
        match self {
            Self::Begin(transfer, _) | Self::Stop(transfer, _) | Self::Done(transfer) => *transfer,
            Self::Part { transfer, .. } => *transfer,
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            // Serialising into a growing vector can't fail for these types; an empty message would
            // be found out as malformed, never taken for another.
            Self::Begin(transfer, info) => postcard::to_extend(info, head(BEGIN, *transfer))
                .unwrap_or_default()
                .into(),
            Self::Part {
                transfer,
                offset,
                bytes,
            } => [&part_head(*transfer, *offset)[..], &bytes[..]]
                .concat()
                .into(),
            Self::Stop(transfer, reason) => {
                let mut bytes = head(STOP, *transfer);
                bytes.push(reason.number());
                bytes.into()
            }
            Self::Done(transfer) => head(DONE, *transfer).into(),
        }
    }

    /// Reads a message. None if it is of a kind that a later version knows.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are no message of this version, or tell of a file that is larger
    /// or has a longer name than the protocol allows.
    pub fn decode(bytes: &Bytes) -> Result<Option<Self>, WireError> {
        let (kind, rest) = match &bytes[..] {
            [VERSION, kind, rest @ ..] => (*kind, rest),
            [VERSION] | [] => return Err(WireError::Length("a message about a file")),
            [_, ..] => return Err(WireError::Invalid("the file is of another version")),
        };
        let (transfer, rest) = rest
            .split_first_chunk::<16>()
            .ok_or(WireError::Length("a message about a file"))?;
        let transfer = TransferId(*transfer);
        Ok(Some(match kind {
            BEGIN => {
                let (info, _) = postcard::take_from_bytes::<FileInfo>(rest)
                    .map_err(WireError::malformed("the beginning of a file"))?;
                info.check()?;
                Self::Begin(transfer, info)
            }
            PART => {
                let (offset, content) = rest
                    .split_first_chunk::<8>()
                    .ok_or(WireError::Length("a part of a file"))?;
                Self::Part {
                    transfer,
                    offset: u64::from_le_bytes(*offset),
                    bytes: bytes.slice_ref(content),
                }
            }
            STOP => {
                let reason = rest.first().ok_or(WireError::Length("the end of a file"))?;
                Self::Stop(transfer, StopReason::from_number(*reason))
            }
            DONE => Self::Done(transfer),
            _ => return Ok(None),
        }))
    }
}

impl FileInfo {
    /// Whether it may be said: it is no larger than the protocol allows.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] tells what is.
    pub fn check(&self) -> Result<(), WireError> {
        if self.name.len() > FILE_NAME_BYTES {
            return Err(WireError::TooLarge {
                what: "the name of a file",
                size: self.name.len(),
                limit: FILE_NAME_BYTES,
            });
        }
        if self.size > FILE_BYTES {
            return Err(WireError::TooLarge {
                what: "a file",
                size: usize::try_from(self.size).unwrap_or(usize::MAX),
                limit: usize::try_from(FILE_BYTES).unwrap_or(usize::MAX),
            });
        }
        Ok(())
    }
}

// Names and contents stay out of logs.

impl std::fmt::Debug for FileInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileInfo({} bytes)", self.size)
    }
}

impl std::fmt::Debug for FileMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Begin(transfer, info) => write!(f, "Begin({transfer}, {info:?})"),
            Self::Part {
                transfer,
                offset,
                bytes,
            } => write!(f, "Part({transfer}, {} bytes at {offset})", bytes.len()),
            Self::Stop(transfer, reason) => write!(f, "Stop({transfer}, {reason:?})"),
            Self::Done(transfer) => write!(f, "Done({transfer})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSFER: TransferId = TransferId([7; 16]);

    fn info(name: &str, size: u64) -> FileInfo {
        FileInfo {
            name: name.to_owned(),
            size,
            hash: [9; 32],
        }
    }

    fn messages() -> Vec<FileMessage> {
        vec![
            FileMessage::Begin(TRANSFER, info("bridge.jpeg", 300)),
            FileMessage::Part {
                transfer: TRANSFER,
                offset: 1 << 40,
                bytes: Bytes::from_static(b"content"),
            },
            FileMessage::Stop(TRANSFER, StopReason::Changed),
            FileMessage::Done(TRANSFER),
        ]
    }

    #[test]
    fn a_message_survives_the_way_through_bytes() {
        for message in messages() {
            assert_eq!(FileMessage::decode(&message.to_bytes()), Ok(Some(message)));
        }
    }

    #[test]
    fn a_part_of_a_message_or_a_flipped_byte_is_never_a_panic() {
        for message in messages() {
            let whole = message.to_bytes();
            for end in 0..whole.len() {
                let _ = FileMessage::decode(&whole.slice(..end));
                let mut flipped = whole.to_vec();
                flipped[end] ^= 0xff;
                let _ = FileMessage::decode(&flipped.into());
            }
            for end in 0..18 {
                assert!(FileMessage::decode(&whole.slice(..end)).is_err());
            }
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_passed_over() {
        let later = [&[VERSION, 99][..], &[0; 16]].concat();
        assert_eq!(FileMessage::decode(&later.into()), Ok(None));
    }

    #[test]
    fn a_reason_of_a_later_version_is_a_reason_all_the_same() {
        let later = [&[VERSION, STOP][..], &[7; 16], &[200]].concat();
        let expected = FileMessage::Stop(TRANSFER, StopReason::Other);
        assert_eq!(FileMessage::decode(&later.into()), Ok(Some(expected)));
    }

    #[test]
    fn a_file_beyond_the_limits_is_an_error() {
        let long = "n".repeat(FILE_NAME_BYTES + 1);
        for info in [info(&long, 1), info("n", FILE_BYTES + 1)] {
            let message = FileMessage::Begin(TRANSFER, info);
            let decoded = FileMessage::decode(&message.to_bytes());
            assert!(matches!(decoded, Err(WireError::TooLarge { .. })));
        }
    }

    #[test]
    fn neither_a_name_nor_a_content_gets_into_logs() {
        for message in messages() {
            let shown = format!("{message:?}");
            assert!(!shown.contains("bridge") && !shown.contains("content"));
        }
    }
}

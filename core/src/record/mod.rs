//! What a session is on disk: keys and values in the [`Store`](crate::store::Store).
//!
//! Everything a session needs to go on is in one record ([`Session`]) that is written in the same
//! batch as the segments it speaks of; so what is read back is always of one piece. Every value
//! begins with a format byte.

mod clock;
mod file;
mod gap;
mod inbox;
mod key;
mod mailboxes;
mod once;
mod outbox;
mod segment;
mod session;
mod skipped;
mod trust;
mod unidentified;
mod waiting;

pub use clock::{BootId, ClockRecord, MachineTime};
pub use file::{ReceivingFileRecord, ReceivingState, SendingFileRecord, SendingState};
pub use gap::Gap;
pub use inbox::{InboxBody, InboxRecord};
pub use key::{Key, KeyError, prefix_range};
pub use mailboxes::{MailboxesRecord, OwnMailbox, OwnMailboxesRecord, Told};
pub use once::{Ending, OnceRecord};
pub use outbox::{Extent, OutboxRecord, OutboxState, Tally};
pub use segment::SegmentRecord;
pub use session::{
    Custody, InboxState, OutChannel, Partial, PastChannel, PastEpoch, RxChannel, RxStream, Session,
};
pub use skipped::{SkipNumber, SkippedRecord};
pub use trust::{TrustLevel, TrustRecord};
pub use unidentified::UnidentifiedRecord;
pub use waiting::Waiting;

use bytes::Bytes;
use postcard::ser_flavors::Size;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a stored value can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A newer version wrote it.
    #[error(
        "{what} has format {found}, this version understands {known}; use the newer version again"
    )]
    FutureFormat {
        /// Which record.
        what: &'static str,
        /// The format found.
        found: u8,
        /// The format that is written now.
        known: u8,
    },
    /// It is not what was written.
    #[error(
        "{what} is damaged ({reason}); restore the store from a backup, peers will notice and send again"
    )]
    Damaged {
        /// Which record.
        what: &'static str,
        /// What the decoder said.
        reason: postcard::Error,
    },
}

/// A value that lives in the store.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const WHAT: &'static str;

    /// The format it is written in. What earlier versions wrote is read all the same.
    const FORMAT: u8 = 1;

    /// The bytes to store.
    fn to_bytes(&self) -> Bytes {
        let size = postcard::serialize_with_flavor(self, Size::default()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(size.saturating_add(1));
        bytes.push(Self::FORMAT);
        // Serialising into a vector can't fail for these types; an empty value would be found out as
        // damaged when read, never taken for another.
        postcard::to_extend(self, bytes)
            .map(Bytes::from)
            .unwrap_or_default()
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// [`RecordError`] if the bytes are not such a record.
    fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        decode(Self::WHAT, Self::FORMAT, bytes)
    }
}

/// Reads a value of this format.
fn decode<'a, T: Deserialize<'a>>(
    what: &'static str,
    known: u8,
    bytes: &'a [u8],
) -> Result<T, RecordError> {
    let damaged = |reason| RecordError::Damaged { what, reason };
    match bytes.split_first() {
        Some((&found, body)) if found == known => match postcard::take_from_bytes(body) {
            Ok((record, [])) => Ok(record),
            Ok(_) => Err(damaged(postcard::Error::DeserializeBadEncoding)),
            Err(reason) => Err(damaged(reason)),
        },
        Some((&found, _)) if found > known => Err(RecordError::FutureFormat { what, found, known }),
        _ => Err(damaged(postcard::Error::DeserializeUnexpectedEnd)),
    }
}

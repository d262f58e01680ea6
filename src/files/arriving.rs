//! What comes of a file that was accepted goes to its place before its messages are in the inbox, so
//! that the disk takes the content once.
//!
//! ```text
//!   batch of the engine ─ divert ─▶ batch without the content ─▶ commit
//!                            └────▶ pieces ─ place, sync ─────────▲
//! ```
//!
//! This saves work and decides nothing. What is not placed here is kept in the inbox, and
//! [`FileInbox`](super::FileInbox) places it when it takes the message; only there it is checked
//! whether the parts are the file's.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use outlive_core::record::{Key, Record, SegmentRecord};
use outlive_core::store::{Batch, Store, StoreError};
use outlive_core::wire::file::FileMessage;
use outlive_core::{ChannelId, Epoch, PeerId, Seq, TransferId};
use tracing::debug;

use super::disk::{self, Piece};
use crate::lock::lock;

/// The file whose parts come now.
pub(crate) struct Arriving {
    transfer: TransferId,
    size: u64,
    /// Open until the file is checked, for nothing is placed in one that was, or until nobody takes
    /// its parts any more.
    file: Mutex<Option<Arc<File>>>,
    /// Held while something is placed, which is as long as the disk takes.
    placing: Mutex<()>,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving")
            .field("transfer", &self.transfer)
            .finish_non_exhaustive()
    }
}

impl Arriving {
    /// Waits for the disk.
    pub(super) fn open(transfer: TransferId, size: u64, part: &Path) -> io::Result<Self> {
        let file = disk::open_to_write(part)?;
        Ok(Self {
            transfer,
            size,
            file: Mutex::new(Some(Arc::new(file))),
            placing: Mutex::new(()),
        })
    }

    pub(super) const fn transfer(&self) -> TransferId {
        self.transfer
    }

    fn file(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        lock(&self.file)
    }

    pub(super) fn is_open(&self) -> bool {
        self.file().is_some()
    }

    /// Has nothing more placed but what is being placed.
    pub(super) fn let_go(&self) {
        *self.file() = None;
    }

    /// The same, and waits for that.
    pub(super) fn close(&self) {
        self.let_go();
        drop(lock(&self.placing));
    }

    /// Puts pieces where they belong, and returns when they are durable.
    fn place(&self, pieces: &[Piece]) -> io::Result<()> {
        let _placing = lock(&self.placing);
        let file = self.file().clone().ok_or(io::ErrorKind::NotFound)?;
        disk::place(&file, pieces)
    }
}

/// A part of a file on its way into the inbox: where what follows goes.
#[derive(Debug)]
pub(crate) struct Course {
    transfer: TransferId,
    epoch: Epoch,
    next: Seq,
    offset: u64,
}

impl Course {
    /// The course of the message that this segment is the first of, if that is a part of this file;
    /// and the bytes that stand before those of the file.
    fn begin(of: TransferId, epoch: Epoch, seq: Seq, payload: &Bytes) -> Option<(Self, usize)> {
        match FileMessage::decode(payload) {
            Ok(Some(FileMessage::Part {
                transfer,
                offset,
                bytes,
            })) if transfer == of => {
                let course = Self {
                    transfer,
                    epoch,
                    next: seq,
                    offset,
                };
                Some((course, payload.len().saturating_sub(bytes.len())))
            }
            _ => None,
        }
    }
}

/// Commits a batch, with what it holds of the file that comes in that file, if it can be written.
pub(crate) async fn commit(
    store: Arc<dyn Store>,
    batch: Batch,
    diverted: Option<Diverted>,
) -> Result<(), StoreError> {
    let Some(Diverted {
        batch: without,
        pieces,
        arriving,
    }) = diverted
    else {
        return store.commit(batch).await;
    };
    let placed = tokio::task::spawn_blocking(move || arriving.place(&pieces)).await;
    match placed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(()) => store.commit(without).await,
        Err(error) => {
            debug!(%error, "parts of a file are kept in the inbox until they can be placed");
            store.commit(batch).await
        }
    }
}

/// A batch, and what of it goes into a file.
pub(crate) struct Diverted {
    batch: Batch,
    pieces: Vec<Piece>,
    arriving: Arc<Arriving>,
}

/// Takes out of a batch what belongs to the file that comes. `course` is where the last one ended.
pub(crate) fn divert(
    arriving: Arc<Arriving>,
    peer: PeerId,
    batch: &Batch,
    course: &mut Option<Course>,
) -> Option<Diverted> {
    let (mut without, mut pieces) = (Batch::new(), Vec::new());
    for (key, value) in batch.ops() {
        let Some(value) = value else {
            without.delete(key.clone());
            continue;
        };
        match placed(&arriving, peer, key, value, course) {
            Some((record, piece)) => {
                without.put(key.clone(), record.to_bytes());
                pieces.push(piece);
            }
            None => without.put(key.clone(), value.clone()),
        }
    }
    (!pieces.is_empty()).then_some(Diverted {
        batch: without,
        pieces,
        arriving,
    })
}

/// A segment of the file without its content, and that, if the record is one. What comes out of turn
/// is left as it is: where it goes is in the segment that begins its message.
fn placed(
    arriving: &Arriving,
    peer: PeerId,
    key: &[u8],
    value: &Bytes,
    course: &mut Option<Course>,
) -> Option<(SegmentRecord, Piece)> {
    let Ok(Key::Segment(_, epoch, ChannelId::FILES, seq)) = Key::of_peer(peer, key) else {
        return None;
    };
    let Ok(SegmentRecord::Data {
        id,
        index,
        count,
        redelivered,
        payload,
    }) = SegmentRecord::from_shared(value)
    else {
        return None;
    };
    let head = if index == 0 {
        let (begun, head) = Course::begin(arriving.transfer, epoch, seq, &payload)?;
        *course = Some(begun);
        head
    } else {
        0
    };
    let course = course.as_mut().filter(|course| {
        course.transfer == arriving.transfer && course.epoch == epoch && course.next == seq
    })?;
    let content = payload.slice(head..);
    let offset = course.offset;
    let end = offset.checked_add(content.len() as u64)?;
    if end > arriving.size {
        return None;
    }
    course.next = seq.next();
    course.offset = end;
    let record = SegmentRecord::Placed {
        id,
        index,
        count,
        redelivered,
        beginning: payload.slice(..head),
        placed: u32::try_from(content.len()).ok()?,
    };
    Some((record, (offset, content)))
}

#[cfg(test)]
mod tests {
    use outlive_core::{Identity, MessageId};
    use outlive_storage::MemoryStore;

    use super::super::Files;
    use super::*;

    const TRANSFER: TransferId = TransferId([7; 16]);

    fn peer() -> PeerId {
        Identity::from_seed([1; 32]).peer_id()
    }

    fn key() -> Bytes {
        Key::Segment(peer(), Epoch(1), ChannelId::FILES, Seq(1)).to_bytes()
    }

    fn batch() -> Batch {
        let part = FileMessage::Part {
            transfer: TRANSFER,
            offset: 2,
            bytes: Bytes::from_static(b"llo"),
        };
        let record = SegmentRecord::Data {
            id: MessageId([1; 16]),
            index: 0,
            count: 2,
            redelivered: false,
            payload: part.to_bytes(),
        };
        let mut batch = Batch::new();
        batch.put(key(), record.to_bytes());
        batch
    }

    async fn committed(closed: bool) -> (SegmentRecord, Vec<u8>) {
        let part = tempfile::NamedTempFile::new().unwrap();
        let arriving = Arc::new(Arriving::open(TRANSFER, 5, part.path()).unwrap());
        let diverted = divert(arriving.clone(), peer(), &batch(), &mut None);
        if closed {
            arriving.close();
        }
        let store = Arc::new(MemoryStore::new());
        commit(store.clone(), batch(), diverted).await.unwrap();
        let value = store.get(key()).await.unwrap().unwrap();
        let record = SegmentRecord::from_bytes(&value).unwrap();
        (record, std::fs::read(part.path()).unwrap())
    }

    #[tokio::test]
    async fn content_is_in_the_file_and_not_in_the_store() {
        let (record, lies) = committed(false).await;
        assert!(matches!(record, SegmentRecord::Placed { placed: 3, .. }));
        assert_eq!(lies, b"\0\0llo");
    }

    #[tokio::test]
    async fn content_that_can_not_be_placed_is_in_the_store() {
        let (record, lies) = committed(true).await;
        let SegmentRecord::Data { payload, .. } = record else {
            panic!("{record:?} has no content");
        };
        assert!(payload.ends_with(b"llo"));
        assert_eq!(lies, b"");
    }

    #[test]
    fn nothing_is_placed_in_a_file_once_the_parts_of_another_come() {
        let files = Files::default();
        let part = || tempfile::NamedTempFile::new().unwrap();
        let (first, second) = (part(), part());
        let open =
            |part: &tempfile::NamedTempFile| Arriving::open(TRANSFER, 5, part.path()).unwrap();
        files.set_arriving(open(&first));
        let kept = files.arriving().unwrap();
        let piece = (0, Bytes::from_static(b"hello"));
        files.set_arriving(open(&second));
        assert!(kept.place(&[piece]).is_err());
        assert_eq!(std::fs::read(first.path()).unwrap(), b"");
    }
}

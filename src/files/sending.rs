//! Sending a file, and the handle on it.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use outlive_core::limits::{FILE_BYTES, FILE_NAME_BYTES, FILE_PART_BYTES, SEGMENT_BYTES};
use outlive_core::record::{Key, Record, SendingFileRecord, SendingState};
use outlive_core::store::ReadLimit;
use outlive_core::wire::file::{FileInfo, part_head};
use outlive_core::{ChannelId, Position, TransferId};
use tokio::sync::{oneshot, watch};

use super::disk::{self, blocking, hash, stamp};
use super::error::FileError;
use super::{FileProgress, Outcome};
use crate::entropy::random;
use crate::error::Error;
use crate::route::Route;
use crate::task::Command;

/// Files on their way to one peer at once. One more is refused.
pub const SENDING_FILES: usize = 1_024;

/// A file on its way to the peer. It goes there without this handle too.
pub struct SendingFile {
    route: Route,
    transfer: TransferId,
    record: SendingFileRecord,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl fmt::Debug for SendingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendingFile")
            .field("transfer", &self.transfer)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

/// Looks at a file, and has it sent.
pub(crate) async fn offer(route: &Route, path: PathBuf) -> Result<SendingFile, FileError> {
    let mut record = blocking(move || look_at(&path)).await?;
    let transfer = TransferId(random()?);
    let outcome = route.hub().files.watch(transfer);
    (record.first, record.end) = send(route, transfer, record.clone()).await?;
    Ok(SendingFile {
        route: route.clone(),
        transfer,
        record,
        outcome,
    })
}

async fn send(
    route: &Route,
    transfer: TransferId,
    record: SendingFileRecord,
) -> Result<(Position, Position), FileError> {
    let (reply, answer) = oneshot::channel();
    let command = Command::SendFile {
        transfer,
        record: Box::new(record),
        reply,
    };
    route.send(command).await?;
    answer.await.map_err(|_| route.gone())?
}

/// What there is to know of a file before it is sent.
fn look_at(path: &Path) -> Result<SendingFileRecord, FileError> {
    let path = fs::canonicalize(path).map_err(FileError::io("find", path))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let (Some(name), Some(text)) = (name, path.to_str()) else {
        return Err(FileError::Name(path));
    };
    if name.len() > FILE_NAME_BYTES {
        return Err(FileError::Name(path));
    }
    let file = match disk::open(&path) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            return Err(FileError::NotAFile(path));
        }
        opened => opened.map_err(FileError::io("read", &path))?,
    };
    let before = stamp(&file).map_err(FileError::io("read", &path))?;
    if before.size > FILE_BYTES {
        return Err(FileError::TooLarge(before.size));
    }
    let hash = hash(&file).map_err(FileError::io("read", &path))?;
    if stamp(&file).map_err(FileError::io("read", &path))? != before {
        return Err(FileError::Changing(path));
    }
    Ok(SendingFileRecord {
        info: FileInfo {
            name: name.to_owned(),
            size: before.size,
            hash,
        },
        path: text.to_owned(),
        modified: before.modified,
        first: Position(0),
        end: Position(0),
        state: SendingState::Going { asked: None },
    })
}

/// The files on their way to the peer, of this process and of those before it.
pub(crate) async fn list(route: &Route) -> Result<Vec<SendingFile>, FileError> {
    let limit = ReadLimit {
        records: SENDING_FILES,
        bytes: usize::MAX,
    };
    let store = &route.inner().store;
    let range = Key::sending_files(route.hub().peer);
    let rows = store.range(range, limit).await.map_err(Error::from)?;
    let mut files = Vec::new();
    for (key, _) in rows {
        let Ok(Key::SendingFile(_, transfer)) = Key::from_bytes(&key) else {
            continue;
        };
        // Watched first: an end that comes from here on is heard.
        let outcome = route.hub().files.watch(transfer);
        let value = store.get(key).await.map_err(Error::from)?;
        let record = value.map(|value| SendingFileRecord::from_bytes(&value));
        let record = record.transpose().map_err(Error::from)?;
        if let Some(record) = record.filter(|record| record.state.stopped().is_none()) {
            files.push(SendingFile {
                route: route.clone(),
                transfer,
                record,
                outcome,
            });
        }
    }
    Ok(files)
}

impl SendingFile {
    /// The name of the transfer, the same at the peer.
    #[must_use]
    pub const fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(&self.record.path)
    }

    /// What the peer is told of it.
    #[must_use]
    pub const fn info(&self) -> &FileInfo {
        &self.record.info
    }

    /// How much of it is durable at the peer.
    #[must_use]
    pub fn progress(&self) -> FileProgress {
        let size = self.record.info.size;
        let below = self.route.hub().progress.delivered(ChannelId::FILES);
        let done = match *self.outcome.borrow() {
            Some(Ok(())) => size,
            // Its first message is the word that it comes.
            _ => bytes_in(below.since(self.record.first.next())).min(size),
        };
        FileProgress { done, size }
    }

    /// Waits for a change of [`progress`](Self::progress) from `seen`, or for the end. Returns
    /// `None` once the peer has the whole file under its name. Cancellation-safe.
    ///
    /// # Errors
    /// As [`done`](Self::done).
    pub async fn changed(&self, seen: FileProgress) -> Result<Option<FileProgress>, FileError> {
        let mut outcome = self.outcome.clone();
        let mut moved = self.route.hub().progress.changes();
        loop {
            if let Some(outcome) = *outcome.borrow_and_update() {
                return Ok(outcome.map(|()| None)?);
            }
            let progress = self.progress();
            if progress != seen {
                return Ok(Some(progress));
            }
            tokio::select! {
                changed = outcome.changed() => changed.map_err(|_| self.route.gone())?,
                changed = moved.changed() => changed.map_err(|_| self.route.gone())?,
                () = self.route.ended() => return Err(self.route.gone().into()),
            }
        }
    }

    /// Waits until the peer has the whole file under its name. Cancellation-safe.
    ///
    /// # Errors
    /// [`FileError::Stopped`] if it won't have it; [`FileError::Session`] if the session was closed:
    /// the file stays queued, and goes on when the session runs again.
    pub async fn done(&self) -> Result<(), FileError> {
        let mut outcome = self.outcome.clone();
        tokio::select! {
            biased;
            ended = outcome.wait_for(Option::is_some) => match ended {
                Ok(outcome) => Ok((*outcome).unwrap_or(Ok(()))?),
                Err(_) => Err(self.route.gone().into()),
            },
            () = self.route.ended() => Err(self.route.gone().into()),
        }
    }

    /// Calls the file off. The peer lets go of what it has of it. Returns when that is durable.
    ///
    /// Dropped half-way, it may or may not be called off.
    ///
    /// # Errors
    /// [`FileError::Session`].
    pub async fn cancel(&self) -> Result<(), FileError> {
        let (reply, answer) = oneshot::channel();
        let transfer = self.transfer;
        self.route
            .send(Command::CancelFile { transfer, reply })
            .await?;
        Ok(answer.await.map_err(|_| self.route.gone())??)
    }
}

/// Bytes of a file in its first `segments` segments.
fn bytes_in(segments: u64) -> u64 {
    let head = part_head(TransferId([0; 16]), 0).len() as u64;
    let segment = SEGMENT_BYTES as u64;
    let each = FILE_PART_BYTES.saturating_add(head).div_ceil(segment);
    let (parts, rest) = (segments / each, segments % each);
    let rest = rest.saturating_mul(segment).saturating_sub(head);
    parts.saturating_mul(FILE_PART_BYTES).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outlive_core::Identity;
    use outlive_core::wire::file::StopReason;
    use outlive_storage::MemoryStore;

    use super::*;
    use crate::Node;

    #[tokio::test(start_paused = true)]
    async fn who_looks_while_an_end_is_being_written_hears_of_it_too() {
        let disk = tempfile::tempdir().unwrap();
        let path = disk.path().join("a");
        fs::write(&path, b"content").unwrap();
        for outcome in [Ok(()), Err(StopReason::Declined)] {
            let store = MemoryStore::new();
            let alice = Identity::from_seed([1; 32]);
            let node = Node::builder().identity(alice).store(store.clone());
            let node = node.start().await.unwrap();
            let bob = Identity::from_seed([2; 32]).peer_id();
            let session = node.session(bob).await.unwrap();
            let sending = session.send_file(&path).await.unwrap();
            let held = store.faults().hold();
            let (reply, heard) = oneshot::channel();
            let transfer = sending.transfer();
            let command = Command::FileReply {
                transfer,
                outcome,
                reply,
            };
            session.route().send(command).await.unwrap();
            while store.faults().counts().waiting == 0 {
                tokio::task::yield_now().await;
            }
            let looked = session.sending_files().await.unwrap();
            assert_eq!(looked.len(), 1);
            drop(held);
            heard.await.unwrap().unwrap();
            for sending in looked.iter().chain([&sending]) {
                let ended = tokio::time::timeout(Duration::from_secs(60), sending.done()).await;
                let reason = match ended.expect("it hears of it") {
                    Err(FileError::Stopped(reason)) => Err(reason),
                    ended => {
                        ended.unwrap();
                        Ok(())
                    }
                };
                assert_eq!(reason, outcome);
            }
            drop((looked, sending, session));
            node.shutdown().await.unwrap();
        }
    }

    #[test]
    fn segments_are_counted_in_bytes_of_the_file() {
        assert_eq!(bytes_in(0), 0);
        assert_eq!(bytes_in(1), 16_384 - 26);
        assert_eq!(bytes_in(65), FILE_PART_BYTES);
        assert_eq!(bytes_in(66), FILE_PART_BYTES + 16_384 - 26);
    }
}

//! The committer: the thread that writes what waits in the queue. It takes all batches that wait,
//! has them written as one, and answers each; meanwhile it syncs and compacts. Started by
//! [`SledStore`](super::SledStore), which joins it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outlive_core::store::{Batch, StoreError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::writer::Writer;

/// Bytes of batches after which no further one joins a write: 4 MiB. More would make reads and the
/// first commit of the group wait longer than it saves.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Batches in one write. As [`MAX_GROUP_BYTES`], for small ones.
const MAX_GROUP_BATCHES: usize = 1024;

/// Bytes copied at once while the log is compacted, 1 MiB, between two groups of commits. More would
/// let them wait longer.
const COPY_BYTES: usize = 1 << 20;

/// A batch on its way to the committer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: Batch,
    pub(super) waiting: Waiting,
}

/// Whoever waits for a batch to be written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
    /// The batch's share of the queue's bytes; free again when it was answered.
    pub(super) room: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Committer {
    pub(super) requests: Receiver<Request>,
    pub(super) writer: Arc<Mutex<Writer>>,
}

impl Committer {
    /// Serves until the queue is closed and empty, then makes everything durable and closes the
    /// files. The result is the one of that last sync.
    pub(super) fn run(self) -> Result<(), StoreError> {
        self.writer().compact_if_due();
        while let Some(first) = self.next() {
            let mut writer = self.writer();
            let (group, waiting, bytes) = self.gather(first);
            let result = writer.write(&group);
            for Waiting { answer, room } in waiting {
                drop(room);
                // Nobody listens if the commit was dropped half-way.
                let _ = answer.send(result.clone());
            }
            writer.compact_if_due();
            // Twice what came in, or the end might never be reached.
            writer.go_on_compacting(bytes.saturating_mul(2).max(COPY_BYTES));
        }
        self.writer().close()
    }

    // A panic inside sled is caught before it reaches this guard, so a poisoned lock says nothing
    // about what is behind it.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request; syncs and compacts meanwhile, and opens files that could not be opened. `None`
    /// once the queue is closed.
    fn next(&self) -> Option<Request> {
        loop {
            let mut writer = self.writer();
            let left = writer.until_sync();
            if left.is_some_and(|left| left.is_zero()) {
                writer.sync_in_time();
                writer.compact_if_due();
                continue;
            }
            if writer.is_compacting() {
                match self.requests.try_recv() {
                    Ok(request) => return Some(request),
                    Err(TryRecvError::Empty) => writer.go_on_compacting(COPY_BYTES),
                    Err(TryRecvError::Disconnected) => return None,
                }
                continue;
            }
            let until_open = writer.until_open();
            if until_open.is_some_and(|left| left.is_zero()) {
                writer.open_in_time();
                continue;
            }
            // While it waits, a task may write by itself.
            drop(writer);
            let Some(left) = left.or(until_open) else {
                return self.requests.recv().ok();
            };
            match self.requests.recv_timeout(left) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// All batches that wait, as far as the bounds allow, who waits for them, and their bytes.
    fn gather(&self, first: Request) -> (Vec<Batch>, Vec<Waiting>, usize) {
        let mut bytes = first.batch.bytes();
        let (mut group, mut waiting) = (vec![first.batch], vec![first.waiting]);
        while bytes < MAX_GROUP_BYTES && group.len() < MAX_GROUP_BATCHES {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            bytes = bytes.saturating_add(request.batch.bytes());
            group.push(request.batch);
            waiting.push(request.waiting);
        }
        (group, waiting, bytes)
    }
}

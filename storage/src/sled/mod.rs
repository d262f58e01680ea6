//! The store on disk. One tree holds everything; disk use follows the live data.

mod committer;
mod compact;
mod errors;
mod files;
mod header;
mod options;
mod records;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use tokio::sync::{Semaphore, oneshot};

use self::committer::{Committer, Request};
use self::errors::from_io;
use self::files::{Files, Shared};
use self::header::Header;
pub use self::options::{Durability, SledOptions};
pub use self::records::{FORMAT_VERSION, MAX_KEY_BYTES};
use self::records::{prefixed, unprefixed, value};

/// Bytes of batches that may wait for the committer: 8 MiB. When they do, commits wait before they
/// enter the queue. A larger batch waits until it is alone.
const QUEUE_BYTES: u32 = 8 << 20;

/// Bytes that even an empty batch takes of the queue, so that their number is bounded too.
const MIN_REQUEST_BYTES: u32 = 4 << 10;

/// Batches that may wait for the committer.
const QUEUE_BATCHES: usize = (QUEUE_BYTES / MIN_REQUEST_BYTES) as usize;

type Outcome = Result<(), StoreError>;

/// A store in a directory, kept by [sled](https://docs.rs/sled).
///
/// **Durability.** See [`Durability`]. Batches that wait at the same time are written and flushed as
/// one. If that fails, all of them fail, and the store opens its files again at once, or, if that
/// fails too, with the next commit; so after [`StoreError::Full`] it is enough to free space and to
/// try again. Reads fail with the same error meanwhile. Only if the files could not be opened right
/// after the failure, or the device failed twice, a batch whose commit failed may be found later, as
/// a whole.
///
/// **Reads** go to the files directly and block the calling thread: on a page from disk if the cache
/// lacks it, and while a group of at most a few MiB is put into the tree (not while it is synced).
/// They see a batch as a whole or not at all, some before it is durable. Keep [`ReadLimit`]s small:
/// writes wait for a read in progress.
///
/// **Disk use** follows the live data: sled uses again what it has room for, and never gives it back
/// by itself, so a log that has grown much larger than what lives in it is copied into a new one,
/// a part at a time between commits.
///
/// **Damage.** Synced commits that are missing are noticed when the store is opened, damaged bytes
/// then or when they are read. Not noticed is what can't be: a directory that was replaced by an
/// older copy of itself as a whole. sled cuts the log behind the
/// first damaged record when it opens it, so make a copy of a damaged directory before anything
/// else is tried.
///
/// Dropping the store does what [`close`](Store::close) does, and blocks meanwhile.
#[derive(Debug)]
pub struct SledStore {
    shared: Arc<Shared>,
    /// Lets one commit after the other into the queue, in the order of their first poll.
    turn: Semaphore,
    /// The queue's free bytes.
    room: Arc<Semaphore>,
    /// `None` once the store was closed.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    queue: SyncSender<Request>,
    done: oneshot::Receiver<Outcome>,
    thread: JoinHandle<()>,
}

impl SledStore {
    /// Opens the store in `dir` with the defaults of [`SledOptions::new`].
    ///
    /// # Errors
    /// As [`SledOptions::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        SledOptions::new(dir).open()
    }

    /// How many times the log was flushed for commits since the store was opened.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Relaxed)
    }

    /// How many commits succeeded since the store was opened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    fn start(options: SledOptions) -> Result<Self, StoreError> {
        create_private(&options.dir).map_err(from_io)?;
        let mut header = Header::open(&options.dir)?;
        let (files, meta) = Files::open(&options, &mut header)?;
        let shared = Arc::new(Shared::new(files));
        let (queue, requests) = sync_channel(QUEUE_BATCHES);
        let (finished, done) = oneshot::channel();
        let committer = Committer {
            requests,
            shared: shared.clone(),
            header,
            options,
            meta,
            unsynced: None,
            compaction: None,
            compact_again: None,
        };
        let thread = std::thread::Builder::new()
            .name("outlive-committer".to_owned())
            .spawn(move || {
                // Nobody listens when the store was dropped and not closed.
                let _ = finished.send(committer.run());
            })
            .map_err(from_io)?;
        Ok(Self {
            shared,
            turn: Semaphore::new(1),
            room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            running: Mutex::new(Some(Running {
                queue,
                done,
                thread,
            })),
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the queue. Commits that are in it are still written.
    fn stop(&self) -> Option<Running> {
        self.turn.close();
        self.room.close();
        self.running().take()
    }

    async fn enqueue(&self, batch: Batch) -> Result<oneshot::Receiver<Outcome>, StoreError> {
        let _turn = self.turn.acquire().await.map_err(|_| StoreError::Closed)?;
        let bytes = u32::try_from(batch.bytes()).unwrap_or(u32::MAX);
        let bytes = bytes.clamp(MIN_REQUEST_BYTES, QUEUE_BYTES);
        let room = self.room.clone().acquire_many_owned(bytes).await;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let running = self.running();
        let queue = &running.as_ref().ok_or(StoreError::Closed)?.queue;
        match queue.try_send(Request {
            batch,
            answer,
            room,
        }) {
            Ok(()) => Ok(answered),
            // Whoever has room finds a place: there are as many as the least share allows.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(StoreError::Closed),
        }
    }
}

#[async_trait]
impl Store for SledStore {
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.ops().iter().any(|(key, _)| key.len() > MAX_KEY_BYTES) {
            let error = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a key is longer than {MAX_KEY_BYTES} bytes"),
            );
            return Err(from_io(error));
        }
        // Without an answer the committer is gone.
        self.enqueue(batch)
            .await?
            .await
            .unwrap_or(Err(StoreError::Closed))
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.shared.read(|tree| match tree.get(prefixed(&key))? {
            Some(stored) => Ok(value(tree, &stored)?.map(Some)),
            None => Ok(Ok(None)),
        })
    }

    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.shared.read(|tree| {
            let mut records = Vec::new();
            let mut bytes = 0_usize;
            if range.start >= range.end {
                return Ok(Ok(records));
            }
            for record in tree.range(prefixed(&range.start)..prefixed(&range.end)) {
                let (key, stored) = record?;
                let value = match value(tree, &stored)? {
                    Ok(value) => value,
                    Err(error) => return Ok(Err(error)),
                };
                bytes = bytes.saturating_add(value.len());
                records.push((unprefixed(&key), value));
                if records.len() >= limit.records || bytes >= limit.bytes {
                    break;
                }
            }
            Ok(Ok(records))
        })
    }

    /// Dropped half-way, the store closes all the same.
    async fn close(&self) -> Result<(), StoreError> {
        let Some(Running {
            queue,
            done,
            thread,
        }) = self.stop()
        else {
            return Err(StoreError::Closed);
        };
        drop(queue);
        let outcome = done.await.unwrap_or(Err(StoreError::Closed));
        // It has sent its outcome as its last act, so this does not block.
        if thread.join().is_err() {
            return Err(from_io(io::Error::other("the committer panicked")));
        }
        outcome
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if let Some(Running { queue, thread, .. }) = self.stop() {
            drop(queue);
            if thread.join().is_err() {
                tracing::error!("the committer of the store panicked");
            }
        }
    }
}

/// Makes the directory for its owner alone, if it is not there. What others may read of one that is
/// there is for whoever made it to say.
fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

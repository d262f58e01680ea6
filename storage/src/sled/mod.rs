//! The store on disk. One tree holds everything; disk use follows the live data.

mod committer;
mod compact;
mod errors;
mod files;
mod header;
mod journal;
mod log_file;
mod options;
mod pending;
mod reads;
mod records;
mod snapshots;
mod writer;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use self::committer::{Committer, Request, Waiting};
use self::errors::from_io;
use self::files::{Shared, sync_dir};
pub use self::options::{Durability, SledOptions};
pub use self::records::{FORMAT_VERSION, MAX_KEY_BYTES};
use self::writer::Writer;

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
/// try again. Reads fail with the same error meanwhile: on a full disk until there is room for what
/// only the journal holds, which is not lost. If a sync failed, what can be read of the log may not
/// be on the device, so a copy takes its place before anything else is acknowledged: then there has
/// to be room for that. Only if the files could not be opened right
/// after the failure, or the device failed twice, a batch whose commit failed may be found later, as
/// a whole.
///
/// **Commits** are written by a thread of the store's. In [`Durability::Buffered`] a short one that
/// nobody else is before is written by the task that makes it: that blocks for a `write` to the
/// operating system, and for longer only when the disk is full or fails.
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
    /// The committer's, gone with it.
    writer: Weak<Mutex<Writer>>,
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

    /// How many times commits were flushed to the log or appended to the journal since the store was
    /// opened.
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
        create_private(&options.dir)?;
        let (writer, shared) = Writer::open(options)?;
        let writer = Arc::new(Mutex::new(writer));
        let shared_writer = Arc::downgrade(&writer);
        let (queue, requests) = sync_channel(QUEUE_BATCHES);
        let (finished, done) = oneshot::channel();
        let committer = Committer { requests, writer };
        let thread = std::thread::Builder::new()
            .name("outlive-committer".to_owned())
            .spawn(move || {
                // Nobody listens when the store was dropped and not closed.
                let _ = finished.send(committer.run());
            })
            .map_err(from_io)?;
        Ok(Self {
            shared,
            writer: shared_writer,
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

    /// Writes a batch without the committer, if nobody else writes and it waits for no device:
    /// changing threads twice takes as long as such a write. Gives the turn back if it has to be
    /// queued.
    fn write_at_once<'a>(
        &self,
        turn: SemaphorePermit<'a>,
        batch: &Batch,
    ) -> Result<Outcome, SemaphorePermit<'a>> {
        if self.room.available_permits() < QUEUE_BYTES as usize {
            // Others were first.
            return Err(turn);
        }
        let writer = self.writer.upgrade();
        let Some(mut writer) = writer.as_ref().and_then(|writer| writer.try_lock().ok()) else {
            return Err(turn);
        };
        if !writer.writes_at_once(batch) {
            return Err(turn);
        }
        // Who comes meanwhile is queued, and written with the others.
        drop(turn);
        Ok(writer.write(std::slice::from_ref(batch)))
    }

    /// Called with the turn, which it holds until the batch is in the queue.
    async fn enqueue(&self, batch: Batch) -> Result<oneshot::Receiver<Outcome>, StoreError> {
        let bytes = u32::try_from(batch.bytes()).unwrap_or(u32::MAX);
        let bytes = bytes.clamp(MIN_REQUEST_BYTES, QUEUE_BYTES);
        let room = self.room.clone().acquire_many_owned(bytes).await;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let running = self.running();
        let queue = &running.as_ref().ok_or(StoreError::Closed)?.queue;
        let waiting = Waiting { answer, room };
        match queue.try_send(Request { batch, waiting }) {
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
        let turn = self.turn.acquire().await.map_err(|_| StoreError::Closed)?;
        let turn = match self.write_at_once(turn, &batch) {
            Ok(outcome) => return outcome,
            Err(turn) => turn,
        };
        let answered = self.enqueue(batch).await?;
        drop(turn);
        // Without an answer the committer is gone.
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.shared.read(|files| files.get(&key))
    }

    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.shared.read(|files| files.range(range, limit))
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

/// Makes the directory for its owner alone, if it is not there, so that a crash does not take it. What
/// others may read of one that is there is for whoever made it to say.
fn create_private(dir: &Path) -> Result<(), StoreError> {
    let missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let made: Vec<_> = dir.ancestors().take_while(missing).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(from_io)?;
    // The name of each is kept in the one above it.
    for above in made.into_iter().filter_map(Path::parent) {
        sync_dir(above)?;
    }
    Ok(())
}

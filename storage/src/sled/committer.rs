//! The committer: the one thread that writes. It takes all batches that wait, writes them as one,
//! flushes once, and answers each. Started by [`SledStore`](super::SledStore), which joins it.
//!
//! Every write carries a number. After a failure sled accepts nothing until it is opened again; the
//! committer does so at once, and the number found on disk tells whether the failed write is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use outlive_core::store::{Batch, StoreError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::compact::{Compaction, due};
use super::errors::guarded;
use super::files::{Files, Shared, State};
use super::header::Header;
use super::options::{Durability, SledOptions};
use super::records::{Group, Meta};

/// Bytes of batches after which no further one joins a write: 4 MiB. More would make reads and the
/// first commit of the group wait longer than it saves.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Batches in one write. As [`MAX_GROUP_BYTES`], for small ones.
const MAX_GROUP_BATCHES: usize = 1024;

/// Bytes copied at once while the log is compacted, 1 MiB, between two groups of commits. More would
/// let them wait longer.
const COPY_BYTES: usize = 1 << 20;

/// How long to wait before a log is compacted after an attempt failed: the disk may be full.
const COMPACT_RETRY: Duration = Duration::from_secs(60);

/// A batch on its way to the committer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: Batch,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
    /// Its share of the queue's bytes; free again when the batch was answered.
    pub(super) room: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Committer {
    pub(super) requests: Receiver<Request>,
    pub(super) shared: Arc<Shared>,
    pub(super) header: Header,
    pub(super) options: SledOptions,
    pub(super) meta: Meta,
    /// Since when there are writes that were flushed and not synced.
    pub(super) unsynced: Option<Instant>,
    pub(super) compaction: Option<Compaction>,
    /// Not compacted before, after an attempt that failed.
    pub(super) compact_again: Option<Instant>,
}

impl Committer {
    /// Serves until the queue is closed and empty, then makes everything durable and closes the
    /// files. The result is the one of that last sync.
    pub(super) fn run(mut self) -> Result<(), StoreError> {
        self.compact_if_due();
        while let Some(first) = self.next() {
            let (group, bytes) = self.gather(first);
            let result = self.write(&group);
            if result.is_ok() {
                let count = u64::try_from(group.len()).unwrap_or(u64::MAX);
                self.shared.commits.fetch_add(count, Ordering::Relaxed);
            }
            for Request { answer, room, .. } in group {
                drop(room);
                // Nobody listens if the commit was dropped half-way.
                let _ = answer.send(result.clone());
            }
            self.compact_if_due();
            // Twice what came in, or the end might never be reached.
            self.go_on_compacting(bytes.saturating_mul(2).max(COPY_BYTES));
        }
        if let Some(compaction) = self.compaction.take() {
            compaction.give_up();
        }
        let result = self.sync();
        self.shared.replace(State::Closed);
        result
    }

    /// The next request; syncs and compacts meanwhile. `None` once the queue is closed.
    fn next(&mut self) -> Option<Request> {
        loop {
            let left = self.until_sync();
            if left.is_some_and(|left| left.is_zero()) {
                // Whoever committed was told what a crash of the system may take.
                if let Err(error) = self.sync() {
                    tracing::error!(%error, "the store can't be synced");
                    self.reopen(&error);
                }
                continue;
            }
            if self.compaction.is_some() {
                match self.requests.try_recv() {
                    Ok(request) => return Some(request),
                    Err(TryRecvError::Empty) => self.go_on_compacting(COPY_BYTES),
                    Err(TryRecvError::Disconnected) => return None,
                }
                continue;
            }
            let Some(left) = left else {
                return self.requests.recv().ok();
            };
            match self.requests.recv_timeout(left) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// How long what was flushed may stay unsynced; `None` if nothing is.
    fn until_sync(&self) -> Option<Duration> {
        match self.options.durability {
            Durability::Sync => None,
            Durability::Buffered { flush_every } => {
                let since = self.unsynced?;
                Some(flush_every.saturating_sub(since.elapsed()))
            }
        }
    }

    /// All requests that wait, as far as the bounds allow, and their bytes.
    fn gather(&self, first: Request) -> (Vec<Request>, usize) {
        let mut bytes = first.batch.bytes();
        let mut group = vec![first];
        while bytes < MAX_GROUP_BYTES && group.len() < MAX_GROUP_BATCHES {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            bytes = bytes.saturating_add(request.batch.bytes());
            group.push(request);
        }
        (group, bytes)
    }

    fn write(&mut self, group: &[Request]) -> Result<(), StoreError> {
        self.ready()?;
        if group.iter().all(|request| request.batch.is_empty()) {
            return Ok(());
        }
        let number = self.meta.writes.saturating_add(1);
        let Err(error) = self.try_write(group) else {
            return Ok(());
        };
        tracing::warn!(%error, "a write to the store failed");
        self.reopen(&error);
        if !self.is_open() || self.meta.writes < number {
            return Err(error);
        }
        // It reached the log all the same. That it can be read says nothing about the device after a
        // failed sync, so it is written once more: only a write without a failure is acknowledged.
        self.try_write(group)
            .inspect_err(|error| self.reopen(error))
    }

    fn try_write(&mut self, group: &[Request]) -> Result<(), StoreError> {
        let copying = self.compaction.is_some();
        let (meta, copy) = self
            .shared
            .write(|files| apply(files, self.meta, group, copying))?;
        match &*self.shared.share() {
            State::Open(files) => files.flush()?,
            State::Broken(error) => return Err(error.clone()),
            State::Closed => return Err(StoreError::Closed),
        }
        self.shared.flushes.fetch_add(1, Ordering::Relaxed);
        let before = std::mem::replace(&mut self.meta, meta);
        self.unsynced.get_or_insert_with(Instant::now);
        if self.options.durability == Durability::Sync
            && let Err(error) = self.sync()
        {
            self.meta = before;
            return Err(error);
        }
        if let (Some(compaction), Some(copy)) = (&self.compaction, copy)
            && let Err(error) = compaction.apply(copy)
        {
            self.give_up_compacting(&error);
        }
        Ok(())
    }

    /// Syncs what was flushed, then notes it in the header.
    fn sync(&mut self) -> Result<(), StoreError> {
        if self.unsynced.is_none() {
            return Ok(());
        }
        match &*self.shared.share() {
            State::Open(files) => files.sync()?,
            State::Broken(error) => return Err(error.clone()),
            State::Closed => return Err(StoreError::Closed),
        }
        self.unsynced = None;
        self.header.set_mark(self.meta.writes);
        Ok(())
    }

    /// Begins to copy what lives in the log if the log is much larger.
    fn compact_if_due(&mut self) {
        let waits = self.compact_again.is_some_and(|at| Instant::now() < at);
        if waits || self.compaction.is_some() || !due(&self.shared, &self.meta, &self.options) {
            return;
        }
        match Compaction::begin(&self.header, &self.options) {
            Ok(compaction) => self.compaction = Some(compaction),
            Err(error) => self.give_up_compacting(&error),
        }
    }

    /// Copies about so many bytes more. A copy that is whole takes the place of the log.
    fn go_on_compacting(&mut self, bytes: usize) {
        let Some(compaction) = &mut self.compaction else {
            return;
        };
        match compaction.go_on(&self.shared, bytes) {
            Ok(true) => self.switch(),
            Ok(false) => {}
            Err(error) => self.give_up_compacting(&error),
        }
    }

    fn switch(&mut self) {
        let Some(compaction) = self.compaction.take() else {
            return;
        };
        if let Err(error) = self.header.switch() {
            // Which of the two the next start would open is not known: none takes a write before
            // it is.
            compaction.give_up();
            self.give_up_compacting(&error);
            self.reopen(&error);
            return;
        }
        self.adopt(compaction.finish(), self.meta);
        self.header.set_mark(self.meta.writes);
        self.header.remove_others();
        tracing::info!(live = self.meta.live, "the log was compacted");
    }

    fn give_up_compacting(&mut self, error: &StoreError) {
        tracing::warn!(%error, "the log can't be compacted; it stays as it is for now");
        self.compact_again = Instant::now().checked_add(COMPACT_RETRY);
        if let Some(compaction) = self.compaction.take() {
            compaction.give_up();
        }
    }

    fn is_open(&self) -> bool {
        matches!(&*self.shared.share(), State::Open(_))
    }

    /// Opens the files if the last attempt failed.
    fn ready(&mut self) -> Result<(), StoreError> {
        if self.is_open() {
            return Ok(());
        }
        let (files, meta) = Files::open(&self.options, &mut self.header)?;
        self.adopt(files, meta);
        Ok(())
    }

    /// After a failure: closes the files and opens them again, so that reads see what is on disk.
    fn reopen(&mut self, failure: &StoreError) {
        // It may hold what the log does not.
        if let Some(compaction) = self.compaction.take() {
            compaction.give_up();
        }
        self.shared.replace(State::Broken(failure.clone()));
        match Files::open(&self.options, &mut self.header) {
            Ok((files, meta)) => self.adopt(files, meta),
            Err(error) => tracing::warn!(%error, "the store stays closed until the next commit"),
        }
    }

    fn adopt(&mut self, files: Files, meta: Meta) {
        self.meta = meta;
        // Opening syncs, and so does compacting.
        self.unsynced = None;
        self.shared.replace(State::Open(files));
    }
}

/// Writes the batches of a group as one: all of them, or none. Returns the write too if it is to be
/// done to a copy.
fn apply(
    files: &Files,
    meta: Meta,
    group: &[Request],
    copying: bool,
) -> Result<(Meta, Option<sled::Batch>), StoreError> {
    guarded(|| {
        let mut write = Group::new(meta);
        for (key, value) in group.iter().flat_map(|request| request.batch.ops()) {
            write.add(&files.db, key, value.as_ref())?;
        }
        let (batch, meta) = write.finish();
        let copy = copying.then(|| batch.clone());
        files.db.apply_batch(batch)?;
        Ok((meta, copy))
    })
}

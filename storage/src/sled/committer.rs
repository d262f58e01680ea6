//! The committer: the one thread that writes. It takes all batches that wait, writes them as one,
//! flushes once, and answers each. Started by [`SledStore`](super::SledStore), which joins it.
//!
//! Every write carries a number. After a failure sled accepts nothing until it is opened again; the
//! committer does so at once, and the number found on disk tells whether the failed write is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use outlive_core::store::{Batch, StoreError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

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
}

impl Committer {
    /// Serves until the queue is closed and empty, then makes everything durable and closes the
    /// files. The result is the one of that last sync.
    pub(super) fn run(mut self) -> Result<(), StoreError> {
        while let Some(first) = self.next() {
            let group = self.gather(first);
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
        }
        let result = self.sync();
        self.shared.replace(State::Closed);
        result
    }

    /// The next request; syncs when that is due meanwhile. `None` once the queue is closed.
    fn next(&mut self) -> Option<Request> {
        loop {
            let (Durability::Buffered { flush_every }, Some(since)) =
                (self.options.durability, self.unsynced)
            else {
                return self.requests.recv().ok();
            };
            let left = flush_every.saturating_sub(since.elapsed());
            if left.is_zero() {
                // Whoever committed was told what a crash of the system may take.
                if let Err(error) = self.sync() {
                    tracing::error!(%error, "the store can't be synced");
                    self.reopen(&error);
                }
                continue;
            }
            match self.requests.recv_timeout(left) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// All requests that wait, as far as the bounds allow.
    fn gather(&self, first: Request) -> Vec<Request> {
        let mut bytes = first.batch.bytes();
        let mut group = vec![first];
        while bytes < MAX_GROUP_BYTES && group.len() < MAX_GROUP_BATCHES {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            bytes = bytes.saturating_add(request.batch.bytes());
            group.push(request);
        }
        group
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
        let meta = self.shared.write(|files| apply(files, self.meta, group))?;
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
        self.shared.replace(State::Broken(failure.clone()));
        match Files::open(&self.options, &mut self.header) {
            Ok((files, meta)) => self.adopt(files, meta),
            Err(error) => tracing::warn!(%error, "the store stays closed until the next commit"),
        }
    }

    fn adopt(&mut self, files: Files, meta: Meta) {
        self.meta = meta;
        // Opening syncs.
        self.unsynced = None;
        self.shared.replace(State::Open(files));
    }
}

/// Writes the batches of a group as one: all of them, or none.
fn apply(files: &Files, meta: Meta, group: &[Request]) -> Result<Meta, StoreError> {
    guarded(|| {
        let mut write = Group::new(meta);
        for (key, value) in group.iter().flat_map(|request| request.batch.ops()) {
            write.add(&files.db, key, value.as_ref())?;
        }
        let (batch, meta) = write.finish();
        files.db.apply_batch(batch)?;
        Ok(meta)
    })
}

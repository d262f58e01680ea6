//! The open files of a store, behind the lock that reads share and the committer takes to write.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use outlive_core::store::StoreError;

use super::errors::{damaged, from_io, guarded, is_locked};
use super::header::Header;
use super::options::SledOptions;
use super::records::{Meta, SEGMENT_BYTES};

/// How often sled looks for segments to clean, in milliseconds. Shorter costs idle wake-ups, longer
/// lets the log grow under load.
const CLEAN_EVERY_MS: u64 = 500;

/// How long sled's own lock may outlive the handle that held it: its I/O threads let go of the file
/// a little after the last handle is gone. Ours is held by then, so nobody else can be meant.
const LOCK_LINGERS: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// What the committer and the reads share.
#[derive(Debug)]
pub(super) struct Shared {
    state: RwLock<State>,
    pub(super) commits: AtomicU64,
    pub(super) flushes: AtomicU64,
}

#[derive(Debug)]
pub(super) enum State {
    Open(Files),
    /// sled stopped after an error; the next commit opens it again.
    Broken(StoreError),
    Closed,
}

#[derive(Debug)]
pub(super) struct Files {
    pub(super) db: sled::Db,
    /// A second handle on sled's log, to sync it.
    log: File,
}

impl Shared {
    pub(super) const fn new(files: Files) -> Self {
        Self {
            state: RwLock::new(State::Open(files)),
            commits: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    /// Runs a read. Writes wait meanwhile, so what it sees is between two commits.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&sled::Tree) -> Result<Result<T, StoreError>, sled::Error>,
    ) -> Result<T, StoreError> {
        match &*self.share() {
            State::Open(files) => guarded(|| read(&files.db))?,
            State::Broken(error) => Err(error.clone()),
            State::Closed => Err(StoreError::Closed),
        }
    }

    // A panic inside sled is caught before it reaches these guards, so a poisoned lock says nothing
    // about the state behind it.
    pub(super) fn share(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclude(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a write, alone. If it fails, reads can't see the part of it that was done.
    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&Files) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.exclude();
        let result = match &*state {
            State::Open(files) => write(files),
            State::Broken(error) => return Err(error.clone()),
            State::Closed => return Err(StoreError::Closed),
        };
        result.inspect_err(|error| state.replace(State::Broken(error.clone())))
    }

    /// Puts `state` in the place of the present one, whose files are closed when this returns.
    pub(super) fn replace(&self, state: State) {
        self.exclude().replace(state);
    }
}

impl State {
    fn replace(&mut self, state: Self) {
        if let Self::Open(files) = std::mem::replace(self, state) {
            files.close();
        }
    }
}

impl Files {
    /// Opens the log and checks that it is ours and holds every write up to the mark.
    pub(super) fn open(
        options: &SledOptions,
        header: &mut Header,
    ) -> Result<(Self, Meta), StoreError> {
        header.settle()?;
        let files = Self::open_log(&header.log(), options)?;
        let meta = match guarded(|| Meta::read(&files.db))? {
            Some(meta) => meta?,
            None => files.initialise(header)?,
        };
        if meta.writes < header.mark() && !options.salvage {
            return Err(damaged(format!(
                "the log ends with write {}, but {} were acknowledged",
                meta.writes,
                header.mark()
            )));
        }
        files.sync()?;
        sync_dir(&header.log())?;
        sync_dir(&options.dir)?;
        header.set_mark(meta.writes);
        header.remove_others();
        Ok((files, meta))
    }

    /// Opens the log in `dir`, as it is.
    pub(super) fn open_log(dir: &Path, options: &SledOptions) -> Result<Self, StoreError> {
        let db = open_sled(dir, options)?;
        let log = OpenOptions::new()
            .write(true)
            .open(dir.join("db"))
            .map_err(from_io)?;
        Ok(Self { db, log })
    }

    /// sled flushes when it is dropped, and may panic if that fails. All that counts was flushed
    /// before, or was answered with an error.
    pub(super) fn close(self) {
        if let Err(error) = guarded(|| {
            drop(self);
            Ok(())
        }) {
            tracing::warn!(%error, "sled failed while it was closed");
        }
    }

    /// Bytes of the log.
    pub(super) fn len(&self) -> Result<u64, StoreError> {
        Ok(self.log.metadata().map_err(from_io)?.len())
    }

    /// Gives what was written to the operating system.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush()).map(drop)
    }

    /// Gives what was flushed to the device. sled's flush does not: on Linux it is a
    /// `sync_file_range`, which leaves the length of the file and the device's cache alone.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.log.sync_data().map_err(from_io)
    }

    fn initialise(&self, header: &Header) -> Result<Meta, StoreError> {
        if header.mark() > 0 {
            return Err(damaged("the record about the store is gone"));
        }
        if !guarded(|| Ok(self.db.is_empty()))? || self.db.tree_names().len() > 1 {
            return Err(damaged("another program wrote the log"));
        }
        let meta = Meta::default();
        let mut batch = sled::Batch::default();
        meta.put(&mut batch);
        guarded(|| self.db.apply_batch(batch))?;
        self.flush()?;
        Ok(meta)
    }
}

fn open_sled(dir: &Path, options: &SledOptions) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(Some(CLEAN_EVERY_MS))
        .segment_size(SEGMENT_BYTES);
    let give_up = Instant::now().checked_add(LOCK_LINGERS);
    loop {
        match guarded(|| config.open()) {
            Err(error) if is_locked(&error) => {
                if give_up.is_none_or(|at| Instant::now() >= at) {
                    return Err(StoreError::InUse {
                        path: options.dir.display().to_string(),
                    });
                }
                std::thread::sleep(LOCK_RETRY);
            }
            result => return result,
        }
    }
}

/// Makes the names of the files durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    // Elsewhere a directory can't be opened to be synced.
    if cfg!(unix) {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(from_io)
    } else {
        Ok(())
    }
}

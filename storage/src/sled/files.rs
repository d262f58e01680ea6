//! The open files of a store, behind the lock that reads share and the committer takes to write.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use outlive_core::store::{Batch, StoreError};

use super::errors::{damaged, from_io, guarded, is_locked};
use super::header::Header;
use super::journal::Journal;
use super::log_file::{LogFile, when_free};
use super::options::SledOptions;
use super::pending::Pending;
use super::records::{Group, Meta, SEGMENT_BYTES};
use super::snapshots::settle_snapshots;

/// How often sled looks for segments to clean, in milliseconds. Shorter costs idle wake-ups, longer
/// lets the log grow under load.
const CLEAN_EVERY_MS: u64 = 500;

/// sled's file beside its log.
const CONFIGURATION: &str = "conf";

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
    /// Over what sled holds.
    pub(super) pending: Pending,
    /// sled's log once more, to sync it.
    pub(super) log: Arc<LogFile>,
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
        read: impl FnOnce(&Files) -> Result<Result<T, StoreError>, sled::Error>,
    ) -> Result<T, StoreError> {
        match &*self.share() {
            State::Open(files) => guarded(|| read(files))?,
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
        write: impl FnOnce(&mut Files) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.exclude();
        let result = match &mut *state {
            State::Open(files) => write(files),
            State::Broken(error) => return Err(error.clone()),
            State::Closed => return Err(StoreError::Closed),
        };
        result.inspect_err(|error| state.replace(State::Broken(error.clone())))
    }

    /// Puts another log in the place of the present one. What is pending stays so.
    pub(super) fn switch(&self, mut files: Files) {
        let mut state = self.exclude();
        if let State::Open(old) = &mut *state {
            files.pending = std::mem::take(&mut old.pending);
        }
        state.replace(State::Open(files));
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
    /// Opens the log, or a copy if it is in doubt, checks that it is ours and holds every write up to
    /// the mark, and does again what the journal holds beyond it.
    pub(super) fn open(
        options: &SledOptions,
        header: &mut Header,
        journal: &mut Journal,
        log: &mut Arc<LogFile>,
    ) -> Result<(Self, Meta), StoreError> {
        header.settle()?;
        if log.is_doubted() {
            *log = Arc::new(log.renew(header, options)?);
        }
        let mut files = Self::open_log(log.clone(), options)?;
        match files.recover(options, header, journal) {
            Ok(meta) => Ok((files, meta)),
            Err(error) => {
                files.close();
                Err(error)
            }
        }
    }

    fn recover(
        &mut self,
        options: &SledOptions,
        header: &mut Header,
        journal: &mut Journal,
    ) -> Result<Meta, StoreError> {
        let meta = match guarded(|| Meta::read(&self.db))? {
            Some(meta) => meta?,
            None => self.initialise(header)?,
        };
        if meta.writes < header.mark() && !options.salvage {
            return Err(damaged(format!(
                "the log ends with write {}, but {} were acknowledged",
                meta.writes,
                header.mark()
            )));
        }
        let meta = self.replay(meta, journal)?;
        self.sync()?;
        sync_log(&header.log())?;
        sync_dir(&options.dir)?;
        header.set_mark(meta.writes);
        header.remove_others();
        journal.clear()?;
        Ok(meta)
    }

    /// Does again what the journal holds of the writes that follow the log's last one, and flushes
    /// them.
    fn replay(&mut self, before: Meta, journal: &mut Journal) -> Result<Meta, StoreError> {
        let (mut writes, mut group) = (before.writes, Vec::new());
        for write in journal.read()? {
            if write.number <= writes {
                continue;
            }
            if write.number != writes.saturating_add(1) {
                tracing::warn!(
                    last = writes,
                    next = write.number,
                    "what was committed between log and journal is gone; the journal is dropped"
                );
                break;
            }
            writes = write.number;
            group.push(write.batch);
        }
        if group.is_empty() {
            return Ok(before);
        }
        tracing::debug!(writes = group.len(), "took up what only the journal held");
        let (meta, _) = self.apply(before, writes, &group, false)?;
        self.flush()?;
        Ok(meta)
    }

    /// Puts what is pending, and then batches, into the tree: all of it, or nothing. The last write
    /// that the tree holds then is number `writes`. Returns what was done too if it is to be done to
    /// a copy.
    pub(super) fn apply(
        &mut self,
        before: Meta,
        writes: u64,
        group: &[Batch],
        copying: bool,
    ) -> Result<(Meta, Option<sled::Batch>), StoreError> {
        let applied = guarded(|| {
            let mut write = Group::new(before, writes);
            for (key, value) in self.pending.iter() {
                write.add(&self.db, key, value.as_ref())?;
            }
            for (key, value) in group.iter().flat_map(Batch::ops) {
                write.add(&self.db, key, value.as_ref())?;
            }
            let (batch, meta) = write.finish();
            let copy = copying.then(|| batch.clone());
            self.db.apply_batch(batch)?;
            Ok((meta, copy))
        })?;
        self.pending.clear();
        Ok(applied)
    }

    /// Opens a log, as it is.
    pub(super) fn open_log(log: Arc<LogFile>, options: &SledOptions) -> Result<Self, StoreError> {
        if log.len()? == 0 {
            remove_configuration(log.dir()).map_err(from_io)?;
        }
        Ok(Self {
            db: open_sled(log.dir(), options)?,
            pending: Pending::default(),
            log,
        })
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
        self.log.len()
    }

    /// Gives what was written to the operating system.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush()).map(drop)
    }

    /// Gives what was flushed to the device. sled's flush does not: on Linux it is a
    /// `sync_file_range`, which leaves the length of the file and the device's cache alone.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.log.sync()
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
    settle_snapshots(dir).map_err(from_io)?;
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(Some(CLEAN_EVERY_MS))
        .segment_size(SEGMENT_BYTES);
    when_free(&options.dir, || match guarded(|| config.open()) {
        Err(error) if is_locked(&error) => None,
        result => Some(result),
    })?
}

/// Removes the configuration of a log in which nothing was written yet. sled writes it first, and would
/// refuse the log for ever if it was killed amid that.
fn remove_configuration(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(CONFIGURATION)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes the files of a log durable, and their names. sled syncs its log and its snapshots, but not its
/// configuration, without which it refuses the log.
pub(super) fn sync_log(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(from_io)? {
        let entry = entry.map_err(from_io)?;
        if entry.file_type().map_err(from_io)?.is_file() {
            // Where files can be synced only by who may write to them.
            let file = File::options().write(true).open(entry.path());
            file.and_then(|file| file.sync_all()).map_err(from_io)?;
        }
    }
    sync_dir(dir)
}

/// Makes the names of the files durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let here = dir.as_os_str().is_empty();
    let dir = if here { Path::new(".") } else { dir };
    // Elsewhere a directory can't be opened to be synced.
    if cfg!(unix) {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(from_io)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_journal_adds_is_counted_as_if_it_had_been_written_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let options = SledOptions::new(dir.path());
        let mut header = Header::open(dir.path()).unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        let mut open = |journal: &mut Journal| {
            let mut log = Arc::new(LogFile::open(&header.log()).unwrap());
            let (files, meta) = Files::open(&options, &mut header, journal, &mut log).unwrap();
            files.close();
            meta
        };
        let before = open(&mut journal);
        let (mut first, mut second) = (Batch::new(), Batch::new());
        first.put("kept".into(), vec![1; 30_000].into());
        first.put("gone".into(), vec![1; 30_000].into());
        second.delete("gone".into());
        second.put("kept".into(), "small".into());
        for (at, batch) in (1..).zip([first, second]) {
            assert!(journal.append(before.writes + at, &[batch]));
        }
        let after = open(&mut journal);
        assert_eq!((after.writes, after.live), (before.writes + 2, 4 + 5));
        assert_eq!(open(&mut journal), after);
    }
}

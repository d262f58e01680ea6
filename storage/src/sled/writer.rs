//! The writer: what commits are written with. One at a time has it: the committer, or a task that
//! commits by itself because that takes no more than memory and the journal.
//!
//! Every write carries a number. After a failure sled accepts nothing until it is opened again; the
//! writer does so at once, and the number found on disk tells whether the failed write is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use outlive_core::store::{Batch, StoreError};

use super::compact::{Compaction, due};
use super::files::{Files, Shared, State};
use super::header::Header;
use super::journal::Journal;
use super::log_file::LogFile;
use super::options::{Durability, SledOptions};
use super::records::Meta;

/// How long to wait before a log is compacted after an attempt failed: the disk may be full.
const COMPACT_RETRY: Duration = Duration::from_secs(60);

/// How long to wait before files that could not be opened are opened again, if that took no longer.
const OPEN_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    header: Header,
    log: Arc<LogFile>,
    journal: Journal,
    options: SledOptions,
    /// As of the log.
    meta: Meta,
    /// Number of the last write, in the log or pending.
    writes: u64,
    /// Since when there are writes that were not synced.
    unsynced: Option<Instant>,
    compaction: Option<Compaction>,
    /// Not compacted before, after an attempt that failed.
    compact_again: Option<Instant>,
    /// When files that could not be opened are opened again, though nobody commits.
    open_again: Option<Instant>,
}

impl Writer {
    /// Opens the files in the directory of `options`. What reads of them is in the other half.
    pub(super) fn open(options: SledOptions) -> Result<(Self, Arc<Shared>), StoreError> {
        let mut header = Header::open(&options.dir)?;
        let mut journal = Journal::open(&options.dir)?;
        let mut log = Arc::new(LogFile::open(&header.log())?);
        let (files, meta) = Files::open(&options, &mut header, &mut journal, &mut log)?;
        let shared = Arc::new(Shared::new(files));
        let writer = Self {
            shared: shared.clone(),
            header,
            log,
            journal,
            options,
            meta,
            writes: meta.writes,
            unsynced: None,
            compaction: None,
            compact_again: None,
            open_again: None,
        };
        Ok((writer, shared))
    }

    /// Whether to write this waits for no device, unless something fails. Not so for the first write
    /// after a sync: the committer has to see it, to sync it in time.
    pub(super) fn writes_at_once(&self, batch: &Batch) -> bool {
        self.until_sync().is_some_and(|left| !left.is_zero())
            && !self.is_compacting()
            && self.journal.takes(std::slice::from_ref(batch))
    }

    /// How long what was written may stay unsynced; `None` if nothing is, or the files are not open:
    /// opening them syncs.
    pub(super) fn until_sync(&self) -> Option<Duration> {
        if !self.is_open() {
            return None;
        }
        match self.options.durability {
            Durability::Sync => None,
            Durability::Buffered { flush_every } => {
                let since = self.unsynced?;
                Some(flush_every.saturating_sub(since.elapsed()))
            }
        }
    }

    /// Syncs when it is time to. Whoever committed was told what a crash of the system may take.
    pub(super) fn sync_in_time(&mut self) {
        if let Err(error) = self.sync() {
            tracing::error!(%error, "the store can't be synced");
            self.reopen(&error);
        }
    }

    /// Makes everything durable and closes the files.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        if let Some(compaction) = self.compaction.take() {
            compaction.give_up();
        }
        let result = self.sync();
        self.open_again = None;
        self.shared.replace(State::Closed);
        // Of what sled wrote by itself, the next process has to know too if it may be lost.
        let written = self.log.sync();
        result.and(written)
    }

    pub(super) const fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Writes batches as one: all of them, or none.
    pub(super) fn write(&mut self, group: &[Batch]) -> Result<(), StoreError> {
        self.write_or_reopen(group)?;
        let count = u64::try_from(group.len()).unwrap_or(u64::MAX);
        self.shared.commits.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    fn write_or_reopen(&mut self, group: &[Batch]) -> Result<(), StoreError> {
        self.ready()?;
        if group.iter().all(Batch::is_empty) {
            return Ok(());
        }
        let number = self.writes.saturating_add(1);
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

    /// Makes a group as durable as was promised. A log that is not written through is synced whatever
    /// was: the more sled writes between two syncs, the more a power cut may take of what was synced.
    fn try_write(&mut self, group: &[Batch]) -> Result<(), StoreError> {
        let number = self.writes.saturating_add(1);
        let buffered = self.options.durability != Durability::Sync;
        if buffered && self.journal.append(number, group) {
            self.shared.write(|files| {
                files.pending.add(group);
                Ok(())
            })?;
            self.writes = number;
            self.unsynced.get_or_insert_with(Instant::now);
        } else {
            self.apply(number, group)?;
            if buffered && self.log.is_written_through() {
                self.journal.empty()?;
            } else {
                self.sync_log()?;
            }
        }
        self.shared.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts what is pending, and then a group, into the log, as write number `writes`, and flushes
    /// it. The journal is to be emptied after that.
    fn apply(&mut self, writes: u64, group: &[Batch]) -> Result<(), StoreError> {
        let copying = self.compaction.is_some();
        let (meta, copy) = self
            .shared
            .write(|files| files.apply(self.meta, writes, group, copying))?;
        self.with_files(Files::flush)?;
        (self.meta, self.writes) = (meta, writes);
        self.unsynced.get_or_insert_with(Instant::now);
        if let (Some(compaction), Some(copy)) = (&self.compaction, copy)
            && let Err(error) = compaction.apply(copy)
        {
            self.give_up_compacting(&error);
        }
        Ok(())
    }

    /// Makes everything durable.
    fn sync(&mut self) -> Result<(), StoreError> {
        if self.unsynced.is_none() {
            return Ok(());
        }
        if !self.journal.is_empty() {
            self.apply(self.writes, &[])?;
        }
        self.sync_log()
    }

    /// Makes the log durable, in which everything is, then notes that in the header. The journal is emptied
    /// last: what the log shows after a sync that failed may be gone from it later.
    fn sync_log(&mut self) -> Result<(), StoreError> {
        self.with_files(Files::sync)?;
        self.unsynced = None;
        self.header.set_mark(self.meta.writes);
        self.journal.empty()
    }

    fn with_files(
        &self,
        call: impl FnOnce(&Files) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match &*self.shared.share() {
            State::Open(files) => call(files),
            State::Broken(error) => Err(error.clone()),
            State::Closed => Err(StoreError::Closed),
        }
    }

    /// Begins to copy what lives in the log if the log is much larger.
    pub(super) fn compact_if_due(&mut self) {
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
    pub(super) fn go_on_compacting(&mut self, bytes: usize) {
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
            // it is, and both stay. Opening the log removes the copy once the header names the log.
            compaction.finish().close();
            self.give_up_compacting(&error);
            self.reopen(&error);
            return;
        }
        // The copy was just synced, and holds all that the log does. What is pending still is, and
        // in the journal.
        let files = compaction.finish();
        self.log = files.log.clone();
        self.shared.switch(files);
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

    /// Opens the files if the last attempt failed: at once, unless that took long. It may copy the log.
    fn ready(&mut self) -> Result<(), StoreError> {
        if self.until_open().is_some_and(|left| left > OPEN_RETRY) {
            return self.with_files(|_| Ok(()));
        }
        if self.is_open() {
            return Ok(());
        }
        let (files, meta) = self.open_files()?;
        self.adopt(files, meta);
        Ok(())
    }

    /// How long until files that could not be opened are opened again; `None` if they are open.
    pub(super) fn until_open(&self) -> Option<Duration> {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        self.open_again.map(left)
    }

    /// Opens the files again when it is time to. Whoever reads before it commits would wait for ever.
    pub(super) fn open_in_time(&mut self) {
        // It was told of when they were closed.
        let _ = self.ready();
    }

    /// After a failure: closes the files and opens them again, so that reads see what is on disk.
    fn reopen(&mut self, failure: &StoreError) {
        // It may hold what the log does not.
        if let Some(compaction) = self.compaction.take() {
            compaction.give_up();
        }
        if !cfg!(target_os = "linux") {
            // Elsewhere a later sync may not tell of it.
            self.log.doubt();
        }
        self.shared.replace(State::Broken(failure.clone()));
        match self.open_files() {
            Ok((files, meta)) => self.adopt(files, meta),
            Err(error) => tracing::warn!(%error, "the store stays closed for now"),
        }
    }

    fn open_files(&mut self) -> Result<(Files, Meta), StoreError> {
        let began = Instant::now();
        let (header, journal) = (&mut self.header, &mut self.journal);
        let opened = Files::open(&self.options, header, journal, &mut self.log);
        // However large the log is, no more than half of the time goes into copies that fail.
        let wait = began.elapsed().max(OPEN_RETRY);
        let again = || Instant::now().checked_add(wait);
        self.open_again = opened.as_ref().err().and_then(|_| again());
        opened
    }

    fn adopt(&mut self, files: Files, meta: Meta) {
        (self.meta, self.writes) = (meta, meta.writes);
        // Opening syncs.
        self.unsynced = None;
        self.shared.replace(State::Open(files));
    }
}

#[cfg(test)]
mod tests;

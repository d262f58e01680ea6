//! Compaction: a copy of what lives in the log, in a new log. Made by the committer, a part at a
//! time between commits; when it is whole it takes the place of the old log.
//!
//! sled finds room for new data in segments that were freed, but shortens its file only when the
//! last segments are free, and what was written last before a backlog was drained stays there. So
//! the file keeps the length of the largest backlog there ever was.
//!
//! What is committed meanwhile is written to both logs, so a key behind the copy's cursor is right
//! in both, and one before it is copied later as it is then. The copy is no log before
//! [`Header::switch`]: after a crash the old one is opened, and the copy removed.

use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_core::store::StoreError;

use super::errors::{from_io, guarded};
use super::files::{Files, Shared, State, sync_dir, sync_log};
use super::header::Header;
use super::log_file::LogFile;
use super::options::SledOptions;
use super::records::Meta;

/// A log is compacted when what lives in it is less than this part of it. More would copy more than
/// it frees.
const LIVE_PART: u64 = 8;

/// Whether the log is much larger than what lives in it.
pub(super) fn due(shared: &Shared, meta: &Meta, options: &SledOptions) -> bool {
    let State::Open(files) = &*shared.share() else {
        return false;
    };
    let bytes = files.len().unwrap_or_default();
    bytes > options.compact_above && meta.live < bytes / LIVE_PART
}

/// A copy under way.
#[derive(Debug)]
pub(super) struct Compaction {
    dir: PathBuf,
    copy: Files,
    /// The last key that was copied.
    cursor: Option<sled::IVec>,
}

impl Compaction {
    /// Makes an empty log under the next log's name.
    pub(super) fn begin(header: &Header, options: &SledOptions) -> Result<Self, StoreError> {
        let dir = header.next_log();
        if dir.exists() {
            // Of an attempt that failed.
            fs::remove_dir_all(&dir).map_err(from_io)?;
        }
        let copy = LogFile::open(&dir)
            .and_then(|log| Files::open_log(Arc::new(log), options))
            .inspect_err(|_| remove(&dir))?;
        let begun = Self {
            dir,
            copy,
            cursor: None,
        };
        match sync_log(&begun.dir).and_then(|()| sync_dir(&options.dir)) {
            Ok(()) => Ok(begun),
            Err(error) => {
                begun.give_up();
                Err(error)
            }
        }
    }

    /// Does to the copy what was done to the log.
    pub(super) fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        guarded(|| self.copy.db.apply_batch(batch))
    }

    /// Copies about so many bytes more. Returns whether the copy is whole; all of it is durable
    /// then.
    pub(super) fn go_on(&mut self, shared: &Shared, bytes: usize) -> Result<bool, StoreError> {
        let from = match &self.cursor {
            Some(last) => Bound::Excluded(last.clone()),
            None => Bound::Unbounded,
        };
        let (mut copied, mut whole) = (0_usize, true);
        shared.read(|files| {
            for record in files.db.range((from, Bound::Unbounded)) {
                if copied >= bytes {
                    whole = false;
                    break;
                }
                let (key, value) = record?;
                copied = copied.saturating_add(key.len()).saturating_add(value.len());
                self.copy.db.insert(&key, value)?;
                self.cursor = Some(key);
            }
            Ok(Ok(()))
        })?;
        self.copy.flush()?;
        self.copy.sync()?;
        Ok(whole)
    }

    /// The copy, to become the log.
    pub(super) fn finish(self) -> Files {
        self.copy
    }

    /// Removes the copy.
    pub(super) fn give_up(self) {
        self.copy.close();
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    // What can't be removed now is removed by the next attempt, or when the store is opened.
    let _ = fs::remove_dir_all(dir);
}

//! How a store on disk is opened. Called by the app; never touches the disk itself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outlive_core::store::StoreError;

use super::SledStore;
use super::errors::{from_io, in_dir};

/// Bytes of pages kept in memory by default: 16 MiB. sled's own default of 1 GiB lets a backlog of a
/// million messages take half a gigabyte of memory.
const CACHE_BYTES: u64 = 16 << 20;

/// Bytes of the log below which it is left as it is: 64 MiB. sled's own room for a short queue is
/// about 20 MiB.
const COMPACT_ABOVE: u64 = 64 << 20;

/// What a commit has survived once it returned.
///
/// What is said of a power cut takes a file system that has synchronous files (`chattr +S`), on Linux. On
/// one that has none, `tmpfs` or a network's, it may take more while megabytes are written at once: sled
/// uses the room of what it moved again before the move is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A commit returns after the log was synced to the device (`fdatasync`): it survives the end of
    /// the process, of the operating system, and of the power.
    Sync,
    /// A commit returns after the operating system has the data: it survives any end of the process,
    /// SIGKILL included. A crash of the operating system or a power cut may take what was committed
    /// since the last sync, always a suffix of the commits and never a part of one.
    ///
    /// A short commit is appended to a journal and goes into the log with others, when there are
    /// 256 KiB of them or it is time to sync. What both hold is found again whatever durability the
    /// store is opened with.
    Buffered {
        /// The longest time between a commit and the sync that follows it.
        flush_every: Duration,
    },
}

/// How to open a [`SledStore`].
#[derive(Clone, Debug)]
pub struct SledOptions {
    pub(super) dir: PathBuf,
    pub(super) durability: Durability,
    pub(super) cache_bytes: u64,
    pub(super) compact_above: u64,
    pub(super) salvage: bool,
}

impl SledOptions {
    /// The defaults for the store in `dir`: [`Durability::Sync`], a cache of 16 MiB.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self {
            dir: dir.as_ref().to_path_buf(),
            durability: Durability::Sync,
            cache_bytes: CACHE_BYTES,
            compact_above: COMPACT_ABOVE,
            salvage: false,
        }
    }

    /// What a commit has survived once it returned.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Bytes of pages kept in memory. When it is full, pages are read from disk again.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Bytes of the log below which it is left as it is, however little lives in it; 64 MiB if not
    /// said. A larger one is compacted when less than an eighth of it lives.
    #[must_use]
    pub const fn compact_above(mut self, bytes: u64) -> Self {
        self.compact_above = bytes;
        self
    }

    /// Opens a store whose newest commits are missing with what is left of it, where it otherwise is
    /// [`StoreError::Damaged`]. Peers notice that this one went back in time and send again.
    #[must_use]
    pub const fn salvage(mut self, salvage: bool) -> Self {
        self.salvage = salvage;
        self
    }

    /// Opens the store, and makes it if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another handle or process has it open, [`StoreError::FutureVersion`]
    /// if a newer version wrote it, [`StoreError::Damaged`] if acknowledged commits are missing, the
    /// bytes are not what was written, or another program wrote them, [`StoreError::Full`] and
    /// [`StoreError::Io`] if the disk refused, or the clock of this host is before 1970. Damage and what
    /// the system says are told with the directory.
    pub fn open(self) -> Result<SledStore, StoreError> {
        let dir = self.dir.clone();
        let opened = has_a_clock(SystemTime::now()).and_then(|()| SledStore::start(self));
        opened.map_err(|error| in_dir(&dir, error))
    }
}

/// sled panics where the clock is before 1970, as on a board without a battery for it.
fn has_a_clock(now: SystemTime) -> Result<(), StoreError> {
    let since = now.duration_since(UNIX_EPOCH);
    let wrong = |_| from_io(io::Error::other("the clock is before 1970; set it"));
    since.map(drop).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_is_told() {
        assert!(has_a_clock(UNIX_EPOCH).is_ok());
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let told = has_a_clock(before).unwrap_err().to_string();
        assert!(told.contains("before 1970; set it"), "{told}");
    }
}

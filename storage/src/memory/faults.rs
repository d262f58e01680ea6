//! The faults of a memory store, as a test injects them.

use std::sync::Arc;

use bytes::Bytes;
use outlive_core::store::StoreError;

use super::MemoryStore;
use super::state::{Records, Shared};

/// What a [`MemoryStore`] held durably at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) records: Records,
}

/// What a [`MemoryStore`] did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commits that succeeded.
    pub commits: u64,
    /// Flushes that made at least one commit durable.
    pub flushes: u64,
    /// Commits that wait to be released or flushed at present.
    pub waiting: usize,
}

/// The switchboard of a [`MemoryStore`]'s faults. Clones act on the same store.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl Faults {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Lets the next `count` commits fail with `error`; nothing of them is written.
    pub fn fail_commits(&self, count: usize, error: &StoreError) {
        self.shared.lock().fail_commits(count, error);
    }

    /// Lets the next commit that writes or deletes this key fail with `error`, whatever else is written before
    /// it.
    pub fn fail_write(&self, key: Bytes, error: &StoreError) {
        self.shared.lock().fail_write(key, error.clone());
    }

    /// Lets the next `count` reads fail with `error`.
    pub fn fail_reads(&self, count: usize, error: &StoreError) {
        self.shared.lock().fail_reads(count, error);
    }

    /// Holds commits back, neither visible nor durable, until the guard and all others are dropped.
    pub fn hold(&self) -> Hold {
        self.shared.lock().hold();
        Hold {
            shared: self.shared.clone(),
        }
    }

    /// Makes all visible commits durable and lets them return. How many there were.
    pub fn flush(&self) -> usize {
        self.shared.lock().flush()
    }

    /// Loses everything that is not durable. All handles of the store are closed from now on, its
    /// waiting commits fail with [`StoreError::Closed`]. The store that comes back after a restart
    /// holds what was durable and has no faults; after [`close`](outlive_core::store::Store::close) that
    /// is everything.
    #[must_use]
    pub fn crash(&self) -> MemoryStore {
        let mut state = self.shared.lock();
        MemoryStore::over(
            &Snapshot {
                records: state.crash(),
            },
            state.flush_mode(),
        )
    }

    /// What is durable at present.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            records: self.shared.lock().durable(),
        }
    }

    /// Crashes, and comes back with what the snapshot holds: a store that went back in time.
    #[must_use]
    pub fn restore(&self, snapshot: &Snapshot) -> MemoryStore {
        let mut state = self.shared.lock();
        state.crash();
        MemoryStore::over(snapshot, state.flush_mode())
    }

    /// What the store did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.shared.lock();
        Counts {
            waiting: state.waiting(),
            ..state.counts
        }
    }

    /// Whether a commit that writes or deletes this key waits to be released or flushed. What else
    /// a process writes meanwhile does not count, as it does in [`Counts::waiting`].
    #[must_use]
    pub fn is_writing(&self, key: &[u8]) -> bool {
        self.shared.lock().writes(key)
    }
}

/// Holds the commits of a [`MemoryStore`] back until it is dropped.
#[derive(Debug)]
#[must_use = "commits are held back until this is dropped"]
pub struct Hold {
    shared: Arc<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.lock().release();
    }
}

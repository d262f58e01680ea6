//! The store in memory, for tests: it can fail, hold commits back, crash, and go back in time.

mod faults;
mod state;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};

pub use self::faults::{Counts, Faults, Hold, Snapshot};
use self::state::Shared;

/// When commits to a [`MemoryStore`] become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flush {
    /// Each at once.
    #[default]
    EachCommit,
    /// When [`Faults::flush`] is called: until then commits are visible and wait.
    OnDemand,
}

/// A store in memory. Clones are handles to the same store.
///
/// Whoever [closes](Store::close) it, as a node or a relay does that is shut down, closes it for all of them.
/// What it held is then opened again, as a restart would find it, by `store.faults().crash()`.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// An empty store, each commit of which is durable at once.
    #[must_use]
    pub fn new() -> Self {
        Self::with_flush(Flush::EachCommit)
    }

    /// An empty store.
    #[must_use]
    pub fn with_flush(flush: Flush) -> Self {
        Self::over(&Snapshot::default(), flush)
    }

    /// A new store that holds what another one held when the snapshot was taken.
    #[must_use]
    pub fn over(snapshot: &Snapshot, flush: Flush) -> Self {
        Self {
            shared: Arc::new(Shared::new(snapshot.records.clone(), flush)),
        }
    }

    /// The switchboard of this store's faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::new(self.shared.clone())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let answered = self.shared.lock().commit(batch);
        // Without an answer the store is gone.
        answered?.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        Ok(self.shared.lock().readable()?.get(&key).cloned())
    }

    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut state = self.shared.lock();
        let mut records = Vec::new();
        let mut bytes = 0_usize;
        let live = state.readable()?;
        if range.start >= range.end {
            return Ok(records);
        }
        for (key, value) in live.range(range) {
            bytes = bytes.saturating_add(value.len());
            records.push((key.clone(), value.clone()));
            if records.len() >= limit.records || bytes >= limit.bytes {
                break;
            }
        }
        Ok(records)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.shared.lock().close()
    }
}

//! Where the stores of the suite are.

use std::sync::Arc;

use outlive_core::store::{Store, StoreError};
use outlive_storage::{Durability, MemoryStore, SledOptions, SledStore};
use tempfile::TempDir;

/// A place for one store that can be opened, closed, and opened again.
pub(crate) trait Place: Send {
    fn open(&mut self) -> Arc<dyn Store>;
    /// Opens it a second time, where that is an error to be found.
    fn open_twice(&mut self) -> Option<StoreError>;
}

pub(crate) struct OnDisk {
    dir: TempDir,
    durability: Durability,
}

impl OnDisk {
    pub(crate) fn new(durability: Durability) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            durability,
        }
    }

    fn try_open(&self) -> Result<SledStore, StoreError> {
        SledOptions::new(self.dir.path())
            .durability(self.durability)
            .open()
    }
}

impl Place for OnDisk {
    fn open(&mut self) -> Arc<dyn Store> {
        Arc::new(self.try_open().unwrap())
    }

    fn open_twice(&mut self) -> Option<StoreError> {
        let _first = self.try_open().unwrap();
        Some(self.try_open().unwrap_err())
    }
}

pub(crate) struct InMemory {
    pub(crate) last: MemoryStore,
}

impl Place for InMemory {
    fn open(&mut self) -> Arc<dyn Store> {
        self.last = self.last.faults().crash();
        Arc::new(self.last.clone())
    }

    fn open_twice(&mut self) -> Option<StoreError> {
        None
    }
}

//! Where the stores of the suite are.

use std::sync::Arc;

use outlive_core::store::{Store, StoreError};
use outlive_storage::{
    Cost, Durability, EncryptedStore, MemoryStore, SledOptions, SledStore, Unlock,
};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

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

/// The store of another place, encrypted.
pub(crate) struct Encrypted<P>(pub(crate) P);

impl<P: Place> Place for Encrypted<P> {
    fn open(&mut self) -> Arc<dyn Store> {
        let cheap = Cost {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
        };
        let unlock = Unlock::passphrase("a passphrase");
        let opening = EncryptedStore::open_with(self.0.open(), &unlock, cheap);
        let store = block_in_place(|| Handle::current().block_on(opening));
        Arc::new(store.unwrap())
    }

    fn open_twice(&mut self) -> Option<StoreError> {
        self.0.open_twice()
    }
}

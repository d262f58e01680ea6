//! A store in memory, and what a test does to what it is asked.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_storage::MemoryStore;

/// What a test does to what a store is asked. What it says nothing about is passed on.
#[async_trait]
pub trait Interceptor: Send + Sync + 'static {
    /// A batch is to be written.
    async fn commit(&self, store: &MemoryStore, batch: Batch) -> Result<(), StoreError> {
        store.commit(batch).await
    }

    /// A record is asked for.
    async fn get(&self, store: &MemoryStore, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        store.get(key).await
    }

    /// Records are asked for.
    async fn range(
        &self,
        store: &MemoryStore,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        store.range(range, limit).await
    }
}

/// A [`MemoryStore`] with an [`Interceptor`] before it. Clones are handles to the same.
#[derive(Debug)]
pub struct Intercepted<I> {
    store: MemoryStore,
    interceptor: Arc<I>,
}

impl<I: Interceptor> Intercepted<I> {
    /// What `store` is asked goes to `interceptor`.
    #[must_use]
    pub fn new(store: MemoryStore, interceptor: I) -> Self {
        Self {
            store,
            interceptor: Arc::new(interceptor),
        }
    }

    /// What stands before it.
    #[must_use]
    pub fn interceptor(&self) -> &I {
        &self.interceptor
    }
}

impl<I> Clone for Intercepted<I> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            interceptor: self.interceptor.clone(),
        }
    }
}

#[async_trait]
impl<I: Interceptor> Store for Intercepted<I> {
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.interceptor.commit(&self.store, batch).await
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.interceptor.get(&self.store, key).await
    }

    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.interceptor.range(&self.store, range, limit).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

//! What the store of a data directory holds, while no process has it open.

use std::path::Path;

use outlive::Store;
use outlive::record::Key;
use outlive_core::store::Batch;
use outlive_storage::SledStore;

/// Runs with the store, and closes it.
fn with<T>(data: &Path, work: impl AsyncFnOnce(&SledStore) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SledStore::open(data.join("store")).unwrap();
        let done = work(&store).await;
        store.close().await.unwrap();
        done
    })
}

pub(crate) fn get(data: &Path, key: Key) -> Option<Vec<u8>> {
    let value = with(data, async |store| store.get(key.to_bytes()).await);
    value.unwrap().map(|value| value.to_vec())
}

pub(crate) fn put(data: &Path, key: Key, value: &'static [u8]) {
    let mut batch = Batch::new();
    batch.put(key.to_bytes(), value.into());
    with(data, async |store| store.commit(batch).await).unwrap();
}

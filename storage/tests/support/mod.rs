//! Batches whose number and wholeness can be told from the records.

use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store};
use outlive_storage::SledStore;

const ALL: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

pub(crate) fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Two records, so that a half can be told from the whole.
pub(crate) fn numbered(at: u64, len: usize) -> Batch {
    let mut batch = Batch::new();
    for half in [0, 1 << 63] {
        batch.put(
            number(at | half),
            Bytes::from(vec![at.to_be_bytes()[7]; len]),
        );
    }
    batch
}

/// The numbers of the batches in the store; each is there as a whole.
pub(crate) async fn found(store: &SledStore) -> Vec<u64> {
    let low = store.range(number(0)..number(1 << 63), ALL).await.unwrap();
    let high = store
        .range(number(1 << 63)..number(u64::MAX), ALL)
        .await
        .unwrap();
    let read = |records: Vec<(Bytes, Bytes)>| -> Vec<u64> {
        records
            .into_iter()
            .map(|(key, _)| u64::from_be_bytes(key[..].try_into().unwrap()) & !(1 << 63))
            .collect()
    };
    let (low, high) = (read(low), read(high));
    assert_eq!(low, high, "half a batch");
    low
}

//! A store that is encrypted at rest: who can open it, what is noticed, what can be read without
//! the key.
#![cfg(all(feature = "encryption", feature = "memory"))]

use bytes::Bytes;
use outlive_core::store::{Batch, ENCRYPTION_HEADER, ReadLimit, Store, StoreError, refuse_locked};
use outlive_storage::{Cost, EncryptedStore, Flush, MemoryStore, Snapshot, Unlock};
use outlive_testing::comes_true;

const CHEAP: Cost = Cost {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};

const LINE: &[u8] = b"the quick brown fox jumps over the lazy dog";

const ALL: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

fn right() -> Unlock {
    Unlock::passphrase("correct horse battery staple")
}

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

async fn open(
    raw: &MemoryStore,
    unlock: &Unlock,
) -> Result<EncryptedStore<MemoryStore>, StoreError> {
    EncryptedStore::open_with(raw.clone(), unlock, CHEAP).await
}

async fn put(store: &dyn Store, name: &'static str, value: &'static [u8]) {
    let mut batch = Batch::new();
    batch.put(key(name), Bytes::from_static(value));
    store.commit(batch).await.unwrap();
}

/// A store with two records, and what is below it.
async fn filled() -> MemoryStore {
    let raw = MemoryStore::new();
    let store = open(&raw, &right()).await.unwrap();
    put(&store, "one", LINE).await;
    put(&store, "two", b"").await;
    raw
}

async fn raw_records(raw: &MemoryStore) -> Vec<(Bytes, Bytes)> {
    let all = Bytes::new()..Bytes::from_static(&[0xff; 64]);
    raw.range(all, ALL).await.unwrap()
}

/// The store in which one record was replaced behind its back.
async fn with(raw: &MemoryStore, name: Bytes, value: Bytes) -> MemoryStore {
    let changed = MemoryStore::over(&raw.faults().snapshot(), Flush::EachCommit);
    let mut batch = Batch::new();
    batch.put(name, value);
    changed.commit(batch).await.unwrap();
    changed
}

#[tokio::test]
async fn what_was_written_is_read_again_with_the_passphrase() {
    let store = open(&filled().await, &right()).await.unwrap();
    assert_eq!(store.get(key("one")).await.unwrap().unwrap(), LINE);
    assert_eq!(store.get(key("two")).await.unwrap().unwrap(), "");
    assert_eq!(store.get(key("three")).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_written_can_be_found_in_the_raw_records() {
    let raw = filled().await;
    let records = raw_records(&raw).await;
    assert_eq!(records.len(), 3, "two records and the header");
    for (name, value) in records {
        let found = value
            .windows(8)
            .any(|part| LINE.windows(8).any(|of| of == part));
        assert!(!found, "the value of {name:?} is readable");
        assert!(
            value.len() > 40,
            "an empty value says no more than its length"
        );
    }
}

#[tokio::test]
async fn the_same_value_is_never_sealed_twice_alike() {
    let raw = filled().await;
    let before = raw.get(key("one")).await.unwrap();
    put(&open(&raw, &right()).await.unwrap(), "one", LINE).await;
    assert_ne!(raw.get(key("one")).await.unwrap(), before);
}

#[tokio::test]
async fn a_wrong_passphrase_is_no_damage_and_changes_nothing() {
    let raw = filled().await;
    let before = raw.faults().snapshot();
    for wrong in [
        Unlock::passphrase("correct horse battery stapler"),
        Unlock::passphrase(""),
        Unlock::key([0; 32]),
    ] {
        let error = open(&raw, &wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::WrongKey), "{error}");
    }
    assert_eq!(raw.faults().snapshot(), before);
}

#[tokio::test]
async fn an_encrypted_store_without_a_key_is_locked_not_damaged() {
    let raw = filled().await;
    let error = refuse_locked(&raw).await.unwrap_err();
    assert!(matches!(error, StoreError::Locked), "{error}");
    let store = open(&raw, &right()).await.unwrap();
    refuse_locked(&store).await.unwrap();
    refuse_locked(&MemoryStore::new()).await.unwrap();
}

#[tokio::test]
async fn a_plain_store_with_a_key_says_that_it_is_plain() {
    let raw = MemoryStore::new();
    put(&raw, "one", LINE).await;
    let before = raw.faults().snapshot();
    let error = open(&raw, &right()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotEncrypted), "{error}");
    assert_eq!(raw.faults().snapshot(), before);
}

#[tokio::test]
async fn a_changed_value_is_damage() {
    let raw = filled().await;
    let sealed = raw.get(key("one")).await.unwrap().unwrap();
    for at in 0..sealed.len() {
        let mut bytes = sealed.to_vec();
        bytes[at] ^= 0x10;
        let store = with(&raw, key("one"), bytes.into()).await;
        let store = open(&store, &right()).await.unwrap();
        let error = store.get(key("one")).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "byte {at}: {error}"
        );
        let range = store.range(key("one")..key("zzz"), ALL).await;
        assert!(
            matches!(range, Err(StoreError::Damaged { .. })),
            "byte {at}"
        );
        assert_eq!(store.get(key("two")).await.unwrap().unwrap(), "");
    }
    for len in 0..sealed.len() {
        let store = with(&raw, key("one"), sealed.slice(..len)).await;
        let store = open(&store, &right()).await.unwrap();
        let error = store.get(key("one")).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "length {len}: {error}"
        );
    }
}

#[tokio::test]
async fn a_value_moved_to_another_record_is_damage() {
    let raw = filled().await;
    let sealed = raw.get(key("one")).await.unwrap().unwrap();
    let store = with(&raw, key("two"), sealed).await;
    let store = open(&store, &right()).await.unwrap();
    let error = store.get(key("two")).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_changed_header_is_damage_and_a_newer_one_says_so() {
    let raw = filled().await;
    let header_key = Bytes::from_static(ENCRYPTION_HEADER);
    let header = raw.get(header_key.clone()).await.unwrap().unwrap();
    for at in 0..header.len() {
        let mut bytes = header.to_vec();
        bytes[at] ^= 0x10;
        let store = with(&raw, header_key.clone(), bytes.into()).await;
        let error = open(&store, &right()).await.unwrap_err();
        match at {
            0 => assert!(matches!(error, StoreError::FutureVersion { .. }), "{error}"),
            _ => assert!(matches!(error, StoreError::Damaged { .. }), "{at}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_new_passphrase_replaces_the_old_one_and_rewrites_no_value() {
    let raw = filled().await;
    let before = raw.get(key("one")).await.unwrap();
    let store = open(&raw, &right()).await.unwrap();
    let new = Unlock::key([9; 32]);
    store.rekey_with(&new, CHEAP).await.unwrap();
    assert_eq!(raw.get(key("one")).await.unwrap(), before);
    let error = open(&raw, &right()).await.unwrap_err();
    assert!(matches!(error, StoreError::WrongKey), "{error}");
    let store = open(&raw, &new).await.unwrap();
    assert_eq!(store.get(key("one")).await.unwrap().unwrap(), LINE);
}

#[tokio::test]
async fn a_crash_while_the_passphrase_changes_leaves_one_that_opens() {
    let raw = MemoryStore::with_flush(Flush::OnDemand);
    let opening = tokio::spawn({
        let raw = raw.clone();
        async move { open(&raw, &right()).await }
    });
    // The header of a new store: opening waits until it is durable.
    comes_true("the header", async || raw.faults().flush() > 0).await;
    let store = opening.await.unwrap().unwrap();
    let new = Unlock::passphrase("new");
    let rekeying = tokio::spawn(async move { store.rekey_with(&new, CHEAP).await });
    comes_true("the new header", async || raw.faults().counts().waiting > 0).await;
    let crashed = raw.faults().crash();
    assert!(rekeying.await.unwrap().is_err(), "it never was durable");
    open(&crashed, &right()).await.unwrap();
}

#[tokio::test]
async fn a_failed_write_of_the_header_leaves_no_store() {
    let raw = MemoryStore::new();
    raw.faults().fail_commits(1, &StoreError::Full);
    let error = open(&raw, &right()).await.unwrap_err();
    assert!(matches!(error, StoreError::Full));
    assert_eq!(raw.faults().snapshot(), Snapshot::default());
}

#[tokio::test]
async fn the_header_is_shown_to_nobody_and_overwritten_by_nobody() {
    let raw = filled().await;
    let store = open(&raw, &right()).await.unwrap();
    let header = Bytes::from_static(ENCRYPTION_HEADER);
    assert_eq!(store.get(header.clone()).await.unwrap(), None);
    let everything = Bytes::new()..Bytes::from_static(&[0xff; 64]);
    assert_eq!(store.range(everything, ALL).await.unwrap().len(), 2);
    let mut batch = Batch::new();
    batch.put(key("three"), Bytes::new());
    batch.delete(header);
    assert!(matches!(store.commit(batch).await, Err(StoreError::Io(_))));
    assert_eq!(store.get(key("three")).await.unwrap(), None);
}

#[tokio::test]
async fn a_read_without_a_bound_on_records_ends_at_its_bytes() {
    // More records than one step makes allowance for, and a bound that only many of them reach.
    let raw = MemoryStore::new();
    let store = open(&raw, &right()).await.unwrap();
    let mut batch = Batch::new();
    for number in 0..10_000_u32 {
        batch.put(
            Bytes::copy_from_slice(&number.to_be_bytes()),
            Bytes::from_static(b"v"),
        );
    }
    store.commit(batch).await.unwrap();
    let everything = || Bytes::new()..Bytes::from_static(&[0xff; 64]);
    for bytes in [1, 4_096, 9_000] {
        let limit = ReadLimit {
            records: usize::MAX,
            bytes,
        };
        let records = store.range(everything(), limit).await.unwrap();
        assert_eq!(records.len(), bytes);
        let last = &records.last().unwrap().0[..];
        assert_eq!(last, (bytes as u32 - 1).to_be_bytes());
    }
    assert_eq!(store.range(everything(), ALL).await.unwrap().len(), 10_000);
}

#[tokio::test]
async fn debug_shows_neither_key_nor_value() {
    let store = open(&filled().await, &right()).await.unwrap();
    assert_eq!(format!("{store:?}"), "EncryptedStore(..)");
}

//! The faults of the memory store do what the tests above it rely on.
#![cfg(feature = "memory")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use outlive_core::store::{Batch, Store, StoreError};
use outlive_storage::{Counts, Flush, MemoryStore};

type Commit = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

fn put(value: &'static str) -> Batch {
    let mut batch = Batch::new();
    batch.put(
        Bytes::from_static(b"k"),
        Bytes::from_static(value.as_bytes()),
    );
    batch
}

async fn value(store: &MemoryStore) -> Option<Bytes> {
    store.get(Bytes::from_static(b"k")).await.unwrap()
}

/// A commit that was polled once and waits.
async fn waiting(store: &MemoryStore, batch: Batch) -> Commit {
    let store = store.clone();
    let mut commit: Commit = Box::pin(async move { store.commit(batch).await });
    assert!(
        poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    commit
}

#[tokio::test]
async fn a_commit_waits_for_the_flush_and_is_seen_before_it() {
    let store = MemoryStore::with_flush(Flush::OnDemand);
    let first = waiting(&store, put("1")).await;
    let second = waiting(&store, put("2")).await;
    assert_eq!(value(&store).await.unwrap(), "2");
    assert_eq!(store.faults().flush(), 2);
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(store.faults().flush(), 0);
    assert_eq!(
        store.faults().counts(),
        Counts {
            commits: 2,
            flushes: 1,
            waiting: 0
        }
    );
}

#[tokio::test]
async fn a_crash_loses_what_was_not_flushed_and_closes_all_handles() {
    let store = MemoryStore::with_flush(Flush::OnDemand);
    let kept = waiting(&store, put("kept")).await;
    store.faults().flush();
    kept.await.unwrap();
    let lost = waiting(&store, put("lost")).await;
    let hold = store.faults().hold();
    let held = waiting(&store, put("held")).await;
    let after = store.faults().crash();
    drop(hold);
    assert!(matches!(lost.await, Err(StoreError::Closed)));
    assert!(matches!(held.await, Err(StoreError::Closed)));
    assert!(matches!(
        store.commit(put("late")).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        store.get(Bytes::new()).await,
        Err(StoreError::Closed)
    ));
    assert_eq!(value(&after).await.unwrap(), "kept");
    assert_eq!(
        value(&store.faults().crash()).await.unwrap(),
        "kept",
        "crashing twice is one crash"
    );
}

#[tokio::test]
async fn held_commits_are_not_seen_until_the_last_hold_is_gone() {
    let store = MemoryStore::new();
    let holds = [store.faults().hold(), store.faults().hold()];
    let commit = waiting(&store, put("1")).await;
    assert_eq!(store.faults().counts().waiting, 1);
    assert!(store.faults().is_writing(b"k") && !store.faults().is_writing(b"other"));
    let [first, second] = holds;
    drop(first);
    assert_eq!(value(&store).await, None);
    drop(second);
    commit.await.unwrap();
    assert!(!store.faults().is_writing(b"k"));
    assert_eq!(value(&store).await.unwrap(), "1");
}

#[tokio::test]
async fn injected_failures_hit_the_next_calls_and_no_more() {
    let store = MemoryStore::new();
    store.faults().fail_commits(2, &StoreError::Full);
    for _ in 0..2 {
        assert!(matches!(
            store.commit(put("1")).await,
            Err(StoreError::Full)
        ));
    }
    assert_eq!(value(&store).await, None, "a failed commit writes nothing");
    store.commit(put("2")).await.unwrap();
    store.faults().fail_reads(1, &StoreError::Full);
    assert!(matches!(
        store.get(Bytes::new()).await,
        Err(StoreError::Full)
    ));
    assert_eq!(value(&store).await.unwrap(), "2");
}

#[tokio::test]
async fn the_write_that_is_to_fail_does_whatever_is_written_before_it() {
    let store = MemoryStore::new();
    store
        .faults()
        .fail_write(Bytes::from_static(b"k"), &StoreError::Full);
    let mut other = Batch::new();
    other.put(Bytes::from_static(b"other"), Bytes::new());
    store.commit(other).await.unwrap();
    let failed = store.commit(put("1")).await;
    assert!(matches!(failed, Err(StoreError::Full)), "{failed:?}");
    store.commit(put("2")).await.unwrap();
    assert_eq!(value(&store).await.unwrap(), "2");
}

#[tokio::test]
async fn a_restored_store_has_gone_back_in_time() {
    let store = MemoryStore::new();
    store.commit(put("old")).await.unwrap();
    let backup = store.faults().snapshot();
    store.commit(put("new")).await.unwrap();
    let restored = store.faults().restore(&backup);
    assert_eq!(value(&restored).await.unwrap(), "old");
    assert!(matches!(
        store.commit(put("late")).await,
        Err(StoreError::Closed)
    ));
    assert_eq!(
        value(&MemoryStore::over(&backup, Flush::EachCommit))
            .await
            .unwrap(),
        "old"
    );
}

//! One suite for every store: what the engine relies on, whatever keeps the data.
#![cfg(all(feature = "sled", feature = "memory", feature = "encryption"))]

mod places;

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_storage::{Durability, MemoryStore};

use places::{Encrypted, InMemory, OnDisk, Place};

const ALL: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

fn key(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

fn puts<'a>(records: impl IntoIterator<Item = (&'a str, &'a str)>) -> Batch {
    let mut batch = Batch::new();
    for (name, value) in records {
        batch.put(key(name), key(value));
    }
    batch
}

fn everything() -> Range<Bytes> {
    Bytes::new()..key([0xff; 64])
}

async fn texts(store: &dyn Store, range: Range<&str>, limit: ReadLimit) -> Vec<String> {
    let range = key(range.start)..key(range.end);
    let records = store.range(range, limit).await.unwrap();
    records
        .iter()
        .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
        .collect()
}

async fn a_batch_is_seen_as_a_whole_or_not_at_all<P: Place>(mut place: P) {
    let store = place.open();
    let names = || (0..50_u8).map(|name| key([name]));
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 0..100_u8 {
                let mut batch = Batch::new();
                names().for_each(|name| batch.put(name, key([round])));
                store.commit(batch).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let records = store.range(everything(), ALL).await.unwrap();
        assert!(records.is_empty() || records.len() == 50);
        assert!(
            records.windows(2).all(|pair| pair[0].1 == pair[1].1),
            "half a batch"
        );
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

async fn a_range_comes_in_order_and_ends_at_its_limit<P: Place>(mut place: P) {
    let store = place.open();
    let store = &*store;
    let batch = puts([
        ("b", "22"),
        ("d", "4444"),
        ("a", "1"),
        ("c", "333"),
        ("e", ""),
    ]);
    store.commit(batch).await.unwrap();
    assert_eq!(texts(store, "a".."z", ALL).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(
        texts(store, "b".."d", ALL).await,
        ["b", "c"],
        "the end is not part of it"
    );
    assert_eq!(texts(store, "aa".."cc", ALL).await, ["b", "c"]);
    let records = |records| ReadLimit {
        records,
        bytes: usize::MAX,
    };
    assert_eq!(texts(store, "a".."z", records(2)).await, ["a", "b"]);
    assert_eq!(
        texts(store, "a".."z", records(0)).await,
        ["a"],
        "one comes if there is one"
    );
    let bytes = |bytes| ReadLimit {
        records: usize::MAX,
        bytes,
    };
    assert_eq!(
        texts(store, "a".."z", bytes(3)).await,
        ["a", "b"],
        "the one that reaches it"
    );
    assert_eq!(texts(store, "a".."z", bytes(4)).await, ["a", "b", "c"]);
    assert_eq!(texts(store, "c".."z", bytes(0)).await, ["c"]);
}

async fn an_empty_range_holds_nothing<P: Place>(mut place: P) {
    let store = place.open();
    assert!(
        store.range(everything(), ALL).await.unwrap().is_empty(),
        "a new store is empty"
    );
    store.commit(puts([("a", "1"), ("c", "3")])).await.unwrap();
    assert!(texts(&*store, "b".."c", ALL).await.is_empty());
    assert!(texts(&*store, "a".."a", ALL).await.is_empty());
    assert!(texts(&*store, "c".."a", ALL).await.is_empty(), "backwards");
}

async fn the_later_write_wins_within_a_batch_and_after_it<P: Place>(mut place: P) {
    let store = place.open();
    let mut batch = puts([("kept", "1"), ("kept", "2"), ("gone", "1")]);
    batch.delete(key("gone"));
    batch.delete(key("back"));
    batch.put(key("back"), key("3"));
    batch.delete(key("never there"));
    store.commit(batch).await.unwrap();
    assert_eq!(texts(&*store, "a".."z", ALL).await, ["back", "kept"]);
    assert_eq!(store.get(key("kept")).await.unwrap(), Some(key("2")));
    store.commit(puts([("kept", "4")])).await.unwrap();
    assert_eq!(store.get(key("kept")).await.unwrap(), Some(key("4")));
    let mut batch = Batch::new();
    batch.delete(key("kept"));
    store.commit(batch).await.unwrap();
    assert_eq!(store.get(key("kept")).await.unwrap(), None);
    store.commit(Batch::new()).await.unwrap();
}

async fn commits_are_ordered_by_their_first_poll<P: Place>(mut place: P) {
    let store = place.open();
    let mut tasks = tokio::task::JoinSet::new();
    // More and larger than a queue holds, so that some wait before they enter it.
    for number in 0..3000_u32 {
        let mut batch = Batch::new();
        batch.put(key("last"), key(number.to_be_bytes()));
        let ballast = if number % 50 == 0 { 300_000 } else { 10 };
        batch.put(key("ballast"), Bytes::from(vec![0; ballast]));
        let store = store.clone();
        let mut commit = Box::pin(async move { store.commit(batch).await });
        let first = poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx))).await;
        match first {
            Poll::Ready(done) => done.unwrap(),
            Poll::Pending => drop(tasks.spawn(commit)),
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(
        store.get(key("last")).await.unwrap(),
        Some(key(2999_u32.to_be_bytes()))
    );
}

async fn a_commit_dropped_half_way_is_whole_or_absent<P: Place>(mut place: P) {
    let store = place.open();
    for number in 0..200_u32 {
        let name = |part: u8| key([&number.to_be_bytes()[..], &[part]].concat());
        let mut batch = Batch::new();
        (0..3).for_each(|part| batch.put(name(part), key([part])));
        let mut commit = Box::pin(store.commit(batch));
        let _ = poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx))).await;
    }
    // Behind all others, so they are done when it is.
    store.commit(Batch::new()).await.unwrap();
    let records = store.range(everything(), ALL).await.unwrap();
    assert_eq!(records.len() % 3, 0, "a part of a batch");
}

async fn many_committers_at_once_lose_nothing<P: Place>(mut place: P) {
    let store = place.open();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..40_u8 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0..10_u8 {
                let mut batch = Batch::new();
                batch.put(key([task, number]), key([number]));
                store.commit(batch).await.unwrap();
                assert!(store.get(key([task, number])).await.unwrap().is_some());
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(store.range(everything(), ALL).await.unwrap().len(), 400);
}

async fn a_store_that_is_opened_again_has_it_all<P: Place>(mut place: P) {
    for round in 0..3_u8 {
        let store = place.open();
        assert_eq!(
            store.range(everything(), ALL).await.unwrap().len(),
            usize::from(round)
        );
        let mut batch = Batch::new();
        batch.put(key([round]), key([round]));
        store.commit(batch).await.unwrap();
        store.close().await.unwrap();
    }
}

async fn values_of_all_sizes_are_kept<P: Place>(mut place: P) {
    let store = place.open();
    let sizes = [
        0,
        1,
        16 << 10,
        20 << 10,
        (20 << 10) + 1,
        100_000,
        1 << 20,
        (3 << 20) + 17,
    ];
    let value = |size: usize, salt: usize| -> Bytes {
        (0..size)
            .map(|at| u8::try_from((at * 31 + at / 251 + salt) % 256).unwrap())
            .collect()
    };
    for salt in 0..2 {
        for (index, size) in sizes.into_iter().enumerate() {
            let mut batch = Batch::new();
            batch.put(key(index.to_be_bytes()), value(size, salt));
            store.commit(batch).await.unwrap();
        }
    }
    store.close().await.unwrap();
    let store = place.open();
    for (index, size) in sizes.into_iter().enumerate() {
        let found = store.get(key(index.to_be_bytes())).await.unwrap();
        assert!(found == Some(value(size, 1)), "{size} bytes");
    }
    let records = store.range(everything(), ALL).await.unwrap();
    assert_eq!(
        records
            .iter()
            .map(|(_, value)| value.len())
            .collect::<Vec<_>>(),
        sizes
    );
    let mut batch = Batch::new();
    (0..sizes.len()).for_each(|index| batch.delete(key(index.to_be_bytes())));
    store.commit(batch).await.unwrap();
    assert!(store.range(everything(), ALL).await.unwrap().is_empty());
}

async fn keys_are_any_bytes<P: Place>(mut place: P) {
    let store = place.open();
    let mut keys = vec![
        key([]),
        key([0]),
        key([0, 0]),
        key(b"\0outlive"),
        key([1]),
        key([2, 0, 0, 0, 0, 0, 0, 0, 0]),
        key([0x7f, 0xff]),
        key([0xff]),
        key([0xff; 32]),
        key(vec![9; 1024]),
    ];
    let mut batch = Batch::new();
    keys.iter()
        .for_each(|name| batch.put(name.clone(), name.clone()));
    store.commit(batch).await.unwrap();
    keys.sort();
    let records = store.range(everything(), ALL).await.unwrap();
    assert_eq!(
        records
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>(),
        keys
    );
    assert!(records.iter().all(|(name, value)| name == value));
}

async fn a_closed_store_says_so<P: Place>(mut place: P) {
    let store = place.open();
    store.commit(puts([("a", "1")])).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(
        store.commit(puts([("b", "2")])).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(store.get(key("a")).await, Err(StoreError::Closed)));
    assert!(matches!(
        store.range(everything(), ALL).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(store.close().await, Err(StoreError::Closed)));
}

async fn a_second_opener_is_refused<P: Place>(mut place: P) {
    if let Some(error) = place.open_twice() {
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        let store = place.open();
        store.commit(puts([("a", "1")])).await.unwrap();
    }
}

macro_rules! suite {
    ($place:expr; $($event:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $event() {
            super::$event($place).await;
        })*
    };
    ($module:ident, $place:expr) => {
        mod $module {
            use super::*;
            suite! { $place;
                a_batch_is_seen_as_a_whole_or_not_at_all
                a_range_comes_in_order_and_ends_at_its_limit
                an_empty_range_holds_nothing
                the_later_write_wins_within_a_batch_and_after_it
                commits_are_ordered_by_their_first_poll
                a_commit_dropped_half_way_is_whole_or_absent
                many_committers_at_once_lose_nothing
                a_store_that_is_opened_again_has_it_all
                values_of_all_sizes_are_kept
                keys_are_any_bytes
                a_closed_store_says_so
                a_second_opener_is_refused
            }
        }
    };
}

suite!(sled_sync, OnDisk::new(Durability::Sync));
suite!(
    sled_buffered,
    OnDisk::new(Durability::Buffered {
        flush_every: Duration::from_millis(20)
    })
);
suite!(
    memory,
    InMemory {
        last: MemoryStore::new()
    }
);
suite!(
    encrypted_sled,
    Encrypted(OnDisk::new(Durability::Buffered {
        flush_every: Duration::from_millis(20)
    }))
);
suite!(
    encrypted_memory,
    Encrypted(InMemory {
        last: MemoryStore::new()
    })
);

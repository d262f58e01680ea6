//! What is queued for a peer, as an app counts it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use outlive::record::Key;
use outlive::{ChannelId, Error, Node, Position, Queued, Store, StoreError, queued_for};
use outlive_core::store::{Batch, ReadLimit};
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};
use outlive_transports::MemoryRelay;

use crate::scene::{on_store, pair};
use crate::world::{CHAT, comes_true, id, soon};

const MIB: usize = 1024 * 1024;

/// What is queued for peer 2, of which the store says the same alone.
async fn queued(node: &Node, store: &MemoryStore) -> Queued {
    let queued = node.queued(id(2)).await.unwrap();
    assert_eq!(queued, queued_for(store, id(2)).await.unwrap());
    queued
}

#[tokio::test]
async fn messages_that_wait_are_counted_as_the_app_sent_them() {
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[]).await;
    assert_eq!(queued(&alice, &store).await, Queued::default());
    let to_bob = alice.session(id(2)).await.unwrap();
    // Of several segments.
    to_bob.send(CHAT, vec![b'x'; 100_000]).await.unwrap();
    let taken_back = to_bob.send(ChannelId(16), "taken back").await.unwrap();
    to_bob.send(ChannelId(16), "short").await.unwrap();
    taken_back.cancel().await.unwrap();
    let counted = queued(&alice, &store).await;
    assert_eq!((counted.messages, counted.bytes), (2, 100_005));
    assert_eq!((counted.files, counted.file_bytes), (0, 0));
    assert!(!counted.more);
}

#[tokio::test]
async fn a_file_that_waits_is_counted_with_its_bytes_and_is_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    std::fs::write(&path, vec![7; 3_000_000]).unwrap();
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    to_bob.send_file(&path).await.unwrap();
    let counted = queued(&alice, &store).await;
    assert_eq!((counted.files, counted.file_bytes), (1, 3_000_000));
    assert_eq!((counted.messages, counted.bytes), (0, 0));
}

#[tokio::test]
async fn what_the_peer_has_is_queued_no_more() {
    let relay = MemoryRelay::new("relay");
    let (alice, _bob, to_bob, _to_alice) = pair(&relay).await;
    let receipt = to_bob.send(CHAT, "hello").await.unwrap();
    soon("delivery", receipt.delivered()).await.unwrap();
    comes_true("an empty queue", async || {
        alice.queued(id(2)).await.unwrap() == Queued::default()
    })
    .await;
}

#[tokio::test]
async fn an_outbox_that_can_not_be_read_is_an_error() {
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    to_bob.send(CHAT, "hello").await.unwrap();
    let mut damage = Batch::new();
    let key = Key::Outbox(id(2), CHAT, Position(1));
    damage.put(key.to_bytes(), Bytes::from_static(b"\x01"));
    store.commit(damage).await.unwrap();
    let counted = alice.queued(id(2)).await;
    assert!(matches!(counted, Err(Error::Record(_))), "{counted:?}");
}

/// Notes how much was read, and lets nobody ask for much at once.
#[derive(Default)]
struct Frugal {
    read: AtomicUsize,
}

#[async_trait]
impl Interceptor for Frugal {
    async fn range(
        &self,
        store: &MemoryStore,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        assert!(limit.bytes <= MIB, "too much at once: {limit:?}");
        let rows = store.range(range, limit).await?;
        let bytes: usize = rows.iter().map(|(_, value)| value.len()).sum();
        self.read.fetch_add(bytes, Ordering::SeqCst);
        Ok(rows)
    }
}

#[tokio::test]
async fn of_a_long_queue_only_the_beginning_is_read_a_little_at_a_time() {
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    for _ in 0..20 {
        to_bob.send(CHAT, vec![b'x'; 4 * MIB]).await.unwrap();
    }
    let store = Intercepted::new(store, Frugal::default());
    let counted = queued_for(&store, id(2)).await.unwrap();
    assert!(counted.more);
    assert!((15..=17).contains(&counted.messages), "{counted:?}");
    let read = store.interceptor().read.load(Ordering::SeqCst);
    assert!(read < 68 * MIB, "{read} bytes");
}

//! Inboxes whose store is damaged, closed, or holds a lot.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use outlive::store::{Batch, ReadLimit};
use outlive::{ChannelId, Error, Identity, Node, Store, StoreError};
use outlive_core::Position;
use outlive_core::limits::SEGMENT_BYTES;
use outlive_core::record::Key;
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};

use crate::world::{CHAT, id, node, node_over, relay, soon, way};

/// Leaves messages in a peer's inbox, and stops it.
async fn leave(messages: &[Bytes], store: &MemoryStore, relay: &Relay) {
    let alice = node(1, relay).await;
    let bob = node_over(2, store.clone(), relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let _here = bob.session(id(1)).await.unwrap();
    for message in messages {
        let receipt = to_bob.send(CHAT, message.clone()).await.unwrap();
        soon("delivered", receipt.delivered()).await.unwrap();
    }
    soon("the shutdown", bob.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_message_holds_up_none_behind_it() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let long = Bytes::from(vec![b'x'; 3 * SEGMENT_BYTES]);
    leave(&["one".into(), long, "three".into()], &store, &relay).await;
    let store = store.faults().crash();
    let range = Key::inbox(id(1), CHAT, Position(0), Position(u64::MAX));
    let limit = ReadLimit {
        records: 10,
        bytes: 1 << 20,
    };
    let rows = store.range(range, limit).await.unwrap();
    let segments = store.range(Key::all_segments(id(1)), limit).await.unwrap();
    let (first, lost) = (&rows.first().unwrap().0, &segments.first().unwrap().0);
    let mut batch = Batch::new();
    batch.put(first.clone(), Bytes::from_static(b"no record"));
    batch.delete(lost.clone());
    store.commit(batch).await.unwrap();

    let bob = node_over(2, store, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for _ in 0..2 {
        let damaged = soon("the damage", inbox.next()).await;
        let told = matches!(
            damaged,
            Err(Error::Record(_) | Error::Store(StoreError::Damaged { .. }))
        );
        assert!(told, "{damaged:?}");
    }
    let behind = soon("the next", inbox.next()).await.unwrap();
    assert_eq!(behind.payload().as_ref(), b"three");
}

#[tokio::test]
async fn after_a_shutdown_an_inbox_says_so() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    leave(&["one".into(), "two".into()], &store, &relay).await;
    let bob = node_over(2, store.faults().crash(), &relay).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    soon("the shutdown", bob.shutdown()).await.unwrap();
    let next = soon("an answer", inbox.next()).await;
    assert!(matches!(next, Err(Error::Shutdown)), "{next:?}");
    let here = inbox.try_next().await;
    assert!(matches!(here, Err(Error::Shutdown)), "{here:?}");
    let allowed = to_alice.allow_direct(false).await;
    assert!(matches!(allowed, Err(Error::Shutdown)), "{allowed:?}");
    let allows = to_alice.allows_direct().await;
    assert!(matches!(allows, Err(Error::Shutdown)), "{allows:?}");
}

/// Counts the bytes of the segments that are read.
#[derive(Default)]
struct Weighing {
    bytes: AtomicUsize,
}

#[async_trait]
impl Interceptor for Weighing {
    async fn range(
        &self,
        store: &MemoryStore,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let of_segments = Key::all_segments(id(1)).contains(&range.start);
        let rows = store.range(range, limit).await?;
        if of_segments {
            let bytes: usize = rows.iter().map(|(_, value)| value.len()).sum();
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(rows)
    }
}

#[tokio::test]
async fn a_session_that_is_loaded_reads_no_message_that_waits_in_its_inbox() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    leave(&vec![large; 4], &store, &relay).await;
    let store = Intercepted::new(store.faults().crash(), Weighing::default());
    let node = Node::builder().identity(Identity::from_seed([2; 32]));
    let node = node.store(store.clone()).transport(way(&relay));
    let bob = node.start().await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    // It is loaded when it answers.
    to_alice.listen(ChannelId::FIRST_APP).await.unwrap();
    assert_eq!(store.interceptor().bytes.load(Ordering::Relaxed), 0);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let first = soon("a message", inbox.next()).await.unwrap();
    assert_eq!(first.payload().len(), 1 << 20);
    assert!(store.interceptor().bytes.load(Ordering::Relaxed) > 1 << 20);
}

//! Requests and answers that wait for room, for the store, or for each other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outlive::record::Key;
use outlive::{ChannelId, Store, StoreError};
use outlive_core::store::{Batch, ReadLimit};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;
use tokio::task::JoinSet;

use crate::requests::{ask, inbox_of, slow, until_inbox};
use crate::scene::{on, on_store};
use crate::world::{id, soon};

/// A store that says once that it failed to write the end of a request, and has written it all the
/// same.
#[derive(Clone)]
struct Liar {
    inner: MemoryStore,
    has_lied: Arc<AtomicBool>,
}

/// Whether a batch has a message of the requests channel leave the inbox.
fn settles(batch: &Batch) -> bool {
    batch.ops().iter().any(|(key, value)| {
        let key = Key::from_bytes(key);
        value.is_none() && matches!(key, Ok(Key::Inbox(_, ChannelId::REQUESTS, _)))
    })
}

#[async_trait]
impl Store for Liar {
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let lies = settles(&batch) && !self.has_lied.swap(true, Ordering::SeqCst);
        self.inner.commit(batch).await?;
        if lies { Err(StoreError::Full) } else { Ok(()) }
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }

    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.inner.range(range, limit).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_stored_as_the_store_said_it_failed_is_sent_once() {
    let relay = MemoryRelay::new("relay");
    let store = Liar {
        inner: MemoryStore::new(),
        has_lied: Arc::default(),
    };
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let (handler, mut asked, gate) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let mut asking = JoinSet::new();
    for question in ["first", "second"] {
        let session = session.clone();
        asking.spawn(async move { ask(&session, question).await });
        soon("the request", asked.recv()).await.unwrap();
    }
    gate.add_permits(1);
    let first = soon("an answer", asking.join_next()).await.unwrap();
    assert_eq!(first.unwrap().unwrap(), "first");
    assert!(store.has_lied.load(Ordering::SeqCst));
    // Time enough for the store to be tried again.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(inbox_of(&bob, 1).await, (1, 2), "the second still waits");
    gate.add_permits(1);
    let second = soon("an answer", asking.join_next()).await.unwrap();
    assert_eq!(second.unwrap().unwrap(), "second");
    until_inbox(&bob, 1, (0, 2)).await;
    until_inbox(&alice, 2, (0, 2)).await;
    assert!(asked.try_recv().is_err(), "a handler was entered twice");
}

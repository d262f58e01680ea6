//! Requests and answers that wait for room, for the store, or for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outlive::limits::OUTBOX_BYTES;
use outlive::record::{self, Key, Record};
use outlive::{ChannelId, NODE_HANDLERS, Node, RequestError, SESSION_HANDLERS, Store, StoreError};
use outlive_core::Position;
use outlive_core::record::OutboxRecord;
use outlive_core::store::{Batch, ReadLimit};
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};
use outlive_transports::MemoryRelay;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::requests::{SOON, ask, inbox_of, slow, until_inbox};
use crate::scene::{at_once, linked, on, on_store};
use crate::world::{comes_true, id, soon};

/// A store that says once that it failed to write the end of a request, and has written it all the
/// same.
#[derive(Default)]
struct Liar {
    has_lied: AtomicBool,
    /// How often it was asked since for a request that it does not hold.
    asked: watch::Sender<usize>,
}

/// Whether a batch has a message of the requests channel leave the inbox.
fn settles(batch: &Batch) -> bool {
    batch.ops().iter().any(|(key, value)| {
        let key = Key::from_bytes(key);
        value.is_none() && matches!(key, Ok(Key::Inbox(_, ChannelId::REQUESTS, _)))
    })
}

#[async_trait]
impl Interceptor for Liar {
    async fn commit(&self, store: &MemoryStore, batch: Batch) -> Result<(), StoreError> {
        let lies = settles(&batch) && !self.has_lied.swap(true, Ordering::SeqCst);
        store.commit(batch).await?;
        if lies { Err(StoreError::Full) } else { Ok(()) }
    }

    async fn get(&self, store: &MemoryStore, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        let request = Key::from_bytes(&key);
        let found = store.get(key).await?;
        let request = matches!(request, Ok(Key::Inbox(_, ChannelId::REQUESTS, _)));
        if request && found.is_none() && self.has_lied.load(Ordering::SeqCst) {
            self.asked.send_modify(|asked| *asked += 1);
        }
        Ok(found)
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_stored_as_the_store_said_it_failed_is_sent_once() {
    let relay = MemoryRelay::new("relay");
    let store = Intercepted::new(MemoryStore::new(), Liar::default());
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
    let liar = store.interceptor();
    assert!(liar.has_lied.load(Ordering::SeqCst));
    // Whoever was told that it failed looks for what is there.
    let mut looked = liar.asked.subscribe();
    let looked = looked.wait_for(|asked| *asked > 0);
    drop(soon("a look at the store", looked).await.unwrap());
    assert_eq!(inbox_of(&bob, 1).await, (1, 2), "the second still waits");
    gate.add_permits(1);
    let second = soon("an answer", asking.join_next()).await.unwrap();
    assert_eq!(second.unwrap().unwrap(), "second");
    until_inbox(&bob, 1, (0, 2)).await;
    until_inbox(&alice, 2, (0, 2)).await;
    assert!(asked.try_recv().is_err(), "a handler was entered twice");
}

#[tokio::test(start_paused = true)]
async fn what_a_request_waited_for_its_turn_is_taken_off_its_time() {
    let relay = MemoryRelay::new("relay");
    let alice = on(1, &[&relay]).await;
    let session = alice.session(id(2)).await.unwrap();
    let mut others = JoinSet::new();
    let mut last = None;
    for _ in 0..outlive::PENDING_REQUESTS {
        let session = session.clone();
        last = Some(others.spawn(async move { session.request("other").await }));
    }
    comes_true("as many as may wait", async || {
        session.requests_pending() >= outlive::PENDING_REQUESTS
    })
    .await;
    let mut asking = Box::pin(session.request_within("mine", SOON));
    assert!(at_once(&mut asking).await.is_none());
    // How long it waits is what is staged.
    let waits = Duration::from_secs(20);
    tokio::time::sleep(waits).await;
    last.unwrap().abort();

    let bob = on(2, &[&relay]).await;
    let _answering = bob
        .on_request(|request| async move {
            let time = request.expires().0 - request.received().0;
            Ok(time.to_string().into())
        })
        .unwrap();
    let time = soon("the answer", asking).await.unwrap();
    let time: u64 = std::str::from_utf8(&time).unwrap().parse().unwrap();
    let left = SOON - waits;
    assert!(u128::from(time) <= left.as_millis(), "{time} ms were left");
}

/// A store in whose outbox for peer 2 a message counts for as much as that holds.
async fn full_outbox() -> MemoryStore {
    outbox_with_room(0).await
}

/// A store in whose outbox for peer 2 a message counts for so much that there is room for less than
/// `bytes` more.
pub(crate) async fn outbox_with_room(bytes: u64) -> MemoryStore {
    const HEAVY: ChannelId = ChannelId::FIRST_APP;
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[]).await;
    let session = alice.session(id(2)).await.unwrap();
    drop(session.send(HEAVY, "a heavy one").await.unwrap());
    drop((session, alice));
    let store = store.faults().crash();
    let range = Key::outbox(id(2), HEAVY, Position(0), Position(10));
    let limit = ReadLimit {
        records: 1,
        bytes: usize::MAX,
    };
    let (key, message) = store.range(range, limit).await.unwrap().remove(0);
    let mut message = OutboxRecord::from_bytes(&message).unwrap();
    message.tally.bytes += OUTBOX_BYTES - bytes;
    let mut batch = Batch::new();
    batch.put(key, message.to_bytes());
    let key = Key::Session(id(2)).to_bytes();
    let session = store.get(key.clone()).await.unwrap();
    let mut session = record::Session::from_bytes(&session.unwrap()).unwrap();
    let out = session.out.get_mut(&HEAVY).unwrap();
    out.next_tally.bytes += OUTBOX_BYTES - bytes;
    batch.put(key, session.to_bytes());
    store.commit(batch).await.unwrap();
    store
}

#[tokio::test(start_paused = true)]
async fn a_request_that_finds_no_room_in_its_time_is_not_sent_later() {
    let relay = MemoryRelay::new("relay");
    let alice = on_store(1, full_outbox().await, &[]).await;
    let session = alice.session(id(2)).await.unwrap();
    let late = session.request_within("late", SOON).await;
    assert!(matches!(late, Err(RequestError::Expired)), "{late:?}");
    // Two thirds of its time are over when there is room for this one: that is what is staged.
    let mut asking = Box::pin(session.request_within("in time", SOON));
    assert!(at_once(&mut asking).await.is_none());
    let waits = Duration::from_secs(20);
    tokio::time::sleep(waits).await;

    let bob = on(2, &[&relay]).await;
    let (handler, mut asked, gate) = slow();
    gate.add_permits(10);
    let _answering = bob.on_request(handler).unwrap();
    alice.use_relay(Arc::new(relay.clone()));
    assert_eq!(soon("the answer", asking).await.unwrap(), "in time");
    let first = asked.try_recv().unwrap();
    assert_eq!(first.payload(), "in time");
}

#[tokio::test(start_paused = true)]
async fn answers_that_wait_to_be_stored_keep_no_handler_from_others() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let bob = on_store(99, store.clone(), &[&relay]).await;
    let (handler, mut asked, gate) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let (mut asking, mut peers) = (JoinSet::new(), Vec::<Node>::new());
    // One more session than has handlers.
    let sessions = NODE_HANDLERS / SESSION_HANDLERS + 1;
    for n in 1..=u8::try_from(sessions).unwrap() {
        let peer = on(n, &[&relay]).await;
        let session = peer.session(id(99)).await.unwrap();
        linked(&session).await;
        for _ in 0..SESSION_HANDLERS {
            let session = session.clone();
            asking.spawn(async move { ask(&session, "hello").await });
        }
        let came = SESSION_HANDLERS as u64;
        until_inbox(&bob, n, (came, came)).await;
        peers.push(peer);
    }
    for _ in 0..NODE_HANDLERS {
        soon("a request", asked.recv()).await.unwrap();
    }
    let hold = store.faults().hold();
    gate.add_permits(NODE_HANDLERS);
    for _ in 0..SESSION_HANDLERS {
        soon("a request of the last", asked.recv()).await.unwrap();
    }
    drop(hold);
    gate.add_permits(SESSION_HANDLERS);
    while let Some(answered) = soon("an answer", asking.join_next()).await {
        assert_eq!(answered.unwrap().unwrap(), "hello");
    }
}

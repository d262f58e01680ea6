//! Peers that move to another relay.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outlive::record::Key;
use outlive::{ChannelId, Identity, Node, RelayTransport, Store, StoreError};
use outlive_core::store::ReadLimit;
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};
use outlive_transports::MemoryRelay;

use crate::far::{Far, acquainted, among, hear, learns, say, say_and_leave};
use crate::world::{CHAT, comes_true, id, node_over, relay, soon, until, url, way};

#[tokio::test]
async fn who_loses_its_store_and_moves_is_found() {
    let (one, two, three) = (relay().await, relay().await, relay().await);
    let stores = acquainted(&one, &two).await;
    let a = Far::start(1, &stores[0], &one).await;
    let to_b = a.session(2).await;
    let b = Far::start(2, &MemoryStore::new(), &three).await;
    let to_a = b.session(1).await;
    to_a.mailboxes_at([url(&one)]).await.expect("kept");
    say(&to_a, "it is me").await;
    learns(&to_b, &three).await;
    hear(&to_b, "it is me").await;
    say(&to_b, "welcome back").await;
    hear(&to_a, "welcome back").await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_new_contact_of_one_that_has_moved_is_used_beside_what_it_has_said() {
    let (one, two, three) = (relay().await, relay().await, relay().await);
    let stores = acquainted(&one, &two).await;
    let a = Far::start(1, &stores[0], &one).await;
    let to_b = a.session(2).await;
    // Its relay is gone, and so is its word of it.
    two.shutdown().await.expect("it ends");
    let b = Far::start(2, &stores[1], &three).await;
    let receipt = to_b.send(CHAT, "where are you?").await.expect("queued");
    to_b.mailboxes_at([url(&three)]).await.expect("kept");
    soon("custody", receipt.custody())
        .await
        .expect("it is kept");
    hear(&b.session(1).await, "where are you?").await;
    drop(to_b);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_moves_goes_on_with_those_that_have_never_said_where_they_read() {
    for restarts in [false, true] {
        let (one, two) = (relay().await, relay().await);
        let stores = [(); 2].map(|()| MemoryStore::new());
        let mut a = Far::start(1, &stores[0], &one).await;
        let b = node_over(2, stores[1].clone(), &one).await;
        let mut to_b = a.session(2).await;
        let to_a = b.session(id(1)).await.expect("a session");
        say(&to_b, "hello").await;
        hear(&to_a, "hello").await;
        drop(to_a);
        b.shutdown().await.expect("a good end");
        if restarts {
            drop(to_b);
            a.stop().await;
            a = Far::start(1, &stores[0].faults().crash(), &two).await;
            to_b = a.session(2).await;
        } else {
            a.node.switch_relay(Arc::new(way(&two)));
        }
        // At once: nobody is there to say where the peer reads.
        a.connected().await;
        say_and_leave(&to_b, "I have moved").await;
        drop(to_b);
        a.stop().await;
        let b = node_over(2, stores[1].faults().crash(), &one).await;
        let to_a = b.session(id(1)).await.expect("a session");
        hear(&to_a, "I have moved").await;
        b.shutdown().await.expect("a good end");
    }
}

/// A store that fails twice when signals are read from it.
#[derive(Default)]
struct FailingSignals(AtomicUsize);

#[async_trait]
impl Interceptor for FailingSignals {
    async fn range(
        &self,
        store: &MemoryStore,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let rows = store.range(range, limit).await?;
        let is_signal = |(key, _): &(Bytes, Bytes)| {
            let key = Key::from_bytes(key);
            matches!(key, Ok(Key::Inbox(_, ChannelId::SIGNALING, _)))
        };
        if rows.iter().any(is_signal) && self.0.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(StoreError::Full);
        }
        Ok(rows)
    }
}

#[tokio::test(start_paused = true)]
async fn word_of_a_move_is_heard_though_it_can_not_be_read_at_first() {
    let (one, two) = (MemoryRelay::new("one"), MemoryRelay::new("two"));
    let (a, _) = among(1, &[&one, &two]).await;
    let store = Intercepted::new(MemoryStore::new(), FailingSignals::default());
    let b = Node::builder()
        .identity(Identity::from_seed([2; 32]))
        .store(store.clone())
        .transport(one.clone())
        .foreign_relays(|_| None)
        .start();
    let b = b.await.unwrap();
    say(&a.session(id(2)).await.unwrap(), "hello").await;
    let to_a = b.session(id(1)).await.unwrap();
    hear(&to_a, "hello").await;
    comes_true("where the peer reads is known", async || {
        to_a.mailboxes().await.unwrap() == ["memory:one"]
    })
    .await;
    assert_eq!(store.interceptor().0.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn who_moves_is_written_to_at_its_new_relay_and_reads_the_old_one_on() {
    let (one, two, three) = (relay().await, relay().await, relay().await);
    let stores = [(); 2].map(|()| MemoryStore::new());
    let a = Far::start(1, &stores[0], &one).await;
    let b = Far::start(2, &stores[1], &two).await;
    let to_b = a.session(2).await;
    to_b.mailboxes_at([url(&two)]).await.expect("kept");
    say(&to_b, "hello").await;
    let to_a = b.session(1).await;
    hear(&to_a, "hello").await;
    learns(&to_b, &two).await;
    drop(to_a);
    // Whether its session is awake or not.
    comes_true("b sleeps", async || b.node.sessions_awake() == 0).await;
    b.node.switch_relay(Arc::new(way(&three)));
    learns(&to_b, &three).await;
    until(&to_b, "a writes to the new one", |state| {
        state
            .carrier()
            .is_some_and(|link| link.address == url(&three))
    })
    .await;
    let elsewhere = b.node.relays_elsewhere();
    assert!(
        elsewhere.iter().any(|(address, _)| *address == url(&two)),
        "{elsewhere:?}"
    );
    drop(to_b);
    a.stop().await;
    b.stop().await;

    // What somebody who has not heard of it leaves at the old one is read, after a start too.
    let c = Far::start(3, &MemoryStore::new(), &one).await;
    let to_b = c.session(2).await;
    to_b.mailboxes_at([url(&two)]).await.expect("kept");
    let receipt = to_b.send(CHAT, "do you live here?").await.expect("queued");
    soon("custody", receipt.custody())
        .await
        .expect("it is kept");
    drop((receipt, to_b));
    c.stop().await;
    let b = Far::start(2, &stores[1].faults().crash(), &three).await;
    hear(&b.session(3).await, "do you live here?").await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_leads_us_from_one_relay_to_the_next_once_a_minute() {
    let [one, two, three, four] = ["one", "two", "three", "four"].map(MemoryRelay::new);
    let (a, asked) = among(1, &[&one, &two, &three, &four]).await;
    let (b, _) = among(2, &[&two, &one]).await;
    let (to_b, to_a) = (a.session(id(2)).await, b.session(id(1)).await);
    let (to_b, to_a) = (to_b.expect("a session"), to_a.expect("a session"));
    to_b.mailboxes_at([two.address()]).await.expect("kept");
    say(&to_b, "hello").await;
    hear(&to_a, "hello").await;
    let has_asked = |relay: &MemoryRelay| {
        let asked = asked.lock().expect("no panic");
        asked.iter().any(|asked| asked == relay.address())
    };
    b.switch_relay(Arc::new(three.clone()));
    comes_true("the next is dialed", async || has_asked(&three)).await;
    b.switch_relay(Arc::new(four.clone()));
    comes_true("the third is known", async || {
        to_b.mailboxes().await.expect("read") == [four.address()]
    })
    .await;
    let began = tokio::time::Instant::now();
    assert!(!has_asked(&four));
    // It is there at the others still.
    say(&to_b, "where are you?").await;
    while !has_asked(&four) {
        assert!(began.elapsed() < Duration::from_secs(61));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(30));
    until(&to_b, "it is written to there", |state| {
        state
            .carrier()
            .is_some_and(|link| link.address == four.address())
    })
    .await;
}

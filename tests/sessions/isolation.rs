//! What goes wrong in one session stays in that session.

use std::time::Duration;

use bytes::Bytes;
use outlive::limits::{CONSUMED_DELAY, FORGED_PACKETS};
use outlive::record::Key;
use outlive::{
    ChannelId, Ending, Error, Events, Identity, ReceiptState, RelayTransport, Sending,
    SessionEvent, Stage, Store, StoreError,
};
use outlive_core::EnvelopeId;
use outlive_core::store::Batch;
use outlive_core::transport::{Class, Incoming, Outgoing};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;
use tokio::task::JoinSet;

use crate::played;
use crate::scene::{acquaint, at_once, counted, linked, on, on_store, pair};
use crate::watched::Watched;
use crate::world::{CHAT, comes, comes_true, id, soon, take, until};

/// Damages what a store holds of the session with this peer.
async fn damage(store: &MemoryStore, peer: u8) {
    let mut batch = Batch::new();
    let key = Key::Session(id(peer)).to_bytes();
    batch.put(key, Bytes::from_static(b"no record"));
    store.commit(batch).await.expect("it works");
}

/// Waits until a session has told of something.
async fn told(events: &mut Events, what: impl Fn(&SessionEvent) -> bool) {
    let told = async {
        loop {
            let (event, _) = events.next().await.expect("the session lives");
            if what(&event) {
                return;
            }
        }
    };
    soon("the event", told).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_loaded_does_not_stop_the_others() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    damage(&store, 1).await;
    let alice = on(1, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    for n in 0..300 {
        let receipt = to_bob.send(CHAT, format!("{n}")).await.unwrap();
        receipt.custody().await.unwrap();
    }
    let bob = on_store(2, store, &[&relay]).await;
    let broken = bob.session(id(1)).await.unwrap();
    let sent = soon("an answer", broken.send(CHAT, "to alice")).await;
    assert!(matches!(sent, Err(Error::Record(_))), "{sent:?}");
    let carol = on(3, &[&relay]).await;
    let to_bob = carol.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(3)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..10 {
        // Each time all that waits of alice is delivered again.
        relay.faults().cut(id(2));
        to_bob.send(CHAT, format!("{n}")).await.unwrap();
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    soon("the shutdown", bob.shutdown()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_came_as_the_store_failed_comes_again_without_other_traffic() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    linked(&to_alice).await;
    let alice = on(1, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    store.faults().fail_commits(3, &StoreError::Full);
    let receipt = to_bob.send(CHAT, "kept").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    drop((receipt, to_bob));
    alice.shutdown().await.unwrap();
    assert_eq!(take(&mut to_alice.inbox(CHAT).unwrap()).await, "kept");
    counted(&relay, "an empty mailbox", |counts| counts.waiting == 0).await;
    assert_eq!(relay.counts().borrow().sign_ins, 2, "over the same link");
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_session_that_sleeps_while_the_store_fails_is_asked_for_again() {
    let store = MemoryStore::new();
    let (node, mut lines) = played::node_over(2, store.clone()).await;
    let mut line = played::next(&mut lines).await;
    store.faults().fail_reads(8, &StoreError::Full);
    let packet = Bytes::from_static(&[9; 100]);
    let (peer, online) = (id(3), false);
    for n in 1..=2 {
        line.deliver(id(1), n, &packet).await;
    }
    // The node hears one word after the other: with this it has heard the first two.
    for _ in 0..2 {
        line.tell(Incoming::Presence { peer, online }).await;
    }
    assert_eq!(node.sessions_awake(), 0);
    let from = id(1).into();
    assert_eq!(line.said().await, Outgoing::Redeliver { from });
    line.deliver(id(1), 1, &packet).await;
    let peers = vec![id(1)];
    assert_eq!(line.said().await, Outgoing::Watch { peers });
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_the_store_as_a_read_fails_is_waited_for() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    to_bob.send(CHAT, "of the last process").await.unwrap();
    drop((to_bob, alice));

    let store = store.faults().crash();
    let alice = on_store(1, store.clone(), &[]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut events = to_bob.events(64);
    to_bob.send(CHAT, "before").await.unwrap();
    let hold = store.faults().hold();
    let mut sending = Box::pin(to_bob.send(CHAT, "on its way"));
    comes_true("a write on its way", async || {
        assert!(at_once(sending.as_mut()).await.is_none());
        store.faults().counts().waiting > 0
    })
    .await;
    // The node reads which sessions have work, and the session what it is to send.
    store.faults().fail_reads(2, &StoreError::Full);
    alice.use_relay(std::sync::Arc::new(relay.clone()));
    linked(&to_bob).await;
    // The write stays on its way while the time passes in which a session is loaded again, five times over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(hold);
    soon("the message", sending).await.unwrap();
    told(&mut events, |event| *event == SessionEvent::StoreFailed).await;

    let bob = on(2, &[&relay]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    for text in ["of the last process", "before", "on its way"] {
        assert_eq!(take(&mut inbox).await, text);
    }
    let receipt = to_bob.send(CHAT, "after").await.unwrap();
    assert_eq!(take(&mut inbox).await, "after");
    soon("delivery", receipt.delivered()).await.unwrap();
    to_alice.send(CHAT, "back").await.unwrap();
    assert_eq!(take(&mut to_bob.inbox(CHAT).unwrap()).await, "back");
}

#[tokio::test]
async fn time_passes_in_a_session_that_is_asked_something_all_the_time() {
    // More than its inputs hold.
    const ASKING: usize = 600;
    let store = Watched::over(MemoryStore::new());
    let alice = on_store(1, store, &[]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let short = Sending {
        ttl: Some(Duration::from_millis(200)),
        once: None,
    };
    let receipt = to_bob.send_with(CHAT, "for now", short).await.unwrap();
    let mut asking = JoinSet::new();
    for _ in 0..ASKING {
        let to_bob = to_bob.clone();
        asking.spawn(async move { while to_bob.send_once(b"key", CHAT, "once").await.is_ok() {} });
    }
    let ended = soon("the end of its time", receipt.delivered()).await;
    assert!(
        matches!(ended, Err(Error::Ended(Ending::Expired))),
        "{ended:?}"
    );
    assert!(asking.try_join_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_the_app_has_in_hand_can_be_committed_after_the_store_failed() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let first = to_bob.send(CHAT, "in hand").await.unwrap();
    let delivery = soon("a message", inbox.next()).await.unwrap();
    let mut events = to_alice.events(64);
    store.faults().fail_commits(1, &StoreError::Full);
    let failed = soon("a failure", to_alice.send(CHAT, "not taken")).await;
    assert!(matches!(failed, Err(Error::Store(StoreError::Full))));
    told(&mut events, |event| *event == SessionEvent::StoreFailed).await;
    to_bob.send(CHAT, "behind it").await.unwrap();
    assert_eq!(take(&mut inbox).await, "behind it");
    // All the time in which it would be told that the first is consumed passes.
    tokio::time::sleep(20 * CONSUMED_DELAY).await;
    assert_eq!(first.state(), ReceiptState::Reached(Stage::Delivered));
    soon("the commit", delivery.commit()).await.unwrap();
    soon("the peer to hear of it", first.consumed())
        .await
        .unwrap();
    drop(inbox);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    assert!(inbox.try_next().await.unwrap().is_none(), "committed twice");
}

#[tokio::test]
async fn garbage_in_a_mailbox_is_let_go_and_stops_nothing_behind_it() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let mallory = Identity::from_seed([66; 32]);
    let mut mallory = relay.connect(&mallory).await.unwrap();
    let garbage = |n: u64| Outgoing::Submit {
        envelope: EnvelopeId(n),
        to: id(2),
        class: Class::Keep,
        ttl: 3_600,
        packet: Bytes::from(vec![n as u8; 100]),
    };
    let some = (0..50).map(garbage).collect();
    mallory.sender.send(some).await.unwrap();
    to_bob.send(CHAT, "good").await.unwrap();
    assert_eq!(take(&mut inbox).await, "good");
    counted(&relay, "an empty mailbox", |counts| counts.waiting == 0).await;
    // At some point bob has enough of mallory, and of nobody else.
    let more = (50..250).map(garbage).collect();
    mallory.sender.send(more).await.unwrap();
    for n in 0..10 {
        to_bob.send(CHAT, format!("{n}")).await.unwrap();
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    assert_eq!(to_alice.state().borrow().links.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_was_given_up_is_bound_anew_over_the_same_connection() {
    let relay = MemoryRelay::new("relay");
    let alice = on(1, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = to_bob.inbox(CHAT).unwrap();
    linked(&to_bob).await;
    // Somebody with bob's keys sends what does not open, until alice has enough of it.
    let identity = Identity::from_seed([2; 32]);
    let mut somebody = relay.connect(&identity).await.unwrap();
    let garbage = (0..FORGED_PACKETS).map(|n| Outgoing::Submit {
        envelope: EnvelopeId(n.into()),
        to: id(1),
        class: Class::Keep,
        ttl: 3_600,
        packet: Bytes::from_static(&[9; 100]),
    });
    let mut events = to_bob.events(64);
    somebody.sender.send(garbage.collect()).await.unwrap();
    let given_up = async {
        loop {
            let (event, _) = events.next().await.expect("the session lives");
            if matches!(event, SessionEvent::LinkDown { .. }) {
                return;
            }
        }
    };
    soon("the end of the link", given_up).await;
    drop(somebody);

    let bob = on(2, &[&relay]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    to_alice.send(CHAT, "heard").await.unwrap();
    assert_eq!(take(&mut inbox).await, "heard");
    let answer = to_bob.send(CHAT, "said").await.unwrap();
    soon("delivery", answer.delivered()).await.unwrap();
    let sign_ins = relay.counts().borrow().sign_ins;
    assert_eq!(sign_ins, 3, "alice has had one connection");
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_says_while_the_store_fails_and_no_mailbox_holds_is_heard() {
    const TYPING: ChannelId = ChannelId(20);
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    linked(&to_bob).await;
    acquaint(&to_alice, &mut to_bob.inbox(CHAT).unwrap()).await;
    let mut events = to_alice.events(64);
    store.faults().fail_commits(1, &StoreError::Full);
    to_alice.send(CHAT, "not taken").await.unwrap_err();
    told(&mut events, |event| *event == SessionEvent::StoreFailed).await;
    to_bob.listen(TYPING).await.unwrap();
    told(&mut events, |event| {
        matches!(event, SessionEvent::Listening { .. })
    })
    .await;
    assert!(to_alice.send_volatile(TYPING, "heard").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_listens_to_is_known_after_a_failure_and_a_sleep() {
    const TYPING: ChannelId = ChannelId(20);
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut events = to_alice.events(64);
    to_bob.listen(TYPING).await.unwrap();
    told(&mut events, |event| {
        matches!(event, SessionEvent::Listening { .. })
    })
    .await;

    store.faults().fail_commits(1, &StoreError::Full);
    to_alice.send(CHAT, "not taken").await.unwrap_err();
    comes("the store to be tried again", async || {
        to_alice.send(CHAT, "again").await.ok()
    })
    .await;
    assert!(to_alice.send_volatile(TYPING, "loaded").await.unwrap());

    let mut inbox = to_bob.inbox(CHAT).unwrap();
    take(&mut inbox).await;
    drop((to_alice, events));
    comes_true("the session to fall asleep", async || {
        bob.sessions_awake() == 0
    })
    .await;
    let to_alice = bob.session(id(1)).await.unwrap();
    assert!(to_alice.state().borrow().peer_listens.contains(&TYPING));
    linked(&to_alice).await;
    assert!(to_alice.send_volatile(TYPING, "awake").await.unwrap());
    to_bob.unlisten(TYPING).await.unwrap();
    until(&to_alice, "the peer to cease", |state| {
        state.peer_listens.is_empty()
    })
    .await;
    drop((to_alice, to_bob, inbox));
    alice.shutdown().await.unwrap();
}

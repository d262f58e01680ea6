//! Callbacks of a node: they hear of all its sessions, and keep none of them awake.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlive::{
    Generation, Identity, Node, NodeEvents, PeerId, SessionEvent, SessionState, Strangers,
    Subscription,
};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::scene::{at_once, linked, on, pair};
use crate::world::{CHAT, comes_true, id, soon, take, until};

/// Waits for word of a message from this peer.
pub(crate) async fn word_of_a_message(events: &mut NodeEvents, from: PeerId) {
    let told = async {
        loop {
            let (peer, event, _) = events.next().await.expect("the node lives");
            if peer == from && matches!(event, SessionEvent::Message { .. }) {
                return;
            }
        }
    };
    soon("word of a message", told).await;
}

/// Counts the messages that a callback of the node hears of.
fn counting(node: &Node) -> (Subscription, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let inside = count.clone();
    let subscription = node.on_event(move |_, event, _| {
        if matches!(event, SessionEvent::Message { .. }) {
            inside.fetch_add(1, Ordering::SeqCst);
        }
    });
    (subscription, count)
}

#[tokio::test]
async fn a_node_hears_of_sessions_opened_before_and_after() {
    let relay = MemoryRelay::new("relay");
    let me = on(1, &[&relay]).await;
    let (a, b) = (on(2, &[&relay]).await, on(3, &[&relay]).await);
    let _before = me.session(id(2)).await.unwrap();
    let mut events = me.events(64);
    let _after = me.session(id(3)).await.unwrap();
    for peer in [&a, &b] {
        let session = peer.session(id(1)).await.unwrap();
        session.send(CHAT, "hello").await.unwrap();
        word_of_a_message(&mut events, peer.peer_id()).await;
    }
}

#[tokio::test]
async fn a_node_hears_of_a_session_that_a_stranger_has_made() {
    let relay = MemoryRelay::new("relay");
    let me = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .strangers(Strangers::Accept)
        .transport(relay.clone())
        .start()
        .await
        .unwrap();
    let mut events = me.events(64);
    let stranger = on(2, &[&relay]).await;
    let session = stranger.session(id(1)).await.unwrap();
    session.send(CHAT, "hello").await.unwrap();
    word_of_a_message(&mut events, id(2)).await;
    assert_eq!(me.strangers(), [id(2)]);
}

#[tokio::test]
async fn an_event_comes_to_the_session_and_to_its_node_alike_and_in_order() {
    let relay = MemoryRelay::new("relay");
    let (me, _bob, to_bob, to_alice) = pair(&relay).await;
    let (mut of_node, mut of_session) = (me.events(64), to_bob.events(64));
    let mut inbox = to_bob.inbox(CHAT).unwrap();
    for n in 0..10 {
        to_alice.send(CHAT, format!("{n}")).await.unwrap();
        take(&mut inbox).await;
    }
    for _ in 0..10 {
        let (event, state) = soon("word of it", of_session.next()).await.unwrap();
        let heard: (PeerId, SessionEvent, SessionState) =
            soon("word of it", of_node.next()).await.unwrap();
        assert_eq!(heard, (id(2), event, state));
    }
}

/// The next link that a session of the node has.
async fn next_link(events: &mut NodeEvents) -> Generation {
    let told = async {
        loop {
            let (_, event, state) = events.next().await.expect("the node lives");
            if let SessionEvent::LinkUp { generation } = event {
                assert!(state.links.iter().any(|link| link.generation == generation));
                return generation;
            }
        }
    };
    soon("a link", told).await
}

#[tokio::test(start_paused = true)]
async fn a_session_that_sleeps_is_not_kept_awake_and_heard_when_it_wakes() {
    let relay = MemoryRelay::new("relay");
    let (me, bob) = (on(1, &[&relay]).await, on(2, &[&relay]).await);
    let mut events = me.events(64);
    let session = me.session(id(2)).await.unwrap();
    let first = next_link(&mut events).await;
    drop(session);
    comes_true("the session to fall asleep", async || {
        me.sessions_awake() == 0
    })
    .await;
    let to_me = bob.session(id(1)).await.unwrap();
    to_me.send(CHAT, "wake up").await.unwrap();
    assert!(next_link(&mut events).await > first);
    word_of_a_message(&mut events, id(2)).await;
}

#[tokio::test]
async fn a_session_that_was_closed_is_heard_when_it_is_opened_again() {
    let relay = MemoryRelay::new("relay");
    let (me, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut events = me.events(64);
    to_bob.close().await.unwrap();
    let _again = me.session(id(2)).await.unwrap();
    to_alice.send(CHAT, "hello again").await.unwrap();
    word_of_a_message(&mut events, id(2)).await;
}

#[tokio::test]
async fn no_event_of_any_session_enters_a_callback_of_the_node_that_was_dropped() {
    let relay = MemoryRelay::new("relay");
    let (me, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut inbox = to_bob.inbox(CHAT).unwrap();
    let (_stays, heard_all) = counting(&me);
    for n in 0..50 {
        let (subscription, heard) = counting(&me);
        to_alice.send(CHAT, format!("{n}")).await.unwrap();
        drop(subscription);
        let at_drop = heard.load(Ordering::SeqCst);
        assert_eq!(take(&mut inbox).await, format!("{n}"));
        assert_eq!(heard.load(Ordering::SeqCst), at_drop);
    }
    assert_eq!(heard_all.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn a_callback_of_the_node_may_subscribe_and_unsubscribe_within() {
    let relay = MemoryRelay::new("relay");
    let (me, _bob, to_bob, to_alice) = pair(&relay).await;
    let own: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let later = Arc::new(Mutex::new(None));
    let (node, inside, put) = (me.clone(), own.clone(), later.clone());
    let subscription = me.on_event(move |_, event, _| {
        if !matches!(event, SessionEvent::Message { .. }) {
            return;
        }
        *put.lock().unwrap() = Some(counting(&node));
        inside.lock().unwrap().take();
    });
    *own.lock().unwrap() = Some(subscription);
    let mut inbox = to_bob.inbox(CHAT).unwrap();
    for n in 0..3 {
        to_alice.send(CHAT, format!("{n}")).await.unwrap();
        take(&mut inbox).await;
    }
    // It was entered once, for the first, and the one that it added heard of the others.
    let (_subscription, heard) = later.lock().unwrap().take().expect("it was entered");
    assert_eq!(heard.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_callback_of_the_node_that_panics_ends_alone() {
    let relay = MemoryRelay::new("relay");
    let (me, _bob, to_bob, to_alice) = pair(&relay).await;
    let entered = Arc::new(AtomicUsize::new(0));
    let inside = entered.clone();
    let _panicking = me.on_event(move |_, _, _| {
        inside.fetch_add(1, Ordering::SeqCst);
        panic!("as asked");
    });
    let (_goes_on, heard) = counting(&me);
    let links = to_bob.state().borrow().links.clone();
    let mut inbox = to_bob.inbox(CHAT).unwrap();
    for text in ["first", "second"] {
        to_alice.send(CHAT, text).await.unwrap();
        assert_eq!(take(&mut inbox).await, text);
    }
    assert_eq!(entered.load(Ordering::SeqCst), 1);
    assert_eq!(heard.load(Ordering::SeqCst), 2);
    assert_eq!(to_bob.state().borrow().links, links);
}

#[tokio::test]
async fn a_node_that_was_shut_down_ends_its_events_and_drops_what_its_callbacks_own() {
    let relay = MemoryRelay::new("relay");
    let (me, _bob, to_bob, _to_alice) = pair(&relay).await;
    let mut events = me.events(1);
    let owned = Arc::new(());
    let owns = owned.clone();
    let _subscription = me.on_event(move |_, _, _| assert!(Arc::strong_count(&owns) > 0));
    let late = me.clone();
    drop(to_bob);
    me.shutdown().await.unwrap();
    assert_eq!(Arc::strong_count(&owned), 1);
    let ended = async { while events.next().await.is_some() {} };
    soon("the end", ended).await;
    // Nothing happens any more.
    assert!(soon("the end", late.events(1).next()).await.is_none());
}

#[tokio::test]
async fn a_node_whose_last_handle_is_gone_ends_its_events() {
    let relay = MemoryRelay::new("relay");
    let me = on(1, &[&relay]).await;
    let mut events = me.events(64);
    linked(&me.session(id(2)).await.unwrap()).await;
    drop(me);
    let ended = async { while events.next().await.is_some() {} };
    soon("the end", ended).await;
}

#[test]
fn a_node_whose_runtime_is_gone_ends_its_events() {
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime")
    };
    let of_the_node = runtime();
    let me = of_the_node.block_on(on(1, &[]));
    let mut events = me.events(64);
    drop(of_the_node);
    let next = runtime().block_on(async { soon("the end", events.next()).await });
    assert!(next.is_none());
}

#[tokio::test]
async fn what_finds_no_room_in_the_stream_of_a_node_is_left_out() {
    let relay = MemoryRelay::new("relay");
    let (me, _bob, to_bob, to_alice) = pair(&relay).await;
    let (_counting, heard) = counting(&me);
    until(&to_bob, "the peer", |state| state.peer_online == Some(true)).await;
    let mut events = me.events(0);
    let mut inbox = to_bob.inbox(CHAT).unwrap();
    for text in ["waits", "left out", "left out too"] {
        to_alice.send(CHAT, text).await.unwrap();
        take(&mut inbox).await;
    }
    assert_eq!(heard.load(Ordering::SeqCst), 3);
    assert_eq!(events.missed(), 2);
    assert!(at_once(events.next()).await.is_some());
    assert!(at_once(events.next()).await.is_none());
    to_alice.send(CHAT, "there is room").await.unwrap();
    word_of_a_message(&mut events, id(2)).await;
}

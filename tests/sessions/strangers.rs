//! Who may open a session with us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use outlive::{CloseReason, Identity, Node, RelayState, RelayTransport, SessionEvent, Strangers};
use outlive_core::EnvelopeId;
use outlive_core::limits::{PACKET_BYTES, STRANGER_BYTES};
use outlive_core::transport::{Class, Incoming, Outgoing};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::scene::{at_once, on, on_store};
use crate::world::{CHAT, comes_true, id, node, relay, soon, take, until, way};

async fn careful(store: MemoryStore, relay: &outlive_relay::Relay) -> Node {
    Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(store)
        .strangers(Strangers::KnownOnly)
        .transport(way(relay))
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_peer_with_whom_a_session_was_opened_is_known_after_a_restart() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let me = careful(store.clone(), &relay).await;
    let session = me.session(id(2)).await.unwrap();
    comes_true("the session on disk", async || {
        !me.sessions(None, 1).await.unwrap().is_empty()
    })
    .await;
    drop((session, me));
    let me = careful(store.faults().crash(), &relay).await;
    assert_eq!(me.sessions_awake(), 0);

    let (friend, stranger) = (node(2, &relay).await, node(3, &relay).await);
    let from_stranger = stranger.session(id(1)).await.unwrap();
    let refused = from_stranger.send(CHAT, "let me in").await.unwrap();
    until(&from_stranger, "the relay", |state| !state.links.is_empty()).await;
    soon("custody", refused.custody()).await.unwrap();
    let from_friend = friend.session(id(1)).await.unwrap();
    from_friend.send(CHAT, "it is me").await.unwrap();
    assert_eq!(soon("a message", me.next_arrival()).await.unwrap(), id(2));
    let mut inbox = me.session(id(2)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "it is me");
    let known: Vec<_> = me.sessions(None, 10).await.unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].peer, id(2));
}

#[tokio::test]
async fn a_peer_that_is_opened_while_it_is_let_in_is_no_stranger() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[&relay]).await;
    let bob = on(2, &[&relay]).await;
    let hold = store.faults().hold();
    let to_alice = bob.session(id(1)).await.unwrap();
    to_alice.send(CHAT, "hello").await.unwrap();
    comes_true("the door", async || store.faults().counts().waiting > 0).await;
    let mut opening = Box::pin(alice.session(id(2)));
    let opened = at_once(opening.as_mut()).await;
    drop(hold);
    let to_bob = match opened {
        Some(opened) => opened.unwrap(),
        None => soon("the session", opening).await.unwrap(),
    };
    assert_eq!(take(&mut to_bob.inbox(CHAT).unwrap()).await, "hello");
    assert_eq!(alice.strangers(), []);
}

#[tokio::test]
async fn a_policy_that_panics_has_said_no_for_now_and_costs_the_node_no_relay() {
    let relay = MemoryRelay::new("relay");
    let has_panicked = AtomicBool::new(false);
    let ask = move |_| {
        assert!(has_panicked.swap(true, Ordering::SeqCst), "as asked");
        true
    };
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .strangers(Strangers::Ask(Arc::new(ask)))
        .transport(relay.clone())
        .start()
        .await
        .unwrap();
    let bob = on(2, &[&relay]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut events = to_alice.events(64);
    to_alice.send(CHAT, "let me in").await.unwrap();
    let refused = async {
        loop {
            let (event, _) = events.next().await.expect("the session lives");
            if let SessionEvent::PeerClosed { reason } = event {
                return reason;
            }
        }
    };
    assert_eq!(soon("an answer", refused).await, CloseReason::NotAccepted);
    let relays = alice.relays();
    assert_eq!(*relays[0].1.borrow(), RelayState::Connected);

    to_alice.send(CHAT, "it is me").await.unwrap();
    assert_eq!(
        soon("a message", alice.next_arrival()).await.unwrap(),
        id(2)
    );
    let mut inbox = alice.session(id(2)).await.unwrap().inbox(CHAT).unwrap();
    for text in ["let me in", "it is me"] {
        assert_eq!(take(&mut inbox).await, text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_blocked_before_the_app_asks_does_not_arrive() {
    let relay = MemoryRelay::new("relay");
    let bob = on(2, &[&relay]).await;
    let mut senders = Vec::new();
    for sender in [1, 3] {
        let node = on(sender, &[&relay]).await;
        let to_bob = node.session(id(2)).await.unwrap();
        let receipt = to_bob.send(CHAT, "not taken").await.unwrap();
        soon("delivery", receipt.delivered()).await.unwrap();
        senders.push((node, to_bob));
    }
    bob.block(id(1)).await.unwrap();
    assert_eq!(soon("an arrival", bob.next_arrival()).await.unwrap(), id(3));
    assert!(at_once(bob.next_arrival()).await.is_none(), "nobody else");

    bob.unblock(id(1)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "not taken");
    assert_eq!(soon("an arrival", bob.next_arrival()).await.unwrap(), id(1));
}

/// A stranger uses up what it may leave with a peer, and sends as much more as a relay has on its way
/// from one sender. None of it opens.
async fn throw_junk(relay: &outlive_relay::Relay, from: u8, to: u8) {
    let large = vec![0; PACKET_BYTES];
    let larges = std::iter::repeat_n(large, (STRANGER_BYTES as usize).div_ceil(PACKET_BYTES));
    let packets = larges.chain(std::iter::repeat_n(vec![0], 128));
    let submits = (0..).zip(packets).map(|(number, packet)| Outgoing::Submit {
        envelope: EnvelopeId(number),
        to: id(to),
        class: Class::Keep,
        ttl: 3_600,
        packet: Bytes::from(packet),
    });
    let submits: Vec<_> = submits.collect();
    let mut accepted = submits.len();
    let identity = Identity::from_seed([from; 32]);
    let connected = way(relay).connect(&identity).await;
    let mut connection = connected.expect("a relay");
    connection.sender.send(submits).await.expect("it reads");
    while accepted > 0 {
        let heard = soon("an answer", connection.receiver.receive()).await;
        if let Incoming::Accepted { .. } = heard.expect("an answer") {
            accepted -= 1;
        }
    }
}

#[tokio::test]
async fn strangers_that_send_more_than_they_may_hold_up_nobody() {
    /// One more than fills what the relay has on its way to one recipient.
    const STRANGERS: u8 = 33;
    let relay = relay().await;
    let (bob, friend) = (node(2, &relay).await, node(3, &relay).await);
    let from_friend = bob.session(id(3)).await.unwrap();
    let mut inbox = from_friend.inbox(CHAT).unwrap();
    let to_bob = friend.session(id(2)).await.unwrap();
    for n in 0..STRANGERS {
        throw_junk(&relay, 100 + n, 2).await;
    }
    // Between two of these each of the strangers has its turn: a few, and all is on its way.
    for n in 0..20 {
        let text = format!("hello {n}");
        to_bob.send(CHAT, text.clone()).await.unwrap();
        assert_eq!(take(&mut inbox).await, text);
    }
    assert_eq!(bob.strangers().len(), usize::from(STRANGERS));
}

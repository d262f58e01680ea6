//! People decide about peers: verify, pin, block; and strangers can't fill the disk.

use std::sync::Arc;

use bytes::Bytes;
use outlive::record::Key;
use outlive::{
    CloseReason, Error, Events, Identity, NetworkMonitor, Node, PeerId, Session, SessionEvent,
    Store, StoreError, Strangers, Trust, limits,
};
use outlive_core::seal::OneWay;
use outlive_core::store::ReadLimit;
use outlive_core::transport::Incoming;
use outlive_core::wire::frame::{Channels, Close, Frame};
use outlive_core::wire::packet::PacketBuilder;
use outlive_core::{Entropy, WallTime};
use outlive_relay::Relay;
use outlive_storage::{EncryptedStore, MemoryStore, Unlock};

use crate::played;
use crate::world::{CHAT, id, node, node_over, relay, soon, take, way};

async fn with(n: u8, strangers: Strangers, relay: &Relay) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(MemoryStore::new())
        .transport(way(relay))
        .strangers(strangers)
        .start()
        .await
        .unwrap()
}

/// Sends until the peer says that it does not accept us: what it says is not kept for anybody.
async fn is_refused(session: &Session, text: &'static str) {
    let events = session.events(1_024);
    session.send(CHAT, text).await.unwrap();
    hears_of_it(events).await;
}

/// Waits until the peer has said that it does not accept us. It is told once.
async fn hears_of_it(mut events: Events) {
    let closed = async {
        while let Some((event, _)) = events.next().await {
            if let SessionEvent::PeerClosed { reason } = event {
                return reason;
            }
        }
        panic!("the session ended");
    };
    assert_eq!(soon("the refusal", closed).await, CloseReason::NotAccepted);
}

async fn talk(from: &Node, to: &Node, text: &'static str) {
    let session = from.session(to.peer_id()).await.unwrap();
    session.send(CHAT, text).await.unwrap();
    let session = to.session(from.peer_id()).await.unwrap();
    assert_eq!(take(&mut session.inbox(CHAT).unwrap()).await, text);
}

#[tokio::test]
async fn two_people_who_see_the_same_number_verify_each_other() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let alice = node(1, &relay).await;
    let bob = node_over(2, store.clone(), &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    let mut events = session.events(16);
    assert_eq!(session.state().borrow().trust, Trust::Unknown);

    let theirs = alice.safety_number(id(2));
    session.verify(&theirs).await.unwrap();
    assert_eq!(bob.trust(id(1)).await.unwrap(), Trust::Verified);
    let told = async {
        loop {
            if let Some((SessionEvent::TrustChanged { trust }, state)) = events.next().await {
                return (trust, state.trust);
            }
        }
    };
    assert_eq!(
        soon("the event", told).await,
        (Trust::Verified, Trust::Verified)
    );

    drop((session, bob));
    let bob = node_over(2, store.faults().crash(), &relay).await;
    assert_eq!(bob.trust(id(1)).await.unwrap(), Trust::Verified);
    assert_eq!(bob.trust(id(3)).await.unwrap(), Trust::Unknown);
    let session = bob.session(id(1)).await.unwrap();
    let mut state = session.state();
    soon("the trust", state.wait_for(|s| s.trust == Trust::Verified))
        .await
        .unwrap();
}

#[tokio::test]
async fn somebody_in_between_is_never_verified() {
    let relay = relay().await;
    let bob = node(2, &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    // What a person sees who in truth talks to a third.
    let theirs = node(1, &relay).await.safety_number(id(3));
    let verified = session.verify(&theirs).await;
    assert!(matches!(verified, Err(Error::SafetyNumber)));
    assert_eq!(bob.trust(id(1)).await.unwrap(), Trust::Unknown);
}

#[tokio::test]
async fn a_blocked_peer_is_refused_across_restarts_until_it_is_unblocked() {
    let (store, hers, relay) = (MemoryStore::new(), MemoryStore::new(), relay().await);
    let alice = node_over(1, hers.clone(), &relay).await;
    let bob = node_over(2, store.clone(), &relay).await;
    talk(&alice, &bob, "before").await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let theirs = alice.safety_number(id(2));
    let to_alice = bob.session(id(1)).await.unwrap();
    to_alice.verify(&theirs).await.unwrap();
    let mut events = to_alice.events(16);
    let refused = to_bob.events(1_024);

    bob.block(id(1)).await.unwrap();
    assert_eq!(bob.trust(id(1)).await.unwrap(), Trust::Blocked);
    let last = async {
        let mut last = None;
        while let Some((event, _)) = events.next().await {
            last = Some(event);
        }
        last
    };
    let blocked = SessionEvent::TrustChanged {
        trust: Trust::Blocked,
    };
    assert_eq!(soon("the last event", last).await, Some(blocked));
    for result in [
        to_alice.send(CHAT, "to a blocked peer").await.map(drop),
        bob.session(id(1)).await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::Blocked(peer)) if peer == id(1)));
    }
    to_bob.send(CHAT, "one").await.unwrap();
    hears_of_it(refused).await;

    drop((to_alice, events, bob));
    let bob = node_over(2, store.faults().crash(), &relay).await;
    assert_eq!(bob.trust(id(1)).await.unwrap(), Trust::Blocked);
    // One that runs on was told.
    drop((to_bob, alice));
    let alice = node_over(1, hers.faults().crash(), &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    is_refused(&to_bob, "two").await;
    assert!(matches!(
        bob.session(id(1)).await,
        Err(Error::Blocked(peer)) if peer == id(1)
    ));

    bob.unblock(id(1)).await.unwrap();
    assert_eq!(
        bob.trust(id(1)).await.unwrap(),
        Trust::Verified,
        "as it was before"
    );
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    to_bob.send(CHAT, "three").await.unwrap();
    // The sender still had what was refused.
    for text in ["one", "two", "three"] {
        assert_eq!(take(&mut inbox).await, text);
    }
}

/// A packet of a peer that has no session, or none any more, with whom it is for.
fn sealed_by_itself(from: u8, to: u8, number: u8, frame: &Frame) -> Bytes {
    let mut builder = PacketBuilder::new();
    assert!(builder.push(frame));
    let mut entropy = Entropy::from_seed([number; 32]);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // One that is no younger than another may be a copy of it.
    let now = WallTime(since.unwrap().as_millis() as u64 + u64::from(number));
    let identity = Identity::from_seed([from; 32]);
    OneWay::new(entropy.start())
        .seal(&identity, &id(to), &builder.finish(), &mut entropy, now)
        .unwrap()
}

#[tokio::test]
async fn that_we_are_not_accepted_is_told_once_until_something_comes_from_the_peer() {
    let (alice, mut lines) = played::node(1).await;
    let session = alice.session(id(2)).await.unwrap();
    let mut events = session.events(1_024);
    let line = played::next(&mut lines).await;
    let not_accepted = Frame::Close(Close {
        reason: CloseReason::NotAccepted,
    });
    let closed = Frame::Close(Close {
        reason: CloseReason::Closed,
    });
    let listens = Frame::Subscribe(Channels {
        channels: vec![CHAT],
    });
    let frames = [
        &not_accepted,
        &not_accepted,
        &not_accepted,
        &closed,
        &closed,
        &listens,
        &closed,
        &closed,
    ];
    for (number, frame) in (1..).zip(frames) {
        line.tell(Incoming::Deliver {
            from: id(2).into(),
            envelope: None,
            packet: sealed_by_itself(2, 1, number, frame),
        })
        .await;
    }
    let (peer, online) = (id(2), true);
    line.tell(Incoming::Presence { peer, online }).await;
    let mut told = Vec::new();
    loop {
        match soon("an event", events.next()).await.expect("it lives").0 {
            SessionEvent::PeerClosed { reason } => told.push(reason),
            SessionEvent::Presence { .. } => break,
            _ => {}
        }
    }
    assert_eq!(
        told,
        [
            CloseReason::NotAccepted,
            CloseReason::Closed,
            CloseReason::Closed
        ]
    );
}

#[tokio::test]
async fn nothing_is_sent_to_a_blocked_peer() {
    let relay = relay().await;
    let network = NetworkMonitor::new();
    network.down();
    let bob = Node::builder()
        .identity(Identity::from_seed([2; 32]))
        .store(MemoryStore::new())
        .transport(way(&relay))
        .network(network.clone())
        .start()
        .await
        .unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    to_alice.send(CHAT, "waits").await.unwrap();
    bob.block(id(1)).await.unwrap();

    let (alice, carol) = (node(1, &relay).await, node(3, &relay).await);
    network.up();
    talk(&bob, &carol, "to somebody else").await;
    talk(&alice, &carol, "hello").await;
    let known = |sessions: Vec<outlive::SessionInfo>| -> Vec<PeerId> {
        sessions.into_iter().map(|info| info.peer).collect()
    };
    let sessions = alice.sessions(None, 10).await.unwrap();
    assert_eq!(known(sessions), [id(3)], "bob sent her nothing");

    bob.unblock(id(1)).await.unwrap();
    let _session = bob.session(id(1)).await.unwrap();
    let mut inbox = alice.session(id(2)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "waits");
}

#[tokio::test]
async fn only_known_and_trusted_peers_are_let_in_where_strangers_are_not() {
    let relay = relay().await;
    let bob = with(2, Strangers::KnownOnly, &relay).await;
    let (alice, carol) = (node(1, &relay).await, node(3, &relay).await);
    bob.set_trust(id(1), Trust::Pinned).await.unwrap();
    let to_bob = carol.session(id(2)).await.unwrap();
    is_refused(&to_bob, "from a stranger").await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let receipt = to_bob.send(CHAT, "from a pinned peer").await.unwrap();
    soon("delivery", receipt.delivered()).await.unwrap();
    let sessions = bob.sessions(None, 10).await.unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].peer, id(1));
    assert_eq!(sessions[0].trust, Trust::Pinned);
    assert!(bob.strangers().is_empty());
}

#[tokio::test]
async fn a_block_holds_though_the_store_can_not_be_read() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let bob = node_over(2, store.clone(), &relay).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    store.faults().fail_reads(1, &StoreError::Full);
    bob.block(id(1)).await.unwrap();
    let sent = to_alice.send(CHAT, "to a blocked peer").await;
    assert!(matches!(sent, Err(Error::Blocked(_))), "{sent:?}");
}

#[tokio::test]
async fn the_app_is_asked_about_strangers() {
    let relay = relay().await;
    let ask = Arc::new(|peer| peer == id(1));
    let bob = with(2, Strangers::Ask(ask), &relay).await;
    let (alice, carol) = (node(1, &relay).await, node(3, &relay).await);
    is_refused(&carol.session(id(2)).await.unwrap(), "no").await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let receipt = to_bob.send(CHAT, "yes").await.unwrap();
    soon("delivery", receipt.delivered()).await.unwrap();
    assert_eq!(bob.next_arrival().await.unwrap(), id(1));
    assert!(bob.strangers().is_empty());
}

/// Bytes of all values under keys of this kind.
pub(crate) async fn kept(store: &MemoryStore, kinds: &[u8]) -> u64 {
    let all = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let mut bytes = 0;
    for kind in kinds {
        let range = outlive::record::prefix_range(&[*kind]);
        let records = store.range(range, all).await.unwrap();
        bytes += records.iter().map(|(_, v)| v.len() as u64).sum::<u64>();
    }
    bytes
}

#[tokio::test]
async fn a_stranger_fills_no_disk_and_loses_nothing_once_accepted() {
    const MESSAGES: usize = 200;
    let (store, relay) = (MemoryStore::new(), relay().await);
    let alice = node(1, &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let text = |n: usize| format!("{n} {}", "x".repeat(16_000));
    let mut receipts = Vec::new();
    for n in 0..MESSAGES {
        receipts.push(to_bob.send(CHAT, text(n)).await.unwrap());
    }
    soon("custody", receipts[MESSAGES - 1].custody())
        .await
        .unwrap();

    let bob = node_over(2, store.clone(), &relay).await;
    let fits = limits::STRANGER_BYTES as usize / 16_100;
    soon("the first", receipts[fits - 1].delivered())
        .await
        .unwrap();
    // Time for more to come, if more came.
    let carol = node(3, &relay).await;
    for _ in 0..5 {
        talk(&carol, &bob, "hello").await;
    }
    assert_eq!(bob.strangers(), [id(1)]);
    let most = limits::STRANGER_BYTES + limits::PACKET_BYTES as u64;
    let kept = kept(&store, b"ig").await;
    assert!(kept <= most, "{kept} bytes of a stranger");

    let session = bob.session(id(1)).await.unwrap();
    assert!(bob.strangers().is_empty());
    let mut inbox = session.inbox(CHAT).unwrap();
    for n in 0..MESSAGES {
        assert_eq!(take(&mut inbox).await, text(n));
    }
    let mark = Key::Stranger(id(1)).to_bytes();
    assert_eq!(store.get(mark).await.unwrap(), None);
}

#[tokio::test]
async fn a_stranger_that_sends_more_than_it_may_leave_here_is_announced() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let large = "x".repeat(3 * limits::STRANGER_BYTES as usize);
    let to_bob = alice.session(id(2)).await.unwrap();
    to_bob.send(CHAT, large.clone()).await.unwrap();
    // No message is whole yet, and none would be before the peer is accepted.
    let knocks = soon("the stranger", bob.next_arrival()).await.unwrap();
    let mut inbox = bob.session(knocks).await.unwrap().inbox(CHAT).unwrap();
    assert!(take(&mut inbox).await == large);
}

#[tokio::test]
async fn a_node_lives_on_an_encrypted_store_and_is_told_when_the_key_is_missing() {
    let (raw, relay) = (MemoryStore::new(), relay().await);
    let unlock = Unlock::key([5; 32]);
    let start = async |store: MemoryStore| {
        let store = EncryptedStore::open(store, &unlock).await.unwrap();
        Node::builder()
            .identity(Identity::from_seed([2; 32]))
            .store(store)
            .transport(way(&relay))
            .start()
            .await
            .unwrap()
    };
    let alice = node(1, &relay).await;
    let bob = start(raw.clone()).await;
    talk(&alice, &bob, "kept secret").await;
    drop(bob);
    let raw = raw.faults().crash();
    let locked = Node::builder()
        .identity(Identity::from_seed([2; 32]))
        .store(raw.clone())
        .start()
        .await;
    assert!(matches!(locked, Err(Error::Store(StoreError::Locked))));
    let bob = start(raw).await;
    talk(&alice, &bob, "again").await;
}

#[tokio::test]
async fn nothing_but_unblocking_ends_a_block() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let session = bob.session(id(1)).await.unwrap();
    bob.block(id(1)).await.unwrap();
    let mut results = vec![session.verify(&alice.safety_number(id(2))).await];
    for trust in [Trust::Unknown, Trust::Pinned, Trust::Verified] {
        results.push(bob.set_trust(id(1), trust).await);
    }
    for result in results {
        assert!(
            matches!(result, Err(Error::Blocked(peer)) if peer == id(1)),
            "{result:?}"
        );
    }
    assert_eq!(bob.trust(id(1)).await.unwrap(), Trust::Blocked);
    bob.block(id(1)).await.expect("it is so already");
    bob.unblock(id(1)).await.unwrap();
    assert_eq!(bob.trust(id(1)).await.unwrap(), Trust::Unknown);
}

//! Messages arrive: once, in order, whatever the network does.

use std::sync::Arc;

use outlive::{
    ChannelId, Error, NetworkMonitor, Node, ReceiptState, Sending, Stage, Store, Waiting,
};
use outlive_storage::MemoryStore;

use crate::world::{CHAT, id, node, node_over, relay, relay_over, soon, take, until, way};

#[tokio::test]
async fn a_message_reaches_the_peer_and_its_receipt_says_how_far_it_got() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let session = alice.session(id(2)).await.unwrap();
    let receipt = session.send(CHAT, "hello").await.unwrap();
    soon("delivery", receipt.delivered()).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "hello");
    soon("consumption", receipt.consumed()).await.unwrap();
    assert_eq!(receipt.state(), ReceiptState::Reached(Stage::Consumed));
    alice.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_message_for_an_absent_peer_waits_and_its_sender_may_leave() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    for n in 0..200 {
        session.send(CHAT, format!("{n}")).await.unwrap();
    }
    let last = session.send(CHAT, "last").await.unwrap();
    soon("custody", last.custody()).await.unwrap();
    assert_eq!(last.state(), ReceiptState::Reached(Stage::Custody));
    alice.shutdown().await.unwrap();

    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..200 {
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    assert_eq!(take(&mut inbox).await, "last");
}

#[tokio::test]
async fn messages_sent_before_a_restart_leave_after_it_without_a_new_send() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let offline = NetworkMonitor::new();
    offline.down();
    let alice = Node::builder()
        .identity(outlive::Identity::from_seed([1; 32]))
        .store(store.clone())
        .transport(way(&relay))
        .network(offline)
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    session.send(CHAT, "before").await.unwrap();
    drop((session, alice));
    let store = store.faults().crash();

    let _alice = node_over(1, store, &relay).await;
    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "before");
}

#[tokio::test]
async fn what_was_not_committed_comes_again_after_a_restart_and_is_marked() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let alice = node(1, &relay).await;
    let bob = node_over(2, store.clone(), &relay).await;
    alice
        .session(id(2))
        .await
        .unwrap()
        .send(CHAT, "once")
        .await
        .unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let first = soon("the message", inbox.next()).await.unwrap();
    assert!(!first.redelivered());
    let name = first.id();
    drop((first, inbox, bob));
    let store = store.faults().crash();

    let bob = node_over(2, store, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let again = soon("the message again", inbox.next()).await.unwrap();
    assert!(again.redelivered());
    assert_eq!(again.id(), name);
    again.commit().await.unwrap();
    assert!(inbox.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let payload: Vec<u8> = (0..1_000_003u32).map(|n| (n % 251) as u8).collect();
    let session = alice.session(id(2)).await.unwrap();
    session
        .send(ChannelId::FILES, payload.clone())
        .await
        .unwrap();
    let mut inbox = bob
        .session(id(1))
        .await
        .unwrap()
        .inbox(ChannelId::FILES)
        .unwrap();
    let delivery = soon("the file", inbox.next()).await.unwrap();
    assert!(delivery.payload()[..] == payload[..]);
    delivery.commit().await.unwrap();
    let too_large = session
        .send(CHAT, vec![0; outlive::limits::MESSAGE_BYTES + 1])
        .await;
    assert!(matches!(
        too_large,
        Err(Error::Send(outlive::SendError::TooLarge { .. }))
    ));
}

#[tokio::test]
async fn a_relay_that_restarts_loses_nothing_it_accepted() {
    let store = MemoryStore::new();
    let relay = relay_over(Arc::new(store.clone())).await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let receipt = session.send(CHAT, "kept").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    alice.shutdown().await.unwrap();
    drop(relay);
    let kept: Arc<dyn Store> = Arc::new(store.faults().crash());

    let relay = relay_over(kept).await;
    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "kept");
}

#[tokio::test]
async fn a_network_that_comes_up_is_dialed_at_once() {
    let relay = relay().await;
    let network = NetworkMonitor::new();
    network.down();
    let alice = Node::builder()
        .identity(outlive::Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way(&relay))
        .network(network.clone())
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let receipt = session.send(CHAT, "waits").await.unwrap();
    assert_eq!(receipt.state(), ReceiptState::Waiting(Waiting::Link));
    assert!(session.state().borrow().links.is_empty());
    network.up();
    soon("custody", receipt.custody()).await.unwrap();
    network.down();
    until(&session, "the link to go", |state| state.links.is_empty()).await;
    network.up();
    until(&session, "the link to come back", |state| {
        !state.links.is_empty()
    })
    .await;
}

#[tokio::test]
async fn the_same_key_sends_once_across_restarts() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let alice = node_over(1, store.clone(), &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let first = session.send_once(b"key", CHAT, "once").await.unwrap().id();
    assert_eq!(
        session.send_once(b"key", CHAT, "twice").await.unwrap().id(),
        first
    );
    drop((session, alice));
    let alice = node_over(1, store.faults().crash(), &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    assert_eq!(
        session
            .send_once(b"key", CHAT, "thrice")
            .await
            .unwrap()
            .id(),
        first
    );
    session.send(CHAT, "next").await.unwrap();

    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "once");
    assert_eq!(take(&mut inbox).await, "next");
}

#[tokio::test]
async fn what_has_not_left_the_device_can_be_taken_back() {
    let relay = relay().await;
    let network = NetworkMonitor::new();
    network.down();
    let alice = Node::builder()
        .identity(outlive::Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way(&relay))
        .network(network.clone())
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    session.send(CHAT, "one").await.unwrap();
    let two = session.send(CHAT, "two").await.unwrap();
    let three = session.send(CHAT, "three").await.unwrap();
    two.cancel().await.unwrap();
    network.up();
    soon("custody", three.custody()).await.unwrap();
    assert!(matches!(three.cancel().await, Err(Error::TooLate)));

    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "one");
    assert_eq!(take(&mut inbox).await, "three");
}

#[tokio::test]
async fn a_message_whose_time_is_over_ends_and_its_receipt_says_so() {
    let relay = relay().await;
    let network = NetworkMonitor::new();
    network.down();
    let alice = Node::builder()
        .identity(outlive::Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way(&relay))
        .network(network.clone())
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let short = Sending {
        ttl: Some(std::time::Duration::from_millis(20)),
        once: None,
    };
    let gone = session.send_with(CHAT, "gone", short).await.unwrap();
    let ended = soon("the end", gone.delivered()).await;
    assert!(matches!(ended, Err(Error::Ended(outlive::Ending::Expired))));
    session.send(CHAT, "kept").await.unwrap();
    network.up();
    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "kept");
}

#[tokio::test]
async fn a_second_consumer_of_a_channel_is_an_error() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let inbox = session.inbox(CHAT).unwrap();
    assert!(matches!(session.inbox(CHAT), Err(Error::InboxTaken(CHAT))));
    drop(inbox);
    assert!(session.inbox(CHAT).is_ok());
    assert!(matches!(alice.session(id(1)).await, Err(Error::Oneself(_))));
}

#[tokio::test]
async fn both_directions_go_on_through_a_hundred_cuts() {
    const MESSAGES: u32 = 300;
    let relay = relay().await;
    let (one, two) = (NetworkMonitor::new(), NetworkMonitor::new());
    let start = |n: u8, network: &NetworkMonitor| {
        Node::builder()
            .identity(outlive::Identity::from_seed([n; 32]))
            .store(MemoryStore::new())
            .transport(way(&relay))
            .network(network.clone())
            .start()
    };
    let (alice, bob) = (start(1, &one).await.unwrap(), start(2, &two).await.unwrap());
    let (to_bob, to_alice) = (
        alice.session(id(2)).await.unwrap(),
        bob.session(id(1)).await.unwrap(),
    );
    let cutting = async {
        for _ in 0..50 {
            for (network, session) in [(&one, &to_bob), (&two, &to_alice)] {
                until(session, "a link", |state| !state.links.is_empty()).await;
                network.down();
                until(session, "the cut", |state| state.links.is_empty()).await;
                network.up();
            }
        }
    };
    let sending = async {
        for n in 0..MESSAGES {
            to_bob.send(CHAT, format!("{n}")).await.unwrap();
            to_alice.send(CHAT, format!("{n}")).await.unwrap();
        }
    };
    let receive = async |session: &outlive::Session| {
        let mut inbox = session.inbox(CHAT).unwrap();
        for n in 0..MESSAGES {
            assert_eq!(take(&mut inbox).await, format!("{n}"));
        }
    };
    tokio::join!(cutting, sending, receive(&to_bob), receive(&to_alice));
    assert!(
        to_bob
            .inbox(CHAT)
            .unwrap()
            .try_next()
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_message_taken_by_two_consumers_in_turn_is_committed_by_both() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let session = alice.session(id(2)).await.unwrap();
    session.send(CHAT, "once").await.unwrap();
    let theirs = bob.session(id(1)).await.unwrap();
    let mut inbox = theirs.inbox(CHAT).unwrap();
    let first = soon("the message", inbox.next()).await.unwrap();
    drop(inbox);
    let mut inbox = theirs.inbox(CHAT).unwrap();
    let second = soon("the message again", inbox.next()).await.unwrap();
    assert!(second.redelivered());
    first.commit().await.unwrap();
    soon("the second commit", second.commit()).await.unwrap();
    assert!(inbox.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_not_committed_when_its_session_was_closed_comes_again_and_is_marked() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let session = alice.session(id(2)).await.unwrap();
    session.send(CHAT, "once").await.unwrap();
    let theirs = bob.session(id(1)).await.unwrap();
    let mut inbox = theirs.inbox(CHAT).unwrap();
    let first = soon("the message", inbox.next()).await.unwrap().id();
    drop(inbox);
    theirs.close().await.unwrap();
    session.send(CHAT, "after").await.unwrap();

    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let again = soon("the message again", inbox.next()).await.unwrap();
    assert!(again.redelivered());
    assert_eq!(again.id(), first);
    again.commit().await.unwrap();
    assert_eq!(take(&mut inbox).await, "after");
}

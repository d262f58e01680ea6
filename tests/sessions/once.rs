//! Sending under a key, at the moments at which it could go wrong.

use std::time::Duration;

use outlive::{Ending, Error, Identity, Node, Receipt, ReceiptState, Sending};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::watched::Watched;
use crate::world::{CHAT, id, soon, take};

#[tokio::test]
async fn a_key_used_again_while_its_message_is_on_its_way_to_the_disk_sends_nothing() {
    let store = Watched::over(MemoryStore::new());
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(store.clone())
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let keyed = Sending {
        once: Some(b"key"),
        ..Sending::default()
    };
    store.gate();
    let other = session
        .start_send(CHAT, "other", Sending::default())
        .await
        .unwrap();
    store.at_the_gate(1).await;
    let first = session.start_send(CHAT, "once", keyed).await.unwrap();
    // Answered at once, and behind the message: that one waits for the next write then.
    assert!(!session.send_volatile(CHAT, "").await.unwrap());
    store.let_through(1);
    other.durable().await.unwrap();
    store.at_the_gate(1).await;
    let again = session.start_send(CHAT, "twice", keyed).await.unwrap();
    assert!(!session.send_volatile(CHAT, "").await.unwrap());
    store.let_through(10);
    let first = first.durable().await.unwrap();
    assert_eq!(again.durable().await.unwrap().id(), first.id());
}

#[tokio::test]
async fn a_key_of_a_message_that_ended_says_how_and_never_that_it_was_delivered() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alone = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(store.clone())
        .start()
        .await
        .unwrap();
    let session = alone.session(id(2)).await.unwrap();
    let long = vec![7; 100_000];
    let keyed = Sending {
        ttl: Some(Duration::from_millis(20)),
        once: Some(b"expired"),
    };
    let expired = session.send_with(CHAT, long.clone(), keyed).await.unwrap();
    assert_eq!(ending(&expired).await, Ending::Expired);
    let cancelled = session.send_once(b"cancelled", CHAT, "cancelled");
    cancelled.await.unwrap().cancel().await.unwrap();
    session.send_once(b"kept", CHAT, "kept").await.unwrap();
    let keys = [
        (&b"expired"[..], Ending::Expired),
        (b"cancelled", Ending::Cancelled),
    ];
    for (key, how) in keys {
        let again = session.send_once(key, CHAT, "again").await.unwrap();
        assert_eq!(ending(&again).await, how);
    }
    drop((expired, session));
    alone.shutdown().await.unwrap();
    let node = |n, store| {
        Node::builder()
            .identity(Identity::from_seed([n; 32]))
            .store(store)
            .transport(relay.clone())
            .start()
    };
    let alice = node(1, store.faults().crash()).await.unwrap();
    let bob = node(2, MemoryStore::new()).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    // What is behind them is at the peer.
    let kept = session.send_once(b"kept", CHAT, "kept").await.unwrap();
    soon("delivery", kept.delivered()).await.unwrap();
    for (key, how) in keys {
        let again = session.send_once(key, CHAT, "again").await.unwrap();
        assert_eq!(again.state(), ReceiptState::Ended(how));
        assert_eq!(ending(&again).await, how);
    }
    session.send(CHAT, "last").await.unwrap();
    assert_eq!(take(&mut inbox).await, "kept");
    assert_eq!(take(&mut inbox).await, "last");
}

async fn ending(receipt: &Receipt) -> Ending {
    match soon("the end", receipt.delivered()).await {
        Err(Error::Ended(how)) => how,
        other => panic!("{other:?} is no end"),
    }
}

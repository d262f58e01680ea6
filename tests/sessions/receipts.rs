//! What a receipt says of a message that waits.

use std::sync::Arc;
use std::time::Duration;

use outlive::{
    Ending, Error, Identity, NetworkMonitor, Node, Receipt, ReceiptState, Sending, Stage, Waiting,
};
use outlive_core::transport::Refusal;
use outlive_relay::{Relay, RelayConfig};
use outlive_storage::MemoryStore;

use crate::world::{CHAT, id, node, relay, soon, take, until, way};

/// A relay whose mailboxes hold next to nothing.
async fn narrow_relay() -> Relay {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 2;
    Relay::builder()
        .store(Arc::new(MemoryStore::new()))
        .config(config)
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port")
}

async fn settled(receipt: &Receipt) -> ReceiptState {
    let mut state = receipt.state();
    while matches!(
        state,
        ReceiptState::Reached(Stage::Queued) | ReceiptState::Waiting(Waiting::Link)
    ) {
        state = soon("word of the message", receipt.changed(state))
            .await
            .unwrap();
    }
    state
}

#[tokio::test]
async fn a_message_that_waits_says_for_what_and_behind_which_message() {
    let relay = narrow_relay().await;
    let network = NetworkMonitor::new();
    network.down();
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way(&relay))
        .network(network.clone())
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let first = session.send(CHAT, "0").await.unwrap();
    assert_eq!(first.state(), ReceiptState::Waiting(Waiting::Link));
    network.up();
    assert_eq!(settled(&first).await, ReceiptState::Reached(Stage::Custody));

    let full = Refusal::MailboxFull;
    let mut count = 1;
    let head = loop {
        let next = session.send(CHAT, format!("{count}")).await.unwrap();
        count += 1;
        match settled(&next).await {
            ReceiptState::Reached(Stage::Custody) => assert!(count < 5, "no end to the mailbox"),
            state => {
                assert_eq!(state, ReceiptState::Waiting(Waiting::Relay(full)));
                break next;
            }
        }
    };
    let behind = session.send(CHAT, format!("{count}")).await.unwrap();
    let waits = ReceiptState::Waiting(Waiting::Behind {
        message: head.id(),
        reason: full,
    });
    assert_eq!(behind.state(), waits);
    network.down();
    until(&session, "the cut", |state| state.links.is_empty()).await;
    assert_eq!(behind.state(), ReceiptState::Waiting(Waiting::Link));
    let taken_back = session.send(CHAT, "taken back").await.unwrap();
    taken_back.cancel().await.unwrap();
    network.up();

    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..=count {
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    soon("delivery", behind.delivered()).await.unwrap();
    assert!(matches!(head.state(), ReceiptState::Reached(stage) if stage >= Stage::Delivered));
    assert!(matches!(head.cancel().await, Err(Error::TooLate)));
}

#[tokio::test]
async fn what_is_known_of_a_message_is_told_when_its_session_is_over_too() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let to_bob = alice.session(id(2)).await.unwrap();
    let read = to_bob.send(CHAT, "read").await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "read");
    soon("word of it", read.consumed()).await.unwrap();
    let nobody = alice.session(id(3)).await.unwrap();
    let short = Sending {
        ttl: Some(Duration::from_millis(20)),
        once: None,
    };
    let late = nobody.send_with(CHAT, "late", short).await.unwrap();
    let expired = |result| matches!(result, Err(Error::Ended(Ending::Expired)));
    assert!(expired(soon("its end", late.delivered()).await));

    to_bob.close().await.unwrap();
    nobody.close().await.unwrap();
    read.consumed().await.unwrap();
    assert!(expired(late.consumed().await));
    alice.shutdown().await.unwrap();
    read.consumed().await.unwrap();
    assert!(expired(late.consumed().await));
}

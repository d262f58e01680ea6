//! What arrives and is not taken at once: full inboxes.

use outlive::limits::InboxLimits;
use outlive::{ChannelId, Identity, Node, Session};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;

use crate::world::{CHAT, id, node, relay, soon, take, way};

const OTHER: ChannelId = ChannelId::FIRST_APP;

/// More envelopes than a relay has on the way for one sender at a time.
const MANY: u32 = 300;

async fn small(n: u8, store: MemoryStore, relay: &Relay) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store)
        .transport(way(relay))
        .inbox_limits(InboxLimits {
            messages: 8,
            ..InboxLimits::default()
        })
        .start()
        .await
        .expect("a node")
}

/// Sends each message in an envelope of its own.
async fn send_one_by_one(session: &Session, channel: ChannelId, count: u32) {
    for n in 0..count {
        let receipt = session.send(channel, format!("{n}")).await.unwrap();
        soon("custody", receipt.custody()).await.unwrap();
    }
}

#[tokio::test]
async fn a_channel_nobody_commits_holds_up_no_other() {
    let relay = relay().await;
    let (alice, bob) = (
        node(1, &relay).await,
        small(2, MemoryStore::new(), &relay).await,
    );
    let (to_bob, to_alice) = (
        alice.session(id(2)).await.unwrap(),
        bob.session(id(1)).await.unwrap(),
    );
    let mut chat = to_alice.inbox(CHAT).unwrap();
    let mut other = to_alice.inbox(OTHER).unwrap();
    send_one_by_one(&to_bob, CHAT, MANY).await;
    for n in 0..20 {
        to_bob.send(OTHER, format!("{n}")).await.unwrap();
    }
    for n in 0..20 {
        assert_eq!(take(&mut other).await, format!("{n}"));
    }
    // The full one goes on where it was.
    for n in 0..MANY {
        assert_eq!(take(&mut chat).await, format!("{n}"));
    }
    assert!(chat.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_full_channel_holds_up_no_other_after_a_restart_either() {
    let (mut store, relay) = (MemoryStore::new(), relay().await);
    let alice = node(1, &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    send_one_by_one(&to_bob, CHAT, MANY).await;
    for restart in 0..3 {
        let bob = small(2, store.clone(), &relay).await;
        let mut other = bob.session(id(1)).await.unwrap().inbox(OTHER).unwrap();
        to_bob.send(OTHER, format!("{restart}")).await.unwrap();
        assert_eq!(take(&mut other).await, format!("{restart}"));
        drop((other, bob));
        store = store.faults().crash();
    }
}

#[tokio::test]
async fn what_a_closed_session_left_in_the_mailbox_comes_when_it_is_opened_again() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let bob = small(2, MemoryStore::new(), &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    send_one_by_one(&alice.session(id(2)).await.unwrap(), CHAT, MANY).await;
    alice.shutdown().await.unwrap();
    let mut chat = session.inbox(CHAT).unwrap();
    assert_eq!(take(&mut chat).await, "0");
    drop(chat);
    session.close().await.unwrap();

    let mut chat = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for n in 1..MANY {
        assert_eq!(take(&mut chat).await, format!("{n}"));
    }
}

//! What a relay gets to see: its whole data directory and every byte of its traffic are searched for
//! what the peers said to each other.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use outlive::{ChannelId, Identity, Node};
use outlive_core::record::{Key, Record};
use outlive_core::seal::Keys;
use outlive_core::store::Store;
use outlive_storage::{MemoryStore, SledStore};
use outlive_transports::WebSocketRelay;

use crate::misuse;
use crate::tap::{Tap, contents, holds};
use crate::world::{id, node_over, relay, relay_over, soon};

/// What must not be found: a line of chat, the name of a file and what is in it, a description of a
/// connection.
const SECRETS: [(ChannelId, &str); 3] = [
    (ChannelId::MESSAGES, "meet me at the old bridge at nine"),
    (ChannelId::FILES, "holiday-photo-of-the-bridge.jpeg"),
    (ChannelId::FILES, "these are the bytes of the photograph"),
];
const SIGNAL: &str =
    "v=0 o=- 4611731400430051336 2 IN IP4 a=fingerprint:sha-256 candidate:842163049";

async fn node(n: u8, dir: &Path, tap: &Tap) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(SledStore::open(dir.join(n.to_string())).unwrap())
        .transport(WebSocketRelay::new(&tap.address).unwrap())
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_relay_finds_nothing_of_what_is_said_in_its_files_or_its_traffic() {
    let dir = tempfile::tempdir().unwrap();
    let mailboxes = dir.path().join("mailboxes");
    let store = SledStore::open(&mailboxes).unwrap();
    let relay = relay_over(Arc::new(store)).await;
    let tap = Tap::before(relay.local_addr()).await;

    // First to a peer that is away, so that it all waits in the mailbox; then back, under keys.
    for pair in [(1, 2), (2, 1)] {
        // Of its own accord no node says what this test could know beforehand.
        let store = SledStore::open(dir.path().join(pair.0.to_string())).unwrap();
        let signals = [Bytes::from_static(SIGNAL.as_bytes())];
        misuse::queue(&store, pair, ChannelId::SIGNALING, signals).await;
    }
    let alice = node(1, dir.path(), &tap).await;
    let session = alice.session(id(2)).await.unwrap();
    for (channel, secret) in SECRETS {
        let receipt = session.send(channel, secret).await.unwrap();
        soon("custody", receipt.custody()).await.unwrap();
    }
    let waiting = contents(&mailboxes);
    let bob = node(2, dir.path(), &tap).await;
    let back = bob.session(id(1)).await.unwrap();
    for channel in [ChannelId::MESSAGES, ChannelId::FILES] {
        let (mut here, mut there) = (
            back.inbox(channel).unwrap(),
            session.inbox(channel).unwrap(),
        );
        for (_, secret) in SECRETS.iter().filter(|(of, _)| *of == channel) {
            let delivery = soon("the message", here.next()).await.unwrap();
            assert_eq!(delivery.payload(), secret.as_bytes());
            delivery.commit().await.unwrap();
            let receipt = back.send(channel, *secret).await.unwrap();
            soon("delivery", receipt.delivered()).await.unwrap();
            soon("the echo", there.next())
                .await
                .unwrap()
                .commit()
                .await
                .unwrap();
        }
    }
    drop((session, back));
    alice.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
    relay.shutdown().await.unwrap();

    let [by_clients, by_relay] = tap.said();
    let after = contents(&mailboxes);
    // The search would find what is there: the recipient's name is.
    for place in [&by_clients, &by_relay, &waiting] {
        assert!(holds(place, id(2).as_bytes()));
    }
    let secrets = SECRETS.iter().map(|(_, secret)| *secret);
    for secret in secrets.chain([SIGNAL]) {
        // Parts too: a message may be cut anywhere.
        for part in secret.as_bytes().chunks(12).filter(|part| part.len() == 12) {
            for (place, bytes) in [
                ("what clients say", &by_clients),
                ("what the relay says", &by_relay),
                ("mailbox", &waiting),
                ("rest", &after),
            ] {
                let text = String::from_utf8_lossy(part).into_owned();
                assert!(!holds(bytes, part), "{text} is in the {place}");
            }
        }
    }
}

#[tokio::test]
async fn a_list_of_sessions_shows_no_keys() {
    let relay = relay().await;
    let stores = [MemoryStore::new(), MemoryStore::new()];
    let alice = node_over(1, stores[0].clone(), &relay).await;
    let bob = node_over(2, stores[1].clone(), &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut inbox = to_bob.inbox(ChannelId::MESSAGES).unwrap();
    for (n, session) in [(1, &to_bob), (2, &to_alice)] {
        let receipt = session.send(ChannelId::MESSAGES, "hello").await.unwrap();
        soon(&format!("delivery of {n}"), receipt.delivered())
            .await
            .unwrap();
    }
    soon("the answer", inbox.next()).await.unwrap();
    let [store, _] = &stores;
    let key = Key::Session(id(2)).to_bytes();
    let bytes = store.get(key).await.unwrap().unwrap();
    let record = outlive_core::record::Session::from_bytes(&bytes).unwrap();
    assert_ne!(record.keys, Keys::default(), "there are keys to hide");
    let listed = outlive::list_sessions(store, None, 10).await.unwrap();
    assert_eq!(listed[0].peer, id(2));
    assert_eq!(listed[0].record.keys, Keys::default());
    drop((inbox, to_bob, to_alice));
    alice.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
}

//! What a relay gets to see of how peers find each other, and of their files: its data directory, and
//! what it is told and tells, are searched for it.

use std::sync::Arc;

use outlive::{FileEvent, Identity, Node, Session};
use outlive_relay::Relay;
use outlive_storage::{MemoryStore, SledStore};
use outlive_transports::WebSocketRelay;

use crate::tap::{Tap, contents, holds};
use crate::world::{id, soon, webrtc};

/// What every description of a connection and every candidate has, in the clear.
const SIGNALS: [&str; 5] = [
    "a=fingerprint",
    "sha-256",
    "ice-ufrag",
    "candidate:",
    "typ host",
];
const NAME: &str = "holiday-photo-of-the-bridge.jpeg";
const CONTENT: &str = "these are the bytes of the photograph";

async fn start(n: u8, tap: &Tap) -> (Node, Session) {
    let node = Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(MemoryStore::new())
        .transport(WebSocketRelay::new(&tap.address).expect("an address"))
        .negotiated(webrtc());
    let node = node.start().await.expect("a node");
    let session = node.session(id(3 - n)).await.expect("a session");
    (node, session)
}

async fn until_carried_by(session: &Session, transport: &str) {
    let mut state = session.state();
    let carried = state.wait_for(|state| {
        let mut links = state.links.iter();
        let carrier = links.find(|link| Some(link.generation) == state.carrier);
        carrier.is_some_and(|link| link.transport == transport)
    });
    soon(transport, carried).await.expect("it lives");
}

#[tokio::test]
async fn a_relay_sees_neither_offers_nor_candidates_nor_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let mailboxes = dir.path().join("mailboxes");
    let relay = Relay::builder().store(Arc::new(SledStore::open(&mailboxes).expect("a store")));
    let relay = relay
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port");
    let tap = Tap::before(relay.local_addr()).await;
    let path = dir.path().join(NAME);
    std::fs::write(&path, CONTENT).expect("a file");

    // The file, offers and candidates wait in the mailbox of one who is away.
    let (alice, to_bob) = start(1, &tap).await;
    let sending = to_bob.send_file(&path).await.expect("it is sent");
    let behind = to_bob.send(outlive::ChannelId::MESSAGES, "behind it").await;
    soon("custody", behind.expect("it is sent").custody())
        .await
        .expect("it is there");
    let waiting = contents(&mailboxes);
    let (bob, to_alice) = start(2, &tap).await;
    let mut files = to_alice.files().await.expect("files");
    let into = dir.path().join("into");
    std::fs::create_dir(&into).expect("a directory");
    loop {
        match soon("the file", files.next()).await.expect("it lives") {
            FileEvent::Offered(mut offer) => offer.accept(&into).await.expect("there is room"),
            FileEvent::Received(file) => break file.commit().await.expect("it is kept"),
            FileEvent::Progress(..) => {}
            FileEvent::Failed(_, reason) => panic!("the file failed: {reason}"),
        }
    }
    soon("the end of the file", sending.done())
        .await
        .expect("it arrived");
    for session in [&to_bob, &to_alice] {
        until_carried_by(session, "webrtc").await;
    }
    drop((files, sending, to_bob, to_alice));
    for node in [alice, bob] {
        soon("its end", node.shutdown()).await.expect("it ends");
    }
    relay.shutdown().await.expect("it ends");

    let after = contents(&mailboxes);
    let [by_clients, by_relay] = tap.said();
    let places = [
        ("what clients say", by_clients),
        ("what the relay says", by_relay),
        ("its mailboxes", waiting),
        ("its mailboxes in the end", after),
    ];
    // The search would find what is there: who it is for, or from.
    for (place, bytes) in &places[..3] {
        assert!(holds(bytes, id(2).as_bytes()), "{place}");
    }
    let parts = [NAME, CONTENT].map(|secret| secret.as_bytes().chunks_exact(12));
    let signals = SIGNALS.iter().map(|signal| signal.as_bytes());
    for secret in signals.chain(parts.into_iter().flatten()) {
        for (place, bytes) in &places {
            let text = String::from_utf8_lossy(secret);
            assert!(!holds(bytes, secret), "{text} is in {place}");
        }
    }
}

//! What a relay learns of files.

use std::path::Path;
use std::sync::Arc;

use outlive::{ChannelId, Identity, Node};
use outlive_relay::Relay;
use outlive_storage::{MemoryStore, SledStore};
use outlive_transports::WebSocketRelay;

use crate::world::{id, soon};

fn contents(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.extend(std::fs::read(path).unwrap());
        }
    }
    all
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_relay_finds_neither_the_name_nor_the_content_of_a_file_in_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mailboxes = dir.path().join("mailboxes");
    let store = SledStore::open(&mailboxes).unwrap();
    let relay = Relay::builder()
        .store(Arc::new(store))
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let way = WebSocketRelay::new(&format!("ws://{}", relay.local_addr())).unwrap();
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way)
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let name = "holiday-photo-of-the-bridge.jpeg";
    let content = "these are the bytes of the photograph";
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    session.send_file(path).await.unwrap();
    let behind = session.send(ChannelId::FILES, "behind it").await.unwrap();
    soon("custody", behind.custody()).await.unwrap();
    drop((behind, session));
    alice.shutdown().await.unwrap();
    relay.shutdown().await.unwrap();
    let kept = contents(&mailboxes);
    // The search would find what is there: the recipient's name is.
    assert!(holds(&kept, id(2).as_bytes()));
    for secret in [name, content] {
        for part in secret.as_bytes().chunks_exact(12) {
            let text = String::from_utf8_lossy(part);
            assert!(!holds(&kept, part), "{text} is in the mailbox");
        }
    }
}

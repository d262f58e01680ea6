//! How long what goes through a relay is, as the app wants it.

use std::collections::BTreeSet;

use outlive::{Identity, Node, Padding};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::world::{CHAT, id, soon};

/// Bytes that messages of some lengths are at the relay, each in a session of its own.
async fn lengths(padding: Padding) -> BTreeSet<u64> {
    let mut lengths = BTreeSet::new();
    for length in [1, 30, 90, 100] {
        let relay = MemoryRelay::new("relay");
        let alice = Node::builder()
            .identity(Identity::from_seed([1; 32]))
            .store(MemoryStore::new())
            .transport(relay)
            .padding(padding)
            .start()
            .await
            .unwrap();
        let to_bob = alice.session(id(2)).await.unwrap();
        let receipt = to_bob.send(CHAT, vec![7; length]).await.unwrap();
        soon("custody", receipt.custody()).await.unwrap();
        lengths.insert(to_bob.traffic()["relay"].bytes_sent);
    }
    lengths
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_few_words_look_alike_at_the_relay_unless_the_app_wants_them_short() {
    assert_eq!(lengths(Padding::default()).await.len(), 1);
    assert_eq!(lengths(Padding::Never).await.len(), 4);
}

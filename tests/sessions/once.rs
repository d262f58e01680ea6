//! Sending under a key, at the moments at which it could go wrong.

use outlive::{Identity, Node, Sending};
use outlive_storage::MemoryStore;

use crate::watched::Watched;
use crate::world::{CHAT, id};

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

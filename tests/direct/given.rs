//! A peer that is dialed where the app says that it is.

use outlive::{Identity, Node, Session};
use outlive_storage::MemoryStore;

use crate::world::{CHAT, carried_by, id, quic, soon};

/// A node without any relay, and its session with the other of the two.
async fn alone(n: u8) -> (Node, Session) {
    let node = Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(MemoryStore::new())
        .direct(quic())
        .start()
        .await
        .expect("a node");
    let session = node.session(id(3 - n)).await.expect("a session");
    (node, session)
}

#[tokio::test]
async fn a_peer_is_found_without_any_relay_where_the_app_says_that_it_is() {
    let (one, to_other) = alone(1).await;
    let (other, to_one) = alone(2).await;
    let mut inbox = to_one.inbox(CHAT).expect("its inbox");
    let sent = to_other.send(CHAT, "hello").await.expect("room");
    let mut known = other.addresses().expect("a socket");
    let known = soon("addresses", known.wait_for(|known| !known.is_empty())).await;
    to_other.found_at(known.expect("a node that runs").clone());
    let delivery = soon("the message", inbox.next()).await.expect("a session");
    assert_eq!(&delivery.payload()[..], b"hello");
    delivery.commit().await.expect("a commit");
    soon("the word of it", sent.consumed())
        .await
        .expect("it is");
    assert_eq!(carried_by(&to_other.state().borrow()), Some("quic"));
    drop((to_other, to_one, inbox));
    for node in [one, other] {
        soon("an end", node.shutdown()).await.expect("it stops");
    }
}

#[tokio::test]
async fn a_session_without_direct_links_is_not_dialed_for_wherever_the_app_says_that_it_is() {
    let (one, to_other) = alone(1).await;
    let (other, to_one) = alone(2).await;
    to_other.allow_direct(false).await.expect("it is so");
    let mut known = other.addresses().expect("a socket");
    let known = soon("addresses", known.wait_for(|known| !known.is_empty())).await;
    to_other.found_at(known.expect("a node that runs").clone());
    // Its word comes after the addresses.
    to_other.allow_direct(false).await.expect("it is so");
    assert_eq!(to_other.state().borrow().links, []);
    to_other.allow_direct(true).await.expect("it is so");
    let mut state = to_other.state();
    let linked = state.wait_for(|state| carried_by(state) == Some("quic"));
    drop(soon("a link", linked).await.expect("a session"));
    drop((to_other, to_one));
    for node in [one, other] {
        soon("an end", node.shutdown()).await.expect("it stops");
    }
}

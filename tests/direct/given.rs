//! A peer that is dialed where the app says that it is.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use outlive::record::Key;
use outlive::{Identity, LinkState, Node, Session, SessionState, Store, StoreError};
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};

use crate::world::{CHAT, carried_by, id, quic, soon};

/// A node without any relay, and its session with the other of the two.
async fn alone(n: u8) -> (Node, Session) {
    alone_over(n, MemoryStore::new()).await
}

async fn alone_over(n: u8, store: impl Store + 'static) -> (Node, Session) {
    let node = Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store)
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
    let answered = |state: &SessionState| {
        let carrier = state.carrier();
        carrier.is_some_and(|link| link.state == LinkState::Connected)
    };
    let mut state = to_other.state();
    let answered = state.wait_for(answered);
    drop(
        soon("an answer over it", answered)
            .await
            .expect("a session"),
    );
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

#[tokio::test]
async fn a_peer_that_has_let_its_session_go_is_dialed_again_where_no_relay_leads_to_it() {
    let (one, to_other) = alone(1).await;
    let (other, to_one) = alone(2).await;
    let mut known = other.addresses().expect("a socket");
    let known = soon("addresses", known.wait_for(|known| !known.is_empty())).await;
    to_other.found_at(known.expect("a node that runs").clone());
    let mut state = to_other.state();
    let linked = state.wait_for(|state| carried_by(state) == Some("quic"));
    drop(soon("a link", linked).await.expect("a session"));
    drop(to_one);
    let alone = state.wait_for(|state| state.links.is_empty());
    drop(soon("the end of the link", alone).await.expect("a session"));
    // What the other may have to say some day has no other way.
    let linked = state.wait_for(|state| carried_by(state) == Some("quic"));
    drop(soon("another link", linked).await.expect("a session"));
    drop((to_other, state));
    for node in [one, other] {
        soon("an end", node.shutdown()).await.expect("it stops");
    }
}

#[tokio::test]
async fn what_is_committed_while_the_senders_store_fails_is_heard_of_when_it_works_again() {
    let store = MemoryStore::new();
    let (one, to_other) = alone_over(1, store.clone()).await;
    let (other, to_one) = alone(2).await;
    let mut inbox = to_one.inbox(CHAT).expect("its inbox");
    let sent = to_other.send(CHAT, "hello").await.expect("room");
    let mut known = other.addresses().expect("a socket");
    let known = soon("addresses", known.wait_for(|known| !known.is_empty())).await;
    to_other.found_at(known.expect("a node that runs").clone());
    let delivery = soon("the message", inbox.next()).await.expect("a session");
    soon("delivery", sent.delivered()).await.expect("it is");
    let consumed = {
        let sent = sent;
        tokio::spawn(async move { sent.consumed().await })
    };
    let waiting = to_other.send(CHAT, "asks").await.expect("room");
    soon("delivery", waiting.delivered()).await.expect("it is");
    store.faults().fail_commits(1, &StoreError::Full);
    let failed = to_other.send(CHAT, "not taken").await;
    failed.expect_err("the store fails");
    delivery.commit().await.expect("a commit");
    let consumed = soon("the word of it", consumed).await;
    consumed.expect("no panic").expect("it is");
    drop((to_other, to_one, inbox, waiting));
    for node in [one, other] {
        soon("an end", node.shutdown()).await.expect("it stops");
    }
}

/// A store that once fails to tell whether the session with peer 2 may have direct links.
#[derive(Default)]
struct FailsOnce {
    failed: AtomicBool,
}

#[async_trait]
impl Interceptor for FailsOnce {
    async fn get(&self, store: &MemoryStore, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        let asked = key == Key::RelayOnly(id(2)).to_bytes();
        if asked && !self.failed.swap(true, Ordering::SeqCst) {
            return Err(StoreError::Full);
        }
        store.get(key).await
    }
}

#[tokio::test]
async fn a_store_that_fails_once_costs_a_session_its_direct_links_for_a_while_only() {
    let store = Intercepted::new(MemoryStore::new(), FailsOnce::default());
    let (one, to_other) = alone_over(1, store).await;
    let (other, to_one) = alone(2).await;
    let mut known = other.addresses().expect("a socket");
    let known = soon("addresses", known.wait_for(|known| !known.is_empty())).await;
    to_other.found_at(known.expect("a node that runs").clone());
    let mut state = to_other.state();
    let linked = state.wait_for(|state| carried_by(state) == Some("quic"));
    drop(soon("a link", linked).await.expect("a session"));
    drop((to_other, to_one));
    for node in [one, other] {
        soon("an end", node.shutdown()).await.expect("it stops");
    }
}

//! Peers on a relay in memory, whose faults can be ordered.

use std::sync::{Arc, Mutex};

use outlive::{Identity, NetworkMonitor, Node, RelayTransport, Session, Store, TransportError};
use outlive_core::transport::RelayConnection;
use outlive_storage::MemoryStore;
use outlive_transports::{Counts, MemoryRelay};
use tokio::time::Instant;

use crate::world::{CHAT, id, soon, take, until};

/// A node with a fresh store.
pub(crate) async fn on(n: u8, relays: &[&MemoryRelay]) -> Node {
    on_store(n, MemoryStore::new(), relays).await
}

/// A node over this store, on these relays.
pub(crate) async fn on_store(n: u8, store: impl Store, relays: &[&MemoryRelay]) -> Node {
    let mut builder = Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store);
    for relay in relays {
        builder = builder.transport((*relay).clone());
    }
    builder.start().await.expect("a node")
}

/// A node that hears of the network what the test tells it.
pub(crate) async fn with_network(
    n: u8,
    way: impl RelayTransport,
    network: &NetworkMonitor,
) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(MemoryStore::new())
        .transport(way)
        .network(network.clone())
        .start()
        .await
        .expect("a node")
}

/// Peers 1 and 2, and their sessions with each other, linked.
pub(crate) async fn pair(relay: &MemoryRelay) -> (Node, Node, Session, Session) {
    let (alice, bob) = (on(1, &[relay]).await, on(2, &[relay]).await);
    let to_bob = alice.session(id(2)).await.expect("a session");
    let to_alice = bob.session(id(1)).await.expect("a session");
    linked(&to_bob).await;
    linked(&to_alice).await;
    (alice, bob, to_bob, to_alice)
}

/// Has a first message arrive, and all that follows from it, so that the peer knows the sender.
pub(crate) async fn acquaint(session: &Session, at_peer: &mut outlive::Inbox) {
    let receipt = session.send(CHAT, "hello").await.expect("it is taken");
    assert_eq!(take(at_peer).await, "hello");
    let consumed = soon("consumption", receipt.consumed()).await;
    consumed.expect("it is consumed");
}

pub(crate) async fn linked(session: &Session) {
    until(session, "a link", |state| !state.links.is_empty()).await;
}

pub(crate) async fn unlinked(session: &Session) {
    until(session, "the link to go", |state| state.links.is_empty()).await;
}

/// Waits until the relay has come so far.
pub(crate) async fn counted(relay: &MemoryRelay, what: &str, is: impl FnMut(&Counts) -> bool) {
    let mut counts = relay.counts();
    let reached = soon(what, counts.wait_for(is)).await;
    reached.expect("the relay lives");
}

/// A way to a relay that notes when it was dialed, and when that worked.
#[derive(Clone)]
pub(crate) struct Noted {
    way: MemoryRelay,
    dials: Arc<Mutex<Vec<(Instant, bool)>>>,
}

impl Noted {
    pub(crate) fn new(way: &MemoryRelay) -> Self {
        Self {
            way: way.clone(),
            dials: Arc::default(),
        }
    }

    /// When it was dialed, and whether it answered.
    pub(crate) fn dials(&self) -> Vec<(Instant, bool)> {
        self.dials.lock().expect("whole").clone()
    }
}

#[async_trait::async_trait]
impl RelayTransport for Noted {
    fn address(&self) -> &str {
        self.way.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        let started = Instant::now();
        let connected = self.way.connect(identity).await;
        let mut dials = self.dials.lock().expect("whole");
        dials.push((started, connected.is_ok()));
        connected
    }
}

/// What a future returns if it is done when it is polled once.
pub(crate) async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

//! A relay on loopback, and nodes that use it.

use std::sync::Arc;

use outlive::{ChannelId, Identity, NetworkMonitor, Node, Session, SessionState, Store};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
pub(crate) use outlive_testing::{PATIENCE, comes, comes_true, soon};
use outlive_transports::WebSocketRelay;

use crate::scene::with_network;

pub(crate) const CHAT: ChannelId = ChannelId::MESSAGES;

pub(crate) async fn relay() -> Relay {
    relay_over(Arc::new(MemoryStore::new())).await
}

pub(crate) async fn relay_over(store: Arc<dyn Store>) -> Relay {
    Relay::builder()
        .store(store)
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port")
}

pub(crate) fn url(relay: &Relay) -> String {
    format!("ws://{}", relay.local_addr())
}

pub(crate) fn way(relay: &Relay) -> WebSocketRelay {
    WebSocketRelay::new(&url(relay)).expect("a good address")
}

pub(crate) async fn node(n: u8, relay: &Relay) -> Node {
    node_over(n, MemoryStore::new(), relay).await
}

pub(crate) async fn node_over(n: u8, store: MemoryStore, relay: &Relay) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store)
        .transport(way(relay))
        .start()
        .await
        .expect("a node")
}

/// A node that hears of the network what the test tells it.
pub(crate) async fn node_and_network(n: u8, relay: &Relay) -> (Node, NetworkMonitor) {
    let network = NetworkMonitor::new();
    let node = with_network(n, way(relay), &network).await;
    (node, network)
}

pub(crate) fn id(n: u8) -> outlive::PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

pub(crate) async fn until(session: &Session, what: &str, is: impl FnMut(&SessionState) -> bool) {
    let mut state = session.state();
    soon(what, state.wait_for(is))
        .await
        .expect("the session lives");
}

/// Takes and commits the next message of a session's chat.
pub(crate) async fn take(inbox: &mut outlive::Inbox) -> String {
    let delivery = soon("a message", inbox.next()).await.expect("a message");
    let text = String::from_utf8_lossy(delivery.payload()).into_owned();
    assert!(!delivery.redelivered(), "{text} is marked as redelivered");
    delivery.commit().await.expect("committed");
    text
}

//! A node changes its relay while the app's handles and callbacks stay as they are.
//!
//! `cargo run -p outlive --example switch_relay`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use outlive::{ChannelId, Identity, Node, SessionEvent};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
use outlive_transports::WebSocketRelay;

const CHAT: ChannelId = ChannelId::MESSAGES;

async fn relay() -> Result<(Relay, Arc<WebSocketRelay>)> {
    let store = Arc::new(MemoryStore::new());
    let relay = Relay::builder()
        .store(store)
        .bind(([127, 0, 0, 1], 0).into())
        .await?;
    let way = WebSocketRelay::new(&format!("ws://{}", relay.local_addr()))?;
    Ok((relay, Arc::new(way)))
}

async fn node(seed: u8, way: &Arc<WebSocketRelay>) -> Result<Node> {
    let identity = Identity::from_seed([seed; 32]);
    let node = Node::builder()
        .identity(identity)
        .store(MemoryStore::new())
        .start()
        .await?;
    node.use_relay(way.clone());
    Ok(node)
}

#[tokio::main]
async fn main() -> Result<()> {
    let ((old, old_way), (new, new_way)) = (relay().await?, relay().await?);
    let (alice, bob) = (node(1, &old_way).await?, node(2, &old_way).await?);
    let (to_bob, to_alice) = (
        alice.session(bob.peer_id()).await?,
        bob.session(alice.peer_id()).await?,
    );
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = heard.clone();
    let _subscription = to_alice.on_event(move |event, _state| {
        if matches!(event, SessionEvent::Message { .. }) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut inbox = to_alice.inbox(CHAT)?;
    to_bob.send(CHAT, "over the old relay").await?;
    inbox.next().await?.commit().await?;

    alice.switch_relay(new_way.clone());
    bob.switch_relay(new_way);
    old.shutdown().await?;
    to_bob.send(CHAT, "over the new relay").await?;
    inbox.next().await?.commit().await?;
    ensure!(
        heard.load(Ordering::SeqCst) == 2,
        "the callback was lost on the way"
    );
    println!("one subscription heard both messages");
    drop(inbox);
    alice.shutdown().await?;
    bob.shutdown().await?;
    new.shutdown().await?;
    Ok(())
}

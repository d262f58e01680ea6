//! Two people talk through a relay, all in one process.
//!
//! `cargo run -p outlive --example chat`

use std::sync::Arc;

use anyhow::Result;
use outlive::{ChannelId, Identity, Node};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
use outlive_transports::WebSocketRelay;

const CHAT: ChannelId = ChannelId::MESSAGES;

async fn node(seed: u8, url: &str) -> Result<Node> {
    let node = Node::builder()
        .identity(Identity::from_seed([seed; 32]))
        .store(MemoryStore::new())
        .transport(WebSocketRelay::new(url)?)
        .start()
        .await?;
    Ok(node)
}

#[tokio::main]
async fn main() -> Result<()> {
    let store = Arc::new(MemoryStore::new());
    let relay = Relay::builder()
        .store(store)
        .bind(([127, 0, 0, 1], 0).into())
        .await?;
    let url = format!("ws://{}", relay.local_addr());
    let (alice, bob) = (node(1, &url).await?, node(2, &url).await?);

    let to_bob = alice.session(bob.peer_id()).await?;
    let to_alice = bob.session(alice.peer_id()).await?;
    let (mut at_alice, mut at_bob) = (to_bob.inbox(CHAT)?, to_alice.inbox(CHAT)?);
    for (question, answer) in [("Are you there?", "I am."), ("Still?", "Still.")] {
        let receipt = to_bob.send(CHAT, question).await?;
        receipt.delivered().await?;
        println!("alice: {question} ✓✓");
        at_bob.next().await?.commit().await?;
        to_alice.send(CHAT, answer).await?;
        let heard = at_alice.next().await?;
        println!("bob:   {}", String::from_utf8_lossy(heard.payload()));
        heard.commit().await?;
    }
    alice.shutdown().await?;
    bob.shutdown().await?;
    relay.shutdown().await?;
    Ok(())
}
